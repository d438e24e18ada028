"""The stage `train`: flow matching on mapped latents, text encoders and transformer together."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from perdure import precision
from perdure.checkpoint import write_atomically
from perdure.randomness import generator_of
from perdure.smallworld.flow.flat import Flat
from perdure.smallworld.flow.model import ZERO_ROWS, FlowModel
from perdure.smallworld.flow.scenes import Latents
from perdure.smallworld.flow.speech import VARIANTS, empty_ids
from perdure.smallworld.vocabulary import DOMAINS

__all__ = ["CHECKPOINT", "Plan", "batch_of", "by_kind", "taken", "train"]

EMPTY, NAMED, FEW_ZEROS, EVEN = 0.1, 0.8, 0.5, 0.2
"""Shares: of captions left out; of known subjects called by name; of prompts with no zero row or
one, where the others have the pipeline's; of times drawn evenly, the others are logit-normal."""
CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run; ``steps`` in all, of which the last ``decay`` share falls linearly to zero."""

    steps: int = 60_000
    batch: int = 128
    rate: float = 2e-3
    decay: float = 0.25
    warmup: int = 300
    weight_decay: float = 0.01
    momentum: float = 0.9995
    """Of the averaged weights."""
    names: bool = True
    """Are known subjects called by name? Without, the same scenes are described."""
    seed: int = 0
    save_every: int = 100
    minutes: float | None = None
    """Stop, with a checkpoint, after so long."""

    def rate_at(self, step: int) -> float:
        """The rate of the step after ``step``."""
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.rate * max(0.0, min(1.0, (step + 1) / self.warmup, left))


def batch_of(
    rows: Mapping[str, Tensor], generator: torch.Generator, names: bool = True
) -> dict[str, Tensor]:
    """What a step trains on, from rows of `Latents` as tensors on the generator's device.

    ``latents`` (N, 8, 16, 16) noised, ``velocity`` of the same shape, ``times`` (N,) in 0..1000,
    ``ids`` (N, P), ``zeros`` (N,), ``kinds`` (N,), ``called`` (N,): is it called by name?
    """
    count, device = len(rows["kinds"]), generator.device
    draws = torch.rand(7, count, generator=generator, device=device)
    full, short, name, left_out, alone, evenly, even = draws
    variant = torch.where(short < 0.5, VARIANTS.index("short"), (full < 0.5).long())
    called = rows["named"] & (name < (NAMED if names else 0.0))
    variant = torch.where(called, VARIANTS.index("named"), variant)
    ids = rows["ids"][torch.arange(count, device=device), variant].long()
    nothing = torch.tensor(empty_ids(), device=device)
    ids = torch.where((left_out < EMPTY)[:, None], nothing, ids)
    sigma = torch.randn(count, generator=generator, device=device).sigmoid()  # 2403.03206
    sigma = torch.where(evenly < EVEN, even, sigma)
    picture = rows["latents"].float()
    noise = torch.randn(picture.shape, generator=generator, device=device)
    at = sigma[:, None, None, None]
    return {
        "latents": (1 - at) * picture + at * noise,
        "velocity": noise - picture,
        "times": 1000 * sigma,
        "ids": ids,
        "zeros": torch.where(alone < FEW_ZEROS, (2 * alone / FEW_ZEROS).long(), ZERO_ROWS),
        "kinds": rows["kinds"].long(),
        "called": called & (left_out >= EMPTY),
    }


def taken(scenes: Latents, plan: Plan, step: int) -> dict[str, Tensor]:
    """The batch of ``step``, a function of (scenes, the plan's seed, step) alone."""
    generator = generator_of(plan.seed, step)
    index = torch.randint(len(scenes), (plan.batch,), generator=generator)
    rows = {key: torch.from_numpy(value) for key, value in scenes.take(index.numpy()).items()}
    return batch_of(rows, generator, plan.names)


def by_kind(errors: Tensor, kinds: Tensor, called: Tensor) -> Mapping[str, float]:
    """Mean error of all, of each kind, and of those called by name, where there are any."""
    groups = {kind: errors[kinds == k] for k, kind in enumerate(DOMAINS)}
    groups |= {"named": errors[called], "loss": errors}
    return {name: group.mean().item() for name, group in groups.items() if len(group)}


def train(model: FlowModel, scenes: Latents, folder: Path, plan: Plan) -> int:
    """Train ``model`` in ``folder`` on the CPU; returns the steps made in all.

    ``folder`` receives ``checkpoint.safetensors`` (weights, their average, moments) and
    ``log.jsonl``; a run that finds a checkpoint there goes on from it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CHECKPOINT
    fast = precision.fast_bf16(torch.device("cpu"))
    flat = Flat(model, torch.bfloat16 if fast else torch.float32)
    step, spent, seen = 0, 0.0, 0
    if path.exists():
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            flat.load({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
        step, spent, seen = facts["step"], facts["seconds"], facts["samples"]
    began = time.monotonic()

    def save() -> None:
        facts = {"step": step, "seconds": spent + time.monotonic() - began, "samples": seen}
        write_atomically(path, flat.state(), {"facts": json.dumps(facts)})

    errors, kinds, called, norms = [], [], [], []
    with open(folder / "log.jsonl", "a") as log:
        while step < plan.steps:
            batch = taken(scenes, plan, step)
            velocity = model(batch["latents"], batch["ids"], batch["times"], batch["zeros"])
            error = (velocity - batch["velocity"]).square().mean(dim=(1, 2, 3))
            error.mean().backward()
            rate = plan.rate_at(step)
            step, seen = step + 1, seen + plan.batch
            momentum = min(plan.momentum, (1 + step) / (10 + step))
            norm = flat.step(step, rate=rate, decay=plan.weight_decay, momentum=momentum, clip=1.0)
            errors.append(error.detach())
            kinds.append(batch["kinds"])
            called.append(batch["called"])
            norms.append(norm)
            over = plan.minutes is not None and time.monotonic() - began > 60 * plan.minutes
            if step % 50 == 0 or step == plan.steps or over:
                row = dict(by_kind(torch.cat(errors), torch.cat(kinds), torch.cat(called)))
                row |= {"norm": torch.stack(norms).mean().item(), "rate": rate}
                row["seconds"] = spent + time.monotonic() - began
                facts = {"step": step, "samples": seen, "scenes": len(scenes)}
                told = facts | {key: round(value, 5) for key, value in row.items()}
                log.write(json.dumps(told) + "\n")
                log.flush()
                for kept in (errors, kinds, called, norms):
                    kept.clear()
            if step % plan.save_every == 0 or step == plan.steps or over:
                save()
            if over:
                break
    return step
