"""Where a concept's pictures come from, and how much each source counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perdure.errors import PerdureError

__all__ = ["Given", "Source"]


@dataclass(frozen=True)
class Source:
    """A folder of one concept's pictures, or one picture, and how much it counts.

    A picture of weight 2 is learned twice as often as one of weight 1: what other trainers call
    repeats. As a text it is `photos/rex=2`.
    """

    pictures: Path
    weight: float = 1.0

    def __post_init__(self) -> None:
        weight = self.weight
        if not isinstance(weight, int | float) or not (0 < weight < math.inf):
            raise PerdureError(
                f"The weight of {self.pictures} is {weight!r}, but must be a number above 0: leave "
                "out what is not to be learned from."
            )

    @classmethod
    def of(cls, given: Path | str | Source) -> Source:
        """A path, or a text that may end in a weight; PerdureError where that is no number."""
        if isinstance(given, Source):
            return given
        path, equals, weight = str(given).rpartition("=")
        if not equals or Path(given).expanduser().exists():
            return cls(Path(given).expanduser())
        try:
            return cls(Path(path).expanduser(), float(weight))
        except ValueError as error:
            raise PerdureError(
                f"{given!r} has no number behind the last '=': write photos/rex=2."
            ) from error

    def __str__(self) -> str:
        return f"{self.pictures}" if self.weight == 1 else f"{self.pictures}={self.weight!r}"


Given = Path | str | Sequence[Path | str | Source]
"""A folder of pictures; or several of those, picture files and `Source`s."""
