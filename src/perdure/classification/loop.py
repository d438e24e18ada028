"""Train one task. Step i depends on the seed, the task and i alone: a resumed run is the same."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perdure.classification.labelled import Pictures
from perdure.classification.objective import masked_cross_entropy
from perdure.classification.recipes import Recipe
from perdure.classification.settings import FitSettings
from perdure.hosts.training import Progress, run_steps
from perdure.hosts.vision.backbone import Backbone
from perdure.methods.protocol import Learner
from perdure.randomness import generator_of

__all__ = ["Old", "Progress", "Task", "train"]

LOOKS = 64
"""Losses of single pictures that a learner may look back at."""
LOOKED_AT = 16
"""Pictures of a task that a checkpoint is held to."""
START, SHUFFLE, STEP, LOOK = range(4)
"""What a generator is for, so that no two of one task are alike."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Old:
    """What is there of earlier tasks: the model before this one, and pictures where any are kept"""

    tower: nn.Module | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    pictures: Pictures = ()
    targets: Tensor | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """One task: pictures, for each its column of the head, and how many classes each task has."""

    number: int
    """Counted from 0."""
    classes: tuple[str, ...]
    """Its labels, in the order of their columns."""
    pictures: Pictures
    targets: Tensor
    sizes: tuple[int, ...]
    """Classes of every task so far; this one's are last."""
    old: Old

    @property
    def first(self) -> int:
        """The first of the task's columns."""
        return sum(self.sizes[:-1])

    def facts(self) -> dict[str, object]:
        """What tells it from another task, JSON-ready; of the pictures a few stand for all."""
        digest = hashlib.sha256()
        for index in np.linspace(0, len(self.pictures) - 1, LOOKED_AT).astype(int):
            digest.update(self.pictures[int(index)].tobytes())
        return {
            "number": self.number,
            "sizes": list(self.sizes),
            "classes": list(self.classes),
            "targets": self.targets.tolist(),
            "pictures": digest.hexdigest(),
        }


def train(
    backbone: Backbone,
    recipe: Recipe,
    learner: Learner,
    head: nn.Linear,
    task: Task,
    settings: FitSettings,
    *,
    checkpoint: Path | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, float]:
    """Train ``learner`` and ``head`` on a backbone that has the past folded in; returns facts.

    A ``checkpoint`` file that is there is gone on from; PerdureError where it is of another task
    or of other settings, and where the loss is no longer a number.
    """
    learner.to(backbone.device).train()
    head.to(backbone.device)
    named = dict(learner.named_parameters())
    named |= {f"head.{name}": parameter for name, parameter in head.named_parameters()}
    rates = (settings.lr or recipe.lr, settings.head_lr or recipe.head_lr)
    trained = (learner.groups()["deltas"], list(head.parameters()))
    groups = [{"params": part, "lr": rate} for part, rate in zip(trained, rates, strict=True)]
    each_epoch = -(-len(task.pictures) // settings.batch_size)

    def loss_of(index: np.ndarray, generator: torch.Generator) -> Tensor:
        return _loss(backbone, recipe, learner, head, task, settings, index, generator)

    def gradients(step: int) -> tuple[float, float]:
        epoch, place = divmod(step, each_epoch)
        own = slice(place * settings.batch_size, (place + 1) * settings.batch_size)
        index = _order(len(task.pictures), settings.seed, task.number, epoch)[own]
        generator = generator_of(settings.seed, task.number, STEP, step)
        learner.begin_step(generator)
        loss, penalty = loss_of(index, generator), learner.penalty()
        (loss + penalty).backward()
        return float(loss.detach()), float(penalty.detach())

    asked = {
        "task": task.facts(),
        "settings": settings.to_json(),
        "method": recipe.method.describe(),
        "backbone": backbone.hash,
        "preprocessing": backbone.preprocessing.to_json(),
    }
    with backbone.attached(learner.layer_deltas()):
        facts = run_steps(
            gradients,
            steps=settings.epochs * each_epoch,
            parameters=named,
            optimizer=torch.optim.Adam(groups),
            share_of_rate=lambda step: settings.share_of_rate(step // each_epoch),
            norm=learner.norm,
            checkpoint=checkpoint,
            checkpoint_every=settings.checkpoint_every,
            asked=asked,
            report=report,
        )
        began = time.monotonic()
        learner.eval()
        learner.look_back(_single_losses(loss_of, task, settings))
    return {**facts, "seconds": round(facts["seconds"] + time.monotonic() - began, 3)}


@lru_cache(maxsize=2)
def _order(count: int, seed: int, task: int, epoch: int) -> np.ndarray:
    """The pictures of an epoch in their order."""
    return torch.randperm(count, generator=generator_of(seed, task, SHUFFLE, epoch)).numpy()


def _loss(
    backbone: Backbone,
    recipe: Recipe,
    learner: Learner,
    head: nn.Linear,
    task: Task,
    settings: FitSettings,
    index: np.ndarray,
    generator: torch.Generator,
) -> Tensor:
    """The loss of a batch, without the penalty."""
    pictures = [task.pictures[int(i)] for i in index]
    targets = task.targets[torch.from_numpy(index)]
    old = task.old
    if old.targets is not None and len(old.pictures):
        again = torch.randint(len(old.pictures), (len(index),), generator=generator)
        pictures += [old.pictures[int(i)] for i in again]
        targets = torch.cat([targets, old.targets[again]])
    pixels = backbone.preprocessing.augmented(
        pictures, generator, crop=settings.crop, flip=settings.flip
    )
    logits = head(recipe.features(backbone, pixels, (), learner))
    first = task.first if recipe.masks_old_classes else 0
    loss = masked_cross_entropy(logits, targets.to(logits.device), first)
    if old.tower is not None and old.weight is not None:
        with torch.no_grad():
            before = F.linear(backbone.features(pixels, old.tower), old.weight, old.bias)
        loss = loss + recipe.held(logits, before, task.sizes[:-1])
    return loss


def _single_losses(
    loss_of: Callable[[np.ndarray, torch.Generator], Tensor], task: Task, settings: FitSettings
) -> Iterator[Tensor]:
    """LOOKS losses of one picture each; nothing is computed before the first is asked for."""
    for look in range(LOOKS):
        generator = generator_of(settings.seed, task.number, LOOK, look)
        index = torch.randint(len(task.pictures), (1,), generator=generator).numpy()
        yield loss_of(index, generator)
