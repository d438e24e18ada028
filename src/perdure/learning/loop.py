"""What a step of learning computes: the denoising loss of a batch and the method's penalty.

Step i depends on the seed and i alone, so a resumed run is the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from perdure.learning.settings import LearnSettings
from perdure.methods.protocol import Learner
from perdure.randomness import generator_of

__all__ = ["Progress", "token_of", "train"]

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"
LOOKS = 64
"""Losses of single pictures that a learner may look back at."""
REPLAYED = 0.5
"""The chance that a picture of a batch is a replayed one, where there are any."""


def train(
    session: Session,
    learner: Learner,
    latents: Mapping[str, Latents],
    settings: LearnSettings,
    *,
    folder: Path,
    prior: Latents | None = None,
    replay: Mapping[str, Replay] | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, float]:
    """Train ``learner`` on a base that has the past folded in; returns facts about the run.

    Args:
        session: the new concepts are among those that it knows.
        learner: the method's trainable state.
        latents: of each new concept, by name.
        settings: steps, rates, seed and the rest.
        folder: gets a checkpoint and the log; a checkpoint that is there is gone on from.
        prior: latents of the prior prompt's pictures, drawn by the untouched base.
        replay: each past concept, drawn by the model as it was before this task.
        report: called after every step.

    Raises PerdureError where the loss is no longer a number.
    """
    learner.to(session.base.device).train()
    groups = learner.groups()
    optimizer = torch.optim.AdamW(
        [
            {"params": groups["deltas"], "lr": settings.lr, "weight_decay": settings.weight_decay},
            {"params": groups["tokens"], "lr": settings.token_lr, "weight_decay": 0.0},
        ]
    )
    step = Step(session, learner, latents, settings, prior, replay or {})
    with session.attached(learner.layer_deltas()):
        if settings.token == STATE:
            session.encode_ahead(step.every_prompt())
        facts = run_steps(
            step.gradients,
            steps=settings.steps,
            parameters=dict(learner.named_parameters()),
            optimizer=optimizer,
            share_of_rate=settings.share_of_rate,
            norm=learner.norm,
            weights=session.base.norm(learner.layers),
            checkpoint=folder / CHECKPOINT,
            checkpoint_every=settings.checkpoint_every,
            log=folder / LOG,
            report=report,
        )
        began = time.monotonic()
        learner.eval()
        if learner.concepts:
            learner.see(step.speaking())
        learner.look_back(step.single_losses())
    return {**facts, "seconds": round(facts["seconds"] + time.monotonic() - began, 3)}


def token_of(session: Session, kind: str, rows: Tensor) -> Token:
    """The token of rows (n, d) as a learner trains them."""
    base = session.base
    return base.tokens.token(kind, rows, session.state_scale if kind == STATE else 1.0)


@dataclass(frozen=True, eq=False)
class Step:
    """One task's losses. `prior` and `replay` as in `train`."""

    session: Session
    learner: Learner
    latents: Mapping[str, Latents]
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
                before = self._loss(x, [settings.prior] * len(x), generator)
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
        for look in range(LOOKS):
            yield own._denoising(1, generator_of(self.settings.seed, self.settings.steps + look))

    def every_prompt(self) -> list[str]:
        """All prompts that a step can ask for."""
        texts = [text.format(f"<{n}>") for n in self.latents for text in self.settings.templates]
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
        xs, prompts = [], []
        for k in range(size):
            if again[k]:
                of, prompt = self.replay[old[past[k]]].latents, self.replay[old[past[k]]].prompt
            else:
                of, name = self.latents[names[concept[k]]], names[concept[k]]
                prompt = settings.templates[int(template[k])].format(f"<{name}>")
            xs.append(of.sample((chance[k : k + 1] * len(of)).long(), generator))
            prompts.append(prompt)
        return self._loss(torch.cat(xs), prompts, generator)

    def _loss(self, x: Tensor, prompts: Sequence[str], generator: torch.Generator) -> Tensor:
        """The objective at times spread evenly over the batch (arXiv 2107.00630, app. I)."""
        session, base = self.session, self.session.base
        objective = base.objective_at(self.size)
        noise = torch.randn(x.shape, generator=generator).to(x)
        places = (torch.arange(len(x)) + torch.rand(len(x), generator=generator)) / len(x)
        t = objective.times(places)
        with base.autocast():
            conditioning = self._said(prompts)
            self.learner.read(conditioning.prompts)
            noised = objective.noised(x, noise, t)
            said = session.predict(noised, t, conditioning, self.size)
        return F.mse_loss(said.float(), objective.target(x, noise, t))
