"""Which settings a task learns with: the method's, the base's advice, what the user gave."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perdure.bank import TaskRecord
from perdure.errors import PerdureError
from perdure.learning.settings import LearnSettings
from perdure.methods import METHODS
from perdure.randomness import seed_of

__all__ = ["advised", "make_settings", "seed_for_concepts", "templates_of"]


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
