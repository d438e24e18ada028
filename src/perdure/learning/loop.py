"""What a step of learning computes: the denoising loss of a batch and the method's penalty.

Step i depends on the seed and i alone, so a resumed run is the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from perdure.adapters import Prompts, Token
from perdure.adapters.prompts import STATE
from perdure.hosts.diffusion.conditioning import Conditioning
from perdure.hosts.diffusion.session import Session
from perdure.hosts.size import Size
from perdure.hosts.training import Progress, run_steps
from perdure.learning.drawn import Replay
from perdure.learning.latents import Latents
from perdure.learning.optimizers import at_rest, build_optimizer
from perdure.learning.settings import LearnSettings
from perdure.learning.stopping import MOST, Plateau
from perdure.methods.protocol import Learner
from perdure.randomness import generator_of

__all__ = ["Progress", "token_of", "train"]

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"
HELD_OUT = 32
"""Noised pictures by which `Plateau` says whether a concept is learned."""
LOOKS = 64
"""Losses of single pictures that a learner may look back at."""
REPLAYED = 0.5
"""The chance that a picture of a batch is a replayed one, where there are any."""


def train(
    session: Session,
    learner: Learner,
    latents: Mapping[str, Sequence[Latents]],
    settings: LearnSettings,
    *,
    folder: Path,
    prior: Latents | None = None,
    replay: Mapping[str, Replay] | None = None,
    preview: Callable[[Step, int], None] | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, float]:
    """Train ``learner`` on a base that has the past folded in; returns facts about the run.

    Args:
        session: the new concepts are among those that it knows.
        learner: the method's trainable state.
        latents: of each new concept, by name; one for each size of its pictures.
        settings: steps, rates, seed and the rest.
        folder: gets a checkpoint and the log; a checkpoint that is there is gone on from.
        prior: latents of the prior prompt's pictures, drawn by the untouched base.
        replay: each past concept, drawn by the model as it was before this task.
        preview: called with the number of steps made, every `preview_every` and after the last.
        report: called after every step.

    Raises PerdureError where the loss is no longer a number.
    """
    learner.to(session.base.device).train()
    optimizer = build_optimizer(learner.groups(), settings)
    step = Step(session, learner, latents, settings, prior, replay or {})

    def held_out() -> float:
        with at_rest(optimizer):
            return step.held_out()

    plateau = Plateau(held_out) if settings.steps is None else None
    with session.recomputing(settings.recompute), ExitStack() as live:
        live.enter_context(session.attached(learner.layer_deltas()))

        def told(progress: Progress) -> None:
            report(progress)
            due = settings.preview_every and progress.step % settings.preview_every == 0
            if preview is not None and (due or progress.step == progress.steps):
                live.close()
                with at_rest(optimizer):
                    preview(step, progress.step)
                live.enter_context(session.attached(learner.layer_deltas()))

        if settings.token == STATE:
            session.encode_ahead(step.every_prompt())
        facts = run_steps(
            step.gradients,
            steps=plateau or settings.steps or 0,
            parameters=dict(learner.named_parameters()),
            optimizer=optimizer,
            share_of_rate=(plateau or settings).share_of_rate,
            norm=learner.norm,
            weights=session.base.norm(learner.layers),
            checkpoint=folder / CHECKPOINT,
            checkpoint_every=settings.checkpoint_every,
            log=folder / LOG,
            report=told,
        )
        began = time.monotonic()
        if hasattr(optimizer, "eval"):
            optimizer.eval()
        learner.eval()
        if learner.concepts:
            learner.see(step.speaking())
        learner.look_back(step.single_losses())
    if plateau is not None:
        facts["steps"] = plateau.steps
    return {**facts, "seconds": round(facts["seconds"] + time.monotonic() - began, 3)}


def token_of(session: Session, kind: str, rows: Tensor) -> Token:
    """The token of rows (n, d) as a learner trains them."""
    base = session.base
    return base.tokens.token(kind, rows, session.state_scale if kind == STATE else 1.0)


@dataclass(frozen=True, eq=False)
class Step:
    """One task's losses. `latents`, `prior` and `replay` as in `train`."""

    session: Session
    learner: Learner
    latents: Mapping[str, Sequence[Latents]]
    settings: LearnSettings
    prior: Latents | None
    replay: Mapping[str, Replay]

    @property
    def size(self) -> Size:
        """Of the pictures."""
        return self.session.base.fitting(self.settings.size)

    def gradients(self, number: int) -> tuple[float, float]:
        """Fill the gradients of one optimiser step; the denoising loss and the weighted penalty."""
        settings, generator = self.settings, generator_of(self.settings.seed, number)
        self.learner.begin_step(generator)
        total = 0.0
        for _ in range(settings.accumulate):
            loss = self._denoising(settings.batch_size, generator)
            if self.prior is not None:
                index = torch.randint(len(self.prior), (settings.batch_size,), generator=generator)
                x = self.prior.sample(index, generator)
                before = self._loss(x, [settings.prior] * len(x), None, self.size, generator)
                loss = loss + settings.prior_weight * before
            (loss / settings.accumulate).backward()
            total += float(loss.detach()) / settings.accumulate
        penalty = self.learner.penalty()
        if penalty.requires_grad:
            penalty.backward()
        return total, float(penalty.detach())

    def single_losses(self) -> Iterator[Tensor]:
        """LOOKS losses of one picture each; nothing is computed before the first is asked for."""
        own = replace(self, replay={})
        first = MOST if self.settings.steps is None else self.settings.steps
        for look in range(LOOKS):
            yield own._denoising(1, generator_of(self.settings.seed, first + look))

    @torch.no_grad()
    def held_out(self) -> float:
        """The mean loss of HELD_OUT pictures at noises and times that are always the same ones."""
        own, size = replace(self, replay={}), self.settings.batch_size
        passes = max(1, HELD_OUT // size)
        self.learner.eval()
        losses = [
            float(own._denoising(size, generator_of(self.settings.seed, k, HELD_OUT)))
            for k in range(passes)
        ]
        self.learner.train()
        return sum(losses) / passes

    def every_prompt(self) -> list[str]:
        """All prompts that a step can ask for."""
        texts = [
            text.format(f"<{name}>")
            for name, groups in self.latents.items()
            for text in (*self.settings.templates, *self._captions(groups))
        ]
        texts += [past.prompt for past in self.replay.values()]
        return [*texts, self.settings.prior] if self.prior is not None else texts

    @torch.no_grad()
    def speaking(self) -> Prompts:
        """What `Learner.see` is given: prompts of the new concepts, by their trained tokens."""
        alone = ("{}",) if self.learner.sees_tokens_alone else ()
        texts = dict.fromkeys((*alone, *self.settings.templates))
        prompts = [t.format(f"<{name}>") for name in self.learner.tokens() for t in texts]
        parts = [self._said(prompts[i : i + 32]).prompts for i in range(0, len(prompts), 32)]
        return Prompts.joined(parts)

    def _said(self, prompts: Sequence[str]) -> Conditioning:
        rows, kind = self.learner.tokens(), self.settings.token
        tokens = {name: token_of(self.session, kind, row) for name, row in rows.items()}
        return self.session.conditioning(prompts, tokens)

    def _denoising(self, size: int, generator: torch.Generator) -> Tensor:
        """The objective on a batch of the new concepts' pictures, half of it replayed if any."""
        settings = self.settings
        names, old = list(self.latents), list(self.replay)
        concept = torch.randint(len(names), (size,), generator=generator).tolist()
        template = torch.randint(len(settings.templates), (size,), generator=generator)
        chance = torch.rand(size, generator=generator)
        again = [False] * size
        if old:
            again = (torch.rand(size, generator=generator) < REPLAYED).tolist()
            past = torch.randint(len(old), (size,), generator=generator).tolist()
        new = [one for groups in self.latents.values() for one in groups]
        left_out = [False] * size
        if any(one.captions for one in new):
            left_out = (torch.rand(size, generator=generator) < settings.caption_dropout).tolist()
        masked = any(one.shares is not None for one in new)
        drawn: dict[Size, tuple[list[Tensor], list[str], list[Tensor]]] = {}
        for k in range(size):
            if again[k]:
                replay = self.replay[old[past[k]]]
                of, at = _located([replay.latents], chance[k])
                prompt = replay.prompt
            else:
                name = names[concept[k]]
                of, at = _located(self.latents[name], chance[k])
                told = None if left_out[k] else of.caption(int(at))
                prompt = (told or settings.templates[int(template[k])]).format(f"<{name}>")
            xs, prompts, shares = drawn.setdefault(of.size or self.size, ([], [], []))
            xs.append(of.sample(at, generator))
            prompts.append(prompt)
            shares.append(of.share(at))
        losses = [
            self._loss(torch.cat(xs), said, torch.cat(shares) if masked else None, own, generator)
            * (len(xs) / size)
            for own, (xs, said, shares) in drawn.items()
        ]
        return torch.stack(losses).sum() if len(losses) > 1 else losses[0]

    @staticmethod
    def _captions(groups: Sequence[Latents]) -> Iterator[str]:
        return (text for one in groups for text in one.captions if text)

    def _loss(
        self,
        x: Tensor,
        prompts: Sequence[str],
        shares: Tensor | None,
        size: Size,
        generator: torch.Generator,
    ) -> Tensor:
        """The objective at times spread evenly over the batch (arXiv 2107.00630, app. I).

        With ``shares`` (N, 1, h, w) it is each picture's mean over the places that they weigh.
        """
        session, base = self.session, self.session.base
        objective = base.objective_at(size)
        noise = torch.randn(x.shape, generator=generator).to(x)
        places = (torch.arange(len(x)) + torch.rand(len(x), generator=generator)) / len(x)
        t = objective.times(places)
        with base.autocast():
            conditioning = self._said(prompts)
            session.reading = partial(self.learner.read, conditioning.prompts)
            session.reading()
            noised = objective.noised(x, noise, t)
            said = session.predict(noised, t, conditioning, size)
        target = objective.target(x, noise, t)
        if shares is None:
            return F.mse_loss(said.float(), target)
        error = (said.float() - target).square() * shares
        return (error.mean(dim=(1, 2, 3)) / shares.mean(dim=(1, 2, 3))).mean()


def _located(groups: Sequence[Latents], chance: Tensor) -> tuple[Latents, Tensor]:
    """The group of the picture that a chance in [0, 1) falls on, and its index (1,) there."""
    if any(one.weights for one in groups):
        weights = [w for one in groups for w in one.weights or [1.0] * len(one)]
        ends = torch.tensor(weights, dtype=torch.float64).cumsum(0)
        index = torch.searchsorted(ends, chance.double()[None] * ends[-1], right=True)
        index = index.clamp_max(len(weights) - 1)
    else:
        index = (chance[None] * sum(map(len, groups))).long()
    for one in groups:
        if int(index) < len(one):
            return one, index
        index = index - len(one)
    raise IndexError("a chance is below 1")
