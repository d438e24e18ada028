"""Which settings a task learns with: the method's, the base's advice, what the user gave."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perdure.bank import TaskRecord
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.hosts.diffusion.memory import needs
from perdure.learning.settings import LearnSettings
from perdure.methods import METHODS
from perdure.randomness import seed_of

__all__ = ["advised", "make_settings", "seed_for_concepts", "smaller", "templates_of"]


def seed_for_concepts(seed: int, concepts: Sequence[str]) -> int:
    """The seed of a task that depends on no other: from the settings' and its concepts' names.

    So the task comes out the same whenever it is learned, and two concepts start differently.
    """
    return seed_of(seed, *json.dumps(sorted(concepts)).encode()) >> 1  # below 2^31, as all seeds


def templates_of(tasks: Iterable[TaskRecord]) -> dict[str, tuple[str, ...]]:
    """Concept -> the prompts that it was taught with; the default ones where a task tells none."""
    return {
        name: tuple(task.facts.get("settings", {}).get("templates", LearnSettings.templates))
        for task in tasks
        for name in task.concepts
    }


def advised(hints: Mapping[str, Any], method: str) -> dict[str, Any]:
    """What the method asks for, over it a base's `perdure.json`: `learning`, then `learning_of`."""
    own = {"token": METHODS[method].token}
    return {**own, **hints.get("learning", {}), **hints.get("learning_of", {}).get(method, {})}


def make_settings(advice: Mapping[str, Any], given: Mapping[str, Any]) -> LearnSettings:
    """Settings from a base's advice, overruled by what the user gave.

    Raises PerdureError for an option that does not exist, has no effect, or does not fit.
    """
    settings = LearnSettings.of({**advice, **given})
    for name in ("prior_pictures", "prior_weight"):
        if name in given and not settings.prior:
            raise PerdureError(
                f"{name} has no effect without prior: give the prior prompt as well."
            )
    for name in sorted({"lr", "token_lr"} & given.keys()):
        if settings.optimizer == "prodigy":
            raise PerdureError(f"{name} has no effect with prodigy, which finds its rate itself.")
    if "schedule" in given and (settings.steps is None or settings.optimizer == "schedule-free"):
        why = "steps=auto" if settings.steps is None else "schedule-free"
        raise PerdureError(f"schedule has no effect with {why}, which has its own: leave it out.")
    return settings


def smaller(base: Base, settings: LearnSettings) -> str:
    """What to change where memory ran out, and how much it saves, as computed by `needs`."""
    size = base.fitting(settings.size)
    found = needs(base, size)
    kept = settings.batch_size * found.kept / 1e9
    if settings.batch_size > 1:
        fewer = -(-settings.batch_size // 2)
        saved = kept * (1 - fewer / settings.batch_size)
        return (
            f"--batch-size {fewer} --accumulate {2 * settings.accumulate} learns from as many "
            f"pictures a step and keeps about {saved:.1f} GB less"
        )
    if base.quantize is None and base.device.type != "cpu":
        return (
            f"--quantize bnb-nf4 holds the denoiser's weights in {found.linear * 0.5625 / 1e9:.1f} "
            f"GB instead of {found.linear * base.dtype.itemsize / 1e9:.1f} GB"
        )
    unit = base.family.multiple(base.pipeline)
    width, height = (max(unit, round(0.75 * side / unit) * unit) for side in size)
    less = kept * (1 - width * height / (size[0] * size[1]))
    return f"--size {width}x{height} keeps about {less:.1f} GB less"
