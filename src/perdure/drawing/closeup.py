"""A subject among several, drawn over by itself at full scale, and put back into its place.

A base draws a subject best at the size at which it was taught: the smaller it stands in a picture,
the less of its face there is. So what stands in a region is cut out, enlarged to the base's own
size, drawn over from part of the noise with the region's phrase alone, made small again and put
back, fading at the region's edges. Known from tools as a detailer, or as painting over at full
resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from math import sqrt

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from perdure.drawing.regions import Region
from perdure.hosts.diffusion.regional import Place, masks
from perdure.hosts.size import Size

__all__ = ["CLOSEUP", "Window", "put_back", "schedule", "shared_out", "windows"]

CLOSEUP = 0.6
"""How much of each subject is drawn over, where it is not said."""
_WIDER = 1.1
"""A window's side against that of as large an area as its region's."""
_WHOLE, _EACH, _LEAST = 2 / 3, 1 / 4, 8
"""Of a picture's steps, the share of the picture as a whole and that of each close-up; the whole is
not shortened below so many."""
_FADE = 12
"""The edges fade over this part of a window's side."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """Where in a picture a subject is looked at: pixels, which may reach outside."""

    left: int
    top: int
    width: int
    height: int

    def cut(self, picture: Image.Image, size: Size) -> Image.Image:
        """What it shows, enlarged to ``size``; outside the picture its edges go on."""
        array = np.asarray(picture.convert("RGB"))
        rows = np.clip(np.arange(self.top, self.top + self.height), 0, len(array) - 1)
        columns = np.clip(np.arange(self.left, self.left + self.width), 0, array.shape[1] - 1)
        part = Image.fromarray(array[rows[:, None], columns])
        return part.resize(size, Image.Resampling.LANCZOS)


def windows(regions: Sequence[Region], picture: Size, own: Size) -> dict[int, Window]:
    """The regions' windows in a picture, the farthest first, of the shape of ``own``, the size at
    which the base draws one subject; none of a region whose subject stands as large already."""
    found: dict[int, Window] = {}
    for k in sorted(range(len(regions)), key=lambda k: -regions[k].depth):
        left, top, right, bottom = regions[k].box
        area = (right - left) * picture[0] * (bottom - top) * picture[1]
        scale = _WIDER * sqrt(area / (own[0] * own[1]))
        if scale < 1:
            width, height = (max(1, round(scale * side)) for side in own)
            found[k] = Window(
                left=round((left + right) / 2 * picture[0] - width / 2),
                top=round((top + bottom) / 2 * picture[1] - height / 2),
                width=width,
                height=height,
            )
    return found


def put_back(
    picture: Image.Image, part: Image.Image, window: Window, regions: Sequence[Region], k: int
) -> Image.Image:
    """The picture with ``part`` in its window, as far as region ``k`` is seen."""
    places = [Place(box=region.box, depth=region.depth) for region in regions]
    width, height = picture.size
    seen = masks(places, width, height)[k].view(height, width).numpy()
    inside = Image.new("L", picture.size)
    edges = (window.left + window.width - 1, window.top + window.height - 1)
    ImageDraw.Draw(inside).rectangle((window.left, window.top, *edges), fill=255)
    own = Image.fromarray((np.asarray(inside) * seen).astype(np.uint8))
    own = own.filter(ImageFilter.GaussianBlur(window.width / _FADE))
    over = picture.convert("RGB")
    small = part.convert("RGB").resize((window.width, window.height), Image.Resampling.LANCZOS)
    over.paste(small, (window.left, window.top))
    return Image.composite(over, picture.convert("RGB"), own)


def shared_out(steps: int) -> tuple[int, int]:
    """Of a picture's steps those of the whole and of each close-up: with two of these they cost
    little more than the same steps of one subject."""
    return max(min(steps, _LEAST), round(_WHOLE * steps)), max(2, round(_EACH * steps))


def schedule(steps: int, strength: float, most: int) -> int:
    """The length of the shortest schedule of which ``strength`` leaves so many steps, at most
    ``most``."""
    return min(most, next(k for k in count(steps) if int(k * strength) >= steps))
