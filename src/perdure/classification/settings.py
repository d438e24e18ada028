"""How to fit one task: the typed options that every classification method shares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

__all__ = ["FitSettings", "settings_from"]


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Options of `fit_task`. The published setting is `crop=0.08` and otherwise the defaults."""

    epochs: int = 20
    """Passes over the task's pictures."""
    batch_size: int = 128
    """Pictures in one optimiser step (Adam)."""
    lr: float | None = None
    """Learning rate of what the method trains; None is the method's own: 5e-4 for low-rank deltas
    [paper], 5e-5 for whole matrices [ours], 1e-3 for prompts [code]."""
    head_lr: float | None = None
    """Learning rate of the head; None is 5e-4, or 1e-3 with prompts: for hundreds of steps a task.
    With few, raise it first."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """How both rates go from epoch to epoch: as given, or CODA-Prompt's quarter of a cosine."""
    crop: float = 0.25
    """Smallest share of a picture's area that a training crop may have; 1 is the whole picture.
    0.08 is the published one; it loses small subjects in small pictures."""
    flip: bool = True
    """Also learn from mirrored pictures."""
    seed: int = 0
    """Everything random follows from this, the task's number and the step's number."""
    checkpoint_every: int = 50
    """Steps between two checkpoints, where there is a folder for them."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "checkpoint_every"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} is {value!r}, but must be a whole number of at least 1")
        for name in ("lr", "head_lr"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and value > 0):
                raise ValueError(f"{name} is {value!r}, but must be a number above 0, or None")
        if not _is_number(self.crop) or not 0 < self.crop <= 1:
            raise ValueError(f"crop is {self.crop!r}, but must be a share above 0 and up to 1")
        if self.schedule not in ("constant", "cosine"):
            raise ValueError(f"schedule is {self.schedule!r}, but must be 'constant' or 'cosine'")
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**31:
            raise ValueError(
                f"seed is {self.seed!r}, but must be a whole number from 0 to 2^31 - 1"
            )

    def share_of_rate(self, epoch: int) -> float:
        """What the rates are multiplied by in an epoch, counted from 0.

        `cos(99 pi e / (200 (E - 1)))`, as `utils/schedulers.py` of CODA-Prompt's public code.
        """
        if self.schedule == "constant" or self.epochs == 1:
            return 1.0
        return math.cos(99 * math.pi * epoch / (200 * (self.epochs - 1)))

    def to_json(self) -> dict[str, Any]:
        """Field name -> JSON value; `settings_from` makes it again."""
        return asdict(self)


def settings_from(values: Mapping[str, Any]) -> FitSettings:
    """Settings by name; ValueError for an option that does not exist or does not fit."""
    known = [field.name for field in fields(FitSettings)]
    for name in values:
        if name not in known:
            raise ValueError(f"there is no fit option {name!r}: choose from {', '.join(known)}")
    return FitSettings(**values)


def _is_number(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)  # type: ignore[arg-type]
