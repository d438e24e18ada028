"""Train one task. Step i depends on the seed, the task and i alone: a resumed run is the same."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perdure.adapters import attached
from perdure.checkpoint import checkpoint_facts, load_checkpoint, save_checkpoint
from perdure.classification.backbone import Backbone
from perdure.classification.coda_prompt import CodaPromptLearner, prompted
from perdure.classification.lwf import LwF
from perdure.classification.objective import masked_cross_entropy
from perdure.classification.pictures import Pictures
from perdure.classification.registry import masks_old_classes, rates_of
from perdure.classification.settings import FitSettings
from perdure.errors import PerdureError
from perdure.methods.protocol import Learner, Method
from perdure.randomness import generator_of

__all__ = ["Old", "Progress", "Task", "train"]

LOOKS = 64
"""Losses of single pictures that a learner may look back at."""
LOOKED_AT = 16
"""Pictures of a task that a checkpoint is held to."""
START, SHUFFLE, STEP, LOOK = range(4)
"""What a generator is for, so that no two of one task are alike."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What one step tells: losses, Frobenius norm of the deltas, seconds left of this task."""

    step: int
    steps: int
    loss: float
    penalty: float
    norm: float
    left: float


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
    method: Method,
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
    own_rate, head_rate = rates_of(method)
    rates = [settings.lr or own_rate, settings.head_lr or head_rate]
    groups = [learner.groups()["deltas"], list(head.parameters())]
    optimizer = torch.optim.Adam(
        [{"params": group, "lr": rate} for group, rate in zip(groups, rates, strict=True)]
    )
    each_epoch = -(-len(task.pictures) // settings.batch_size)
    steps = settings.epochs * each_epoch
    done, spent = 0, 0.0
    last: dict[str, float] = {}
    if checkpoint is not None:
        asked = {
            "task": task.facts(),
            "settings": settings.to_json(),
            "method": method.describe(),
            "backbone": backbone.hash,
            "preprocessing": backbone.preprocessing.to_json(),
        }
    if checkpoint is not None and checkpoint.exists():
        try:
            alike = checkpoint_facts(checkpoint)["asked"] == asked
        except (ValueError, KeyError) as error:
            raise PerdureError(
                f"The checkpoint {checkpoint} cannot be read: remove it to start this task anew."
            ) from error
        if not alike:
            raise PerdureError(
                f"The checkpoint {checkpoint} is of another task or of other settings: give them "
                "again as they were, or remove it to start this task anew."
            )
        facts = load_checkpoint(checkpoint, parameters=named, optimizer=optimizer)
        done, spent = int(str(facts["step"])), float(str(facts["seconds"]))
        last = {name: float(str(facts[name])) for name in ("loss", "penalty", "norm")}
    began = time.monotonic()
    with attached(backbone.layers, learner.layer_deltas()):
        for step in range(done, steps):
            epoch, place = divmod(step, each_epoch)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * settings.share_of_rate(epoch)
            own = slice(place * settings.batch_size, (place + 1) * settings.batch_size)
            index = _order(len(task.pictures), settings.seed, task.number, epoch)[own]
            generator = generator_of(settings.seed, task.number, STEP, step)
            learner.begin_step(generator)
            optimizer.zero_grad(set_to_none=True)
            loss = _loss(backbone, method, learner, head, task, settings, index, generator)
            penalty = learner.penalty()
            (loss + penalty).backward()
            last = {"loss": float(loss.detach()), "penalty": float(penalty.detach())}
            if not all(math.isfinite(value) for value in last.values()):
                raise PerdureError(
                    f"Fitting diverged at step {step + 1} (loss {last['loss']:g}, penalty "
                    f"{last['penalty']:g}): lower lr or the method's penalty."
                )
            optimizer.step()
            last["norm"] = learner.norm()
            seconds = time.monotonic() - began
            left = seconds / (step + 1 - done) * (steps - step - 1)
            report(Progress(step=step + 1, steps=steps, left=left, **last))
            ready = (step + 1) % settings.checkpoint_every == 0 or step + 1 == steps
            if checkpoint is not None and ready:
                now = {"asked": asked, "step": step + 1, "seconds": spent + seconds, **last}
                save_checkpoint(checkpoint, parameters=named, optimizer=optimizer, facts=now)
        learner.eval()
        learner.look_back(_single_losses(backbone, method, learner, head, task, settings))
    return {**last, "seconds": round(spent + time.monotonic() - began, 3)}


@lru_cache(maxsize=2)
def _order(count: int, seed: int, task: int, epoch: int) -> np.ndarray:
    """The pictures of an epoch in their order."""
    return torch.randperm(count, generator=generator_of(seed, task, SHUFFLE, epoch)).numpy()


def _loss(
    backbone: Backbone,
    method: Method,
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
    if isinstance(learner, CodaPromptLearner):
        features = prompted(backbone, learner.components(), pixels)
    else:
        features = backbone.features(pixels)
    logits = head(features)
    first = task.first if masks_old_classes(method) else 0
    loss = masked_cross_entropy(logits, targets.to(logits.device), first)
    if isinstance(method, LwF) and old.tower is not None and old.weight is not None:
        with torch.no_grad():
            before = F.linear(backbone.features(pixels, old.tower), old.weight, old.bias)
        loss = loss + method.held(logits, before, task.sizes[:-1])
    return loss


def _single_losses(
    backbone: Backbone,
    method: Method,
    learner: Learner,
    head: nn.Linear,
    task: Task,
    settings: FitSettings,
) -> Iterator[Tensor]:
    """LOOKS losses of one picture each; nothing is computed before the first is asked for."""
    for look in range(LOOKS):
        generator = generator_of(settings.seed, task.number, LOOK, look)
        index = torch.randint(len(task.pictures), (1,), generator=generator).numpy()
        yield _loss(backbone, method, learner, head, task, settings, index, generator)
