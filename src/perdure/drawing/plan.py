"""A layout as a picture: who is to stand where."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from perdure.drawing.layout import Layout
from perdure.hosts.size import Size

__all__ = ["plan"]

_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")
"""Tol's bright scheme, which colour-blind readers can tell apart."""
_LEAST = 256
"""Pixels of the shorter side, so that names can be read."""


def plan(layout: Layout, size: Size) -> Image.Image:
    """The regions of a picture of this shape, the nearer ones over the others, with names."""
    scale = max(1.0, _LEAST / min(size))
    width, height = (round(side * scale) for side in size)
    sheet = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    order = sorted(range(len(layout.regions)), key=lambda k: -layout.regions[k].depth)
    for k in order:
        left, top, right, bottom = layout.regions[k].box
        box = (left * width, top * height, right * width - 1, bottom * height - 1)
        pen.rectangle(box, _COLOURS[k % len(_COLOURS)], "white", 2)
        names = "\n".join(f"<{name}>" for name in layout.subjects[k])
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        pen.multiline_text(middle, names, "white", font, anchor="mm", align="center")
    return sheet
