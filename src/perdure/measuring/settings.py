"""How to measure a bank: the typed options of `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from perdure.settings import Limits, Seed, Settings

__all__ = ["AT_ONCE", "EvaluateSettings"]

AT_ONCE = 16
"""Pictures in one pass of what is drawn to be measured."""


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(Settings):
    """Options of measuring what a bank remembers."""

    called: ClassVar[str] = "measuring"

    pictures: Annotated[int, Limits(least=2, most=10_000)] = 16
    """Drawn of each concept at each moment."""
    seed: Seed = 1000
    """Seed of the first picture; the next one's is one more, and so on."""
    moments: Literal["all", "milestones"] = "all"
    """Score every concept after every task, or, which a long stream can afford, right after its own
    and after 1, 2, 5, 10, 20, 50, ... tasks and the last."""
    held_out: bool = True
    """Draw each concept in two dozen prompts that no method learns from as well, right after its
    own task and at the end."""
