"""How to learn: the typed options that every method shares."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from perdure.bank import TaskRecord
from perdure.errors import PerdureError
from perdure.randomness import seed_of

__all__ = ["LearnSettings", "advised", "make_settings", "seed_for_concepts", "templates_of"]


@dataclass(frozen=True, kw_only=True)
class LearnSettings:
    """Options of one learning step. A base may advise its own values in `perdure.json`."""

    steps: int = 800
    """Optimiser steps."""
    batch_size: int = 4
    """Pictures in one forward pass."""
    accumulate: int = 1
    """Forward passes in one optimiser step."""
    lr: float = 5e-4
    """Learning rate of the deltas (AdamW)."""
    token_lr: float = 5e-3
    """Learning rate of the new tokens' rows."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay, on the deltas only."""
    schedule: Literal["constant", "cosine"] = "constant"
    """How both rates go: as given to the end, or down to zero along half a cosine."""
    seed: int = 0
    """Everything random follows from this and the step's number."""
    templates: tuple[str, ...] = ("a photo of {}",)
    """Training prompts; `{}` stands for the concept token."""
    fit: Literal["crop", "letterbox"] = "crop"
    """Square crop about the centre, or the whole picture with a border."""
    flip: bool = False
    """Also learn from mirrored pictures; leave it off for faces and lettering."""
    prior: str = ""
    """Prior preservation: a prompt such as `a photo of a person`, drawn by the untouched base."""
    prior_pictures: int = 200
    """Pictures of the prior prompt."""
    prior_weight: float = 1.0
    """Weight of the prior's loss beside the pictures'."""
    checkpoint_every: int = 50
    """Steps between two checkpoints."""

    def __post_init__(self) -> None:
        whole = ("steps", "batch_size", "accumulate", "prior_pictures", "checkpoint_every")
        for name in whole:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} is {value!r}, but must be a whole number of at least 1")
        for name in ("lr", "token_lr", "weight_decay", "prior_weight"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name} is {value!r}, but must be a number")
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} is {value!r}, but must be a finite number of at least 0")
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**31:
            raise ValueError(
                f"seed is {self.seed!r}, but must be a whole number from 0 to 2^31 - 1"
            )
        if not self.templates or any(text.count("{}") != 1 for text in self.templates):
            raise ValueError(
                f"templates are {self.templates!r}, but each must hold {{}} once, for the token"
            )
        if self.fit not in ("crop", "letterbox"):
            raise ValueError(f"fit is {self.fit!r}, but must be 'crop' or 'letterbox'")
        if self.schedule not in ("constant", "cosine"):
            raise ValueError(f"schedule is {self.schedule!r}, but must be 'constant' or 'cosine'")

    def share_of_rate(self, step: int) -> float:
        """What the rates are multiplied by at a step, counted from 0; in (0, 1]."""
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def to_json(self) -> dict[str, Any]:
        """Field name -> JSON value; `make_settings(values, {})` makes it again."""
        return asdict(self)


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
    """What a base's `perdure.json` advises for a method: `learning`, and over it `learning_of`."""
    return {**hints.get("learning", {}), **hints.get("learning_of", {}).get(method, {})}


def make_settings(advice: Mapping[str, Any], given: Mapping[str, Any]) -> LearnSettings:
    """Settings from a base's advice, overruled by what the user gave.

    Raises PerdureError for an option that does not exist or a value that does not fit.
    """
    values = {**advice, **given}
    known = [field.name for field in fields(LearnSettings)]
    for name in values:
        if name not in known:
            raise PerdureError(
                f"There is no learning option {name!r}: choose from {', '.join(known)}."
            )
    for name in ("prior_pictures", "prior_weight"):
        if name in given and not values.get("prior"):
            raise PerdureError(
                f"{name} has no effect without prior: give the prior prompt as well."
            )
    if "templates" in values:
        given_as = values["templates"]
        values["templates"] = (given_as,) if isinstance(given_as, str) else tuple(given_as)
    try:
        return LearnSettings(**values)
    except ValueError as error:
        raise PerdureError(f"Learning option {error}.") from error
