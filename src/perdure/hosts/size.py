"""Sizes of pictures: width and height in pixels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from perdure.settings import Form

__all__ = ["AnySize", "Size", "buckets", "read_size"]

Size = tuple[int, int]
"""Width and height of a picture in pixels."""

_TEXT = re.compile(r"(\d{1,5})[xX\u00d7](\d{1,5})|(\d{1,5})")
MOST = 8192


def read_size(given: str | Sequence[int]) -> Size:
    """The size that `768x512`, `512` (a square) or (768, 512) says; ValueError where it is none.

    >>> read_size("768x512"), read_size("512")
    ((768, 512), (512, 512))
    """
    sides: Sequence[object] = ()
    if isinstance(given, str):
        found = _TEXT.fullmatch(given.strip())
        if found:
            sides = (int(found[1] or found[3]), int(found[2] or found[3]))
    else:
        sides = given
    match sides:
        case (int() as width, int() as height) if 1 <= width <= MOST and 1 <= height <= MOST:
            return width, height
    raise ValueError(
        f"size is {given!r}, but must be width and height in pixels, at most {MOST} each, such as "
        "768x512"
    )


def buckets(size: Size, unit: int) -> tuple[Size, ...]:
    """Sizes of at most the area of ``size``, from twice as wide as high to twice as high as wide.

    Sides are multiples of ``unit``; for every width the largest height that fits.

    >>> buckets((512, 512), 64)[:3]
    ((384, 640), (448, 576), (512, 512))
    """
    area = size[0] * size[1]
    found = [(width, area // width // unit * unit) for width in range(unit, area // unit + 1, unit)]
    return tuple(
        (width, height) for width, height in found if height and 0.5 <= width / height <= 2
    )


AnySize = Annotated[Size, Form(read_size, example="768x512")]
"""A size among options, in any of these spellings."""
