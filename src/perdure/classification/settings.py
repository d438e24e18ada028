"""How to fit one task: the typed options that every classification method shares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from perdure.settings import Count, Positive, Seed, Settings, Share

__all__ = ["FitSettings"]


@dataclass(frozen=True, kw_only=True)
class FitSettings(Settings):
    """Options of `fit_task`. The published setting is `crop=0.08` and otherwise the defaults."""

    called: ClassVar[str] = "fit"

    epochs: Count = 20
    """Passes over the task's pictures."""
    batch_size: Count = 128
    """Pictures in one optimiser step (Adam)."""
    lr: Positive | None = None
    """Learning rate of what the method trains; where not given, the method's own: 5e-4 for low-rank
    deltas [paper], 5e-5 for whole matrices [ours], 1e-3 for prompts [code]."""
    head_lr: Positive | None = None
    """Learning rate of the head; where not given, 5e-4, or 1e-3 with prompts: for hundreds of steps
    a task. With few, raise it first."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """How both rates go from epoch to epoch: as given, or CODA-Prompt's quarter of a cosine."""
    crop: Share = 0.25
    """Smallest share of a picture's area that a training crop may have; 1 is the whole picture.
    0.08 is the published one; it loses small subjects in small pictures."""
    flip: bool = True
    """Also learn from mirrored pictures."""
    seed: Seed = 0
    """Everything random follows from this, the task's number and the step's number."""
    checkpoint_every: Count = 50
    """Steps between two checkpoints, where there is a folder for them."""

    def share_of_rate(self, epoch: int) -> float:
        """What the rates are multiplied by in an epoch, counted from 0.

        `cos(99 pi e / (200 (E - 1)))`, as `utils/schedulers.py` of CODA-Prompt's public code.
        """
        if self.schedule == "constant" or self.epochs == 1:
            return 1.0
        return math.cos(99 * math.pi * epoch / (200 * (self.epochs - 1)))
