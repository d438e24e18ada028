"""Hair: its colours, its styles, and what lies behind and before a face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from perdure.smallworld.pen import Pen, dark, light, outline, veil

HAIR_COLOURS = {
    "black": ((0.6, 0.75), (0.1, 0.3), (0.08, 0.16)),
    "brown": ((0.05, 0.08), (0.55, 0.8), (0.25, 0.45)),
    "blond": ((0.11, 0.14), (0.45, 0.7), (0.82, 0.97)),
    "red": ((0.02, 0.05), (0.75, 0.95), (0.6, 0.85)),
    "white": ((0.1, 0.6), (0.0, 0.06), (0.85, 0.97)),
    "pink": ((0.89, 0.94), (0.45, 0.65), (0.88, 1.0)),
    "blue": ((0.56, 0.63), (0.65, 0.9), (0.55, 0.9)),
    "green": ((0.33, 0.42), (0.6, 0.85), (0.45, 0.7)),
    "purple": ((0.74, 0.79), (0.5, 0.8), (0.45, 0.7)),
}
"""Word -> ranges of hue, saturation and value."""
HAIR_WEIGHTS = (0.17, 0.19, 0.17, 0.15, 0.1, 0.06, 0.06, 0.05, 0.05)
"""How frequent each of these words is."""
HAIR_STYLES = {
    "bald": "a bald head",
    "short": "short {} hair",
    "long": "long {} hair",
    "bob": "a {} bob",
    "curly": "curly {} hair",
    "bun": "{} hair in a bun",
    "spiky": "spiky {} hair",
    "mohawk": "a {} mohawk",
    "pigtails": "{} pigtails",
    "swept": "swept {} hair",
}


def hair_behind(pen: Pen, p: Mapping[str, Any], w: float, h: float) -> None:
    """Draw what the head hides, for a person's parameters and half of the face's width, height."""
    hair, v, style = dark(p["hair"], 0.12), p["hair_volume"], p["hair_style"]
    wide = w + 2.5 + 3 * v
    if style == "long":
        low = h + 8 + 8 * v
        pen.path(
            outline(
                (-wide, 0),
                (-wide, -h * 1.7, wide, -h * 1.7, wide, 0),
                (wide + 2, low),
                (-wide - 2, low),
            ),
            hair,
        )
    elif style == "bob":
        low = h * (0.55 + 0.4 * v)
        pen.path(
            outline(
                (-wide - 1, -1),
                (-wide, -h * 1.75, wide, -h * 1.75, wide + 1, -1),
                (wide + 2, low, wide - 4, low),
                (-wide + 4, low),
                (-wide - 2, low, -wide - 1, -1),
            ),
            hair,
        )
    elif style == "curly":
        r = 4.6 + 1.4 * v
        for i in range(11):
            angle = np.pi * (0.88 + 1.24 * i / 10)
            pen.oval((w + 1.5) * np.cos(angle), -2 + (h + 1) * np.sin(angle), r, r, hair)
    elif style == "bun":
        pen.oval(0, -h - 4.5 - v, 5 + 2 * v, 4.6 + 1.4 * v, hair)
    elif style == "pigtails":
        for s in (-1, 1):
            x = s * (w + 4)
            pen.path(
                outline(
                    (s * w * 0.8, -5),
                    (x + s * 7, -9, x + s * 5, 8 + 7 * v),
                    (x - s * 1, 12 + 7 * v, s * w * 0.8, 2),
                ),
                hair,
            )
            pen.oval(s * (w + 0.5), -3, 1.8, 2.4, p["second"])


def hair_before(pen: Pen, p: Mapping[str, Any], w: float, h: float) -> None:
    """Draw what lies over the face."""
    hair, v, style, side = p["hair"], p["hair_volume"], p["hair_style"], p["hair_side"]
    if style == "bald":
        pen.oval(side * w * 0.35, -h * 0.68, 3.4, 1.8, veil(0xFFFFFFFF, 0.3))
        return
    line, over = -h * (0.52 + 0.2 * p["hairline"]), w + 1.1
    if style == "mohawk":
        n = 3.2 + 1.6 * v
        pen.path(
            outline(
                (-n, -h * 0.6),
                (-n - 2, -h - 8 - 2 * v),
                (0, -h - 12 - 2 * v, n + 2, -h - 8 - 2 * v),
                (n, -h * 0.6),
                (0, -h * 0.45, -n, -h * 0.6),
            ),
            hair,
        )
        return
    lift = h * 1.3 + 1.5 + 2.5 * v
    low = {"short": -1.0, "spiky": -2.5, "swept": -1.5}.get(style, 0.5)
    start, over_top = (-over, low), (-over - 0.5, -lift, over + 0.5, -lift, over, low)
    if style == "bob":  # a straight fringe
        cap = outline(start, over_top, (w * 0.86, line + 3), (-w * 0.86, line + 3))
    elif style == "swept":  # one big wave to a side
        cap = outline(
            start,
            (-over, -lift - 4, over, -lift - 4, over, low),
            (w * 0.8, line),
            (side * w * 0.9, line + 1, -side * w * 0.2, line - 2, -w * 0.8, line + 1),
        )
        pen.oval(side * w * 0.45, -h - 0.5 - v, w * 0.62, 4 + 1.5 * v, hair)
    elif style == "long":  # a parting
        x = side * w * 0.25
        cap = outline(
            start, over_top, (w * 0.95, line + 2, x, line - 3.5), (-w * 0.95, line + 2, -over, low)
        )
        for s in (-1, 1):
            pen.path(
                outline(
                    (s * over, -4),
                    (s * (w - 2.4), 2, s * w * 0.97, h * 0.9),
                    (s * (w + 3), h * 0.9),
                ),
                hair,
            )
    else:
        cap = outline(
            start, over_top, (w * 0.84, line), (side * w * 0.3, line - 4, -w * 0.84, line)
        )
    pen.path(cap, hair)
    if style == "spiky":
        points = [(-over, -h * 0.45)]
        for i in range(5):
            x = -over + (2 * over) * (i + 0.5) / 5
            points += [
                (x * 1.28, -h - 4.5 - 3 * v + abs(x) * 0.42),
                (x + over / 5, -h * 0.92 + abs(x + over / 5) * 0.4),
            ]
        pen.poly([*points, (over, -h * 0.45)], hair)
    elif style == "curly":
        for i in range(5):
            x = (i - 2) * w * 0.38
            pen.oval(x, line - 2.2 + abs(x) * 0.12, 3.4, 3.0, hair)
    pen.bow(
        (-w * 0.5, -h * 0.98),
        (0, -h * 1.13 - v),
        (w * 0.3, -h * 1.03),
        veil(light(hair, 0.5), 0.5),
        1.6,
    )
