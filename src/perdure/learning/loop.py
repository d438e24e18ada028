"""The training loop. Step i depends on the seed and i alone: a resumed run is the same run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from perdure.adapters import Prompts, attached
from perdure.base.base import Base
from perdure.base.layerwise import layer_states, reading, typical
from perdure.checkpoint import load_checkpoint, save_checkpoint
from perdure.durable import replace_file, sync_file
from perdure.errors import PerdureError
from perdure.learning.drawn import Replay
from perdure.learning.latents import Latents
from perdure.learning.settings import LearnSettings
from perdure.methods.protocol import Learner
from perdure.randomness import generator_of

__all__ = ["Progress", "train"]

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"
LOOKS = 64
"""Losses of single pictures that a learner may look back at."""
REPLAYED = 0.5
"""The chance that a picture of a batch is a replayed one, where there are any."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What one step tells: losses, Frobenius norm of the deltas, seconds left of this learn."""

    step: int
    steps: int
    loss: float
    penalty: float
    norm: float
    left: float


def train(
    base: Base,
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
        base: frozen; its tokens already include the new concepts.
        learner: the method's trainable state.
        latents: of each new concept, by name.
        settings: steps, rates, seed and the rest.
        folder: gets a checkpoint and the log; a checkpoint that is there is gone on from.
        prior: latents of the prior prompt's pictures, drawn by the untouched base.
        replay: each past concept, drawn by the model as it was before this task.
        report: called after every step.

    Raises PerdureError where the loss is no longer a number.
    """
    path = folder / CHECKPOINT
    learner.to(base.device).train()
    groups = learner.groups()
    optimizer = torch.optim.AdamW(
        [
            {"params": groups["deltas"], "lr": settings.lr, "weight_decay": settings.weight_decay},
            {"params": groups["tokens"], "lr": settings.token_lr, "weight_decay": 0.0},
        ]
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    named = dict(learner.named_parameters())
    done, spent = 0, 0.0
    last: dict[str, float] = {}
    if path.exists():
        facts = load_checkpoint(path, parameters=named, optimizer=optimizer)
        done, spent = int(str(facts["step"])), float(str(facts["seconds"]))
        last = {name: float(str(facts[name])) for name in ("loss", "penalty", "norm")}
    _cut_log(folder / LOG, done)
    began = time.monotonic()
    with open(folder / LOG, "a") as log, attached(base.layers, learner.layer_deltas()):
        for step in range(done, settings.steps):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * settings.share_of_rate(step)
            loss, penalty = _step(
                base, learner, latents, settings, prior, replay or {}, optimizer, step
            )
            seconds = time.monotonic() - began
            left = seconds / (step + 1 - done) * (settings.steps - step - 1)
            norm = learner.norm()
            last = {"loss": loss, "penalty": penalty, "norm": norm}
            log.write(json.dumps({"step": step + 1, **last}) + "\n")
            report(Progress(step=step + 1, steps=settings.steps, left=left, **last))
            if (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps:
                log.flush()
                sync_file(folder / LOG)  # never shorter than its checkpoint says
                save_checkpoint(
                    path,
                    parameters=named,
                    optimizer=optimizer,
                    facts={
                        "step": step + 1,
                        "seconds": spent + time.monotonic() - began,
                        **last,
                    },
                )
        learner.eval()
        if learner.concepts:
            learner.see(_speaking(base, learner, settings))
        learner.look_back(_single_losses(base, learner, latents, settings))
    return {**last, "seconds": round(spent + time.monotonic() - began, 3)}


def _step(
    base: Base,
    learner: Learner,
    latents: Mapping[str, Latents],
    settings: LearnSettings,
    prior: Latents | None,
    replay: Mapping[str, Replay],
    optimizer: torch.optim.Optimizer,
    step: int,
) -> tuple[float, float]:
    """One optimiser step; returns the denoising loss and the weighted penalty."""
    generator = generator_of(settings.seed, step)
    learner.begin_step(generator)
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for _ in range(settings.accumulate):
        loss = _denoising(base, learner, latents, settings, generator, replay)
        if prior is not None:
            index = torch.randint(len(prior), (settings.batch_size,), generator=generator)
            x = prior.sample(index, generator)
            ids = base.tokens.ids([settings.prior] * len(x))
            before = _loss(base, learner, x, ids, generator)
            loss = loss + settings.prior_weight * before
        (loss / settings.accumulate).backward()
        total += float(loss.detach()) / settings.accumulate
    penalty = learner.penalty()
    if penalty.requires_grad:
        penalty.backward()
    if not torch.isfinite(penalty.detach()) or total != total:
        raise PerdureError(
            f"Learning diverged at step {step + 1} (loss {total}, penalty {float(penalty)}): "
            "lower --lr or the method's penalty."
        )
    optimizer.step()
    return total, float(penalty.detach())


def _single_losses(
    base: Base, learner: Learner, latents: Mapping[str, Latents], settings: LearnSettings
) -> Iterator[Tensor]:
    """LOOKS losses of one picture each; nothing is computed before the first is asked for."""
    one = replace(settings, batch_size=1)
    for look in range(LOOKS):
        generator = generator_of(settings.seed, settings.steps + look)
        yield _denoising(base, learner, latents, one, generator, {})


@torch.no_grad()
def _speaking(base: Base, learner: Learner, settings: LearnSettings) -> Prompts:
    """What `Learner.see` is given: prompts of the new concepts, by their trained tokens."""
    tokens = learner.tokens()
    alone = ("{}",) if learner.sees_tokens_alone else ()
    texts = dict.fromkeys((*alone, *settings.templates))
    ids = base.tokens.ids([text.format(f"<{name}>") for name in tokens for text in texts])
    with base.tokens.serving(tokens):
        parts = [typical(layer_states(base, part, tokens)).float() for part in ids.split(32)]
    return base.prompts(ids, torch.cat(parts))


def _denoising(
    base: Base,
    learner: Learner,
    latents: Mapping[str, Latents],
    settings: LearnSettings,
    generator: torch.Generator,
    replay: Mapping[str, Replay],
) -> Tensor:
    """The objective on a batch of the new concepts' pictures, half of it replayed if any are."""
    size = settings.batch_size
    names, old = list(latents), list(replay)
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
            of, prompt = replay[old[past[k]]].latents, replay[old[past[k]]].prompt
        else:
            of, name = latents[names[concept[k]]], names[concept[k]]
            prompt = settings.templates[int(template[k])].format(f"<{name}>")
        xs.append(of.sample((chance[k : k + 1] * len(of)).long(), generator))
        prompts.append(prompt)
    with base.tokens.serving(learner.tokens()):
        return _loss(base, learner, torch.cat(xs), base.tokens.ids(prompts), generator)


def _loss(
    base: Base, learner: Learner, x: Tensor, ids: Tensor, generator: torch.Generator
) -> Tensor:
    """The objective at times that are spread evenly over the batch (arXiv 2107.00630, app. I)."""
    noise = torch.randn(x.shape, generator=generator).to(x)
    places = (torch.arange(len(x)) + torch.rand(len(x), generator=generator)) / len(x)
    t = (places * base.objective.steps).long()
    with base.autocast():
        by_layer = layer_states(base, ids, learner.tokens())
        states = typical(by_layer)
        learner.read(base.prompts(ids, states))
        noised = base.objective.noised(x, noise, t)
        with reading(base, by_layer):
            said = base.denoiser(noised, t.to(x.device), encoder_hidden_states=states).sample
    return F.mse_loss(said.float(), base.objective.target(x, noise, t))


def _cut_log(path: Path, done: int) -> None:
    """Drop the lines that a killed run wrote after its last checkpoint."""
    lines: Sequence[str] = path.read_text().splitlines(keepends=True) if path.exists() else ()
    replace_file(path, "".join(lines[:done]).encode())
