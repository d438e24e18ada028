"""Region control: inside a box the picture attends to the box's own phrase."""

from __future__ import annotations

from dataclasses import dataclass

from perdure.errors import PerdureError

__all__ = ["Region", "read_region"]


@dataclass(frozen=True, kw_only=True)
class Region:
    """A box and what to draw in it.

    Raises PerdureError for a box that is empty or reaches outside the picture.
    """

    phrase: str
    """A prompt of its own, such as `a photo of <rex>`."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom, as shares of the picture's sides in [0, 1]."""
    depth: int = 0
    """Where boxes overlap, the one in front, of the least depth, hides those behind it."""
    since: float = 0.0
    """The share of the noise that is gone when its phrase begins to be read."""

    def __post_init__(self) -> None:
        left, top, right, bottom = self.box
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise PerdureError(
                f"The box {self.box} of {self.phrase!r} is no box: give left, top, right, bottom "
                "between 0 and 1, left below right and top below bottom."
            )

    def __str__(self) -> str:
        """As `read_region` reads it."""
        return f"{self.phrase}@{','.join(map(str, self.box))}"


def read_region(text: str) -> Region:
    """The region of `PHRASE@LEFT,TOP,RIGHT,BOTTOM`; PerdureError where it is none.

    >>> read_region("a photo of <rex>@0,0,0.5,1").box
    (0.0, 0.0, 0.5, 1.0)
    """
    phrase, _, edges = text.rpartition("@")
    try:
        left, top, right, bottom = (float(edge) for edge in edges.split(","))
    except ValueError as error:
        raise PerdureError(
            f"The box {text!r} cannot be read: write it as PHRASE@LEFT,TOP,RIGHT,BOTTOM, such as "
            "'a photo of <rex>@0,0,0.5,1'."
        ) from error
    if not phrase.strip():
        raise PerdureError(f"The box {text!r} has no phrase: write what to draw before the @.")
    return Region(phrase=phrase.strip(), box=(left, top, right, bottom))
