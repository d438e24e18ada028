"""Places: the parameters of a building, and the building on its hill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from perdure.smallworld.pen import Pen, dark, hsv, light, outline, pick, spread
from perdure.smallworld.people import sample_colour
from perdure.smallworld.vocabulary import COLOURS

_WALLS = {
    "white": ((0.1, 0.14), (0.02, 0.08), (0.9, 0.97)),
    "yellow": ((0.12, 0.14), (0.4, 0.6), (0.88, 0.97)),
    "red": ((0.0, 0.03), (0.55, 0.75), (0.55, 0.75)),
    "grey": ((0.55, 0.65), (0.03, 0.12), (0.5, 0.7)),
    "blue": ((0.55, 0.62), (0.3, 0.55), (0.65, 0.85)),
    "pink": ((0.92, 0.98), (0.25, 0.4), (0.88, 0.97)),
    "green": ((0.3, 0.42), (0.25, 0.45), (0.6, 0.78)),
    "brown": ((0.06, 0.09), (0.4, 0.55), (0.45, 0.6)),
}
WALL_WORDS = tuple(_WALLS)
KINDS = ("tower", "castle", "house", "lighthouse", "windmill")


def sample_place(rng: np.random.Generator) -> dict[str, Any]:
    """The parameters of a random building: ARGB colours, pixels at scale 1, names of kinds."""
    wall, roof = str(pick(rng, list(_WALLS))), str(pick(rng, list(COLOURS)))
    return {
        "kind": pick(rng, KINDS),
        "wall_word": wall,
        "wall": sample_colour(rng, _WALLS, wall),
        "roof_word": roof,
        "roof_colour": sample_colour(rng, COLOURS, roof),
        "trim": sample_colour(rng, COLOURS, str(pick(rng, list(COLOURS)))),
        "roof": pick(rng, ("cone", "dome", "onion", "flat", "steps")),
        "roof_height": spread(rng, 7, 14),
        "width": spread(rng, 0, 1),
        "height": spread(rng, 0, 1),
        "floors": int(spread(rng, 2, 4.999)),
        "columns": int(spread(rng, 1, 3.999)),
        "window": pick(rng, ("square", "round", "arch", "tall")),
        "window_colour": pick(rng, (0xFFFFE27A, 0xFF2B3A55, 0xFF8FD0F0)),
        "door": pick(rng, ("arch", "square")),
        "door_colour": sample_colour(rng, COLOURS, str(pick(rng, list(COLOURS)))),
        "pattern": pick(rng, ("plain", "plain", "bands", "spiral", "halves")),
        "wing": pick(rng, (-1.0, 0.0, 1.0)),
        "wing_height": spread(rng, 0.3, 0.65),
        "hill": hsv(spread(rng, 0.1, 0.34), spread(rng, 0.3, 0.6), spread(rng, 0.35, 0.6)),
    }


def describe_place(p: Mapping[str, Any]) -> tuple[str, list[str], list[str]]:
    """Noun, adjectives and features, in coarse words."""
    article = "an" if p["roof_word"] == "orange" else "a"
    return p["kind"], [p["wall_word"]], [f"{article} {p['roof_word']} roof"]


def _roof(pen: Pen, kind: str, x: float, y: float, half: float, tall: float, colour: int) -> None:
    """A roof on a wall whose top is at ``y``."""
    o = half + 2
    if kind == "cone":
        pen.ramp(
            outline((x - o, y), (x, y - tall * 1.35), (x + o, y)),
            (x - o, y),
            (x + o, y),
            light(colour, 0.12),
            dark(colour, 0.25),
        )
    elif kind == "dome":
        pen.ramp(
            outline((x - o, y), (x - o, y - tall * 1.3, x + o, y - tall * 1.3, x + o, y)),
            (x - o, y),
            (x + o, y),
            light(colour, 0.12),
            dark(colour, 0.25),
        )
    elif kind == "onion":
        path = outline(
            (x - o * 0.75, y),
            (x - o * 1.7, y - tall * 0.75, x - 1, y - tall * 0.8, x, y - tall * 1.5),
            (x + 1, y - tall * 0.8, x + o * 1.7, y - tall * 0.75, x + o * 0.75, y),
        )
        pen.ramp(path, (x - o, y), (x + o, y), light(colour, 0.12), dark(colour, 0.25))
    elif kind == "flat":
        pen.rect(x - o, y - 4, 2 * o, 4.5, colour)
        for i in range(3):
            pen.rect(x - o + i * (2 * o - 3) / 2, y - 7.5, 3, 4, colour)
    else:
        for i in range(3):
            pen.rect(
                x - o + i * o * 0.3,
                y - (i + 1) * tall * 0.33,
                2 * (o - i * o * 0.3),
                tall * 0.36,
                light(colour, 0.12 * i),
            )


def _window(pen: Pen, kind: str, x: float, y: float, r: float, glass: int, frame: int) -> None:
    if kind == "round":
        pen.oval(x, y, r + 0.9, r + 0.9, frame)
        pen.oval(x, y, r, r, glass)
        return
    tall = r * 1.6 if kind == "tall" else r
    half = r * 0.7 if kind == "tall" else r
    pen.rect(
        x - half - 0.9,
        y - tall - 0.9,
        2 * half + 1.8,
        2 * tall + 1.8,
        frame,
        1.6 if kind == "arch" else 0,
    )
    pen.rect(x - half, y - tall, 2 * half, 2 * tall, glass, 1.4 if kind == "arch" else 0)


def _block(
    pen: Pen, p: Mapping[str, Any], x: float, low: float, top: float, floors: int, columns: int
) -> None:
    """A wall from the ground to ``-top``, ``low`` wide at its foot and a little less above."""
    wall, high = p["wall"], low * (0.72 if p["kind"] in ("lighthouse", "windmill") else 0.95)
    body = outline((x - low, 0), (x - high, -top), (x + high, -top), (x + low, 0))
    pen.ramp(body, (x - low, 0), (x + low, 0), light(wall, 0.12), dark(wall, 0.25))
    with pen.inside(body):
        if p["pattern"] == "bands":
            for i in range(3):
                pen.rect(x - low, -top + top * (0.1 + 0.34 * i), 2 * low, top * 0.15, p["trim"])
        elif p["pattern"] == "spiral":
            for i in range(4):
                y = -top + top * 0.34 * i
                pen.poly(
                    [(x - low, y), (x + low, y - 5), (x + low, y - 0.5), (x - low, y + 4.5)],
                    p["trim"],
                )
        elif p["pattern"] == "halves":
            pen.rect(x - low, -top * 0.4, 2 * low, top, p["trim"])
    frame = light(wall, 0.5) if p["window_colour"] == 0xFF2B3A55 else dark(wall, 0.45)
    r = min(2.5, (high * 2 - 2) / (columns * 3.2))
    for row in range(floors):
        y = -top + top * (row + 0.55) / (floors + 0.9)
        for column in range(columns):
            offset = (column - (columns - 1) / 2) * 2 * high / (columns + 0.15)
            _window(
                pen,
                p["window"],
                x + offset,
                y,
                min(r, top / (floors + 1) * 0.34),
                p["window_colour"],
                frame,
            )


def _flag(pen: Pen, x: float, y: float, wave: float, colour: int) -> None:
    pen.line(x, y, x, y - 10, 0xFF4A4038, 1.3)
    pen.path(
        outline(
            (x, y - 10),
            (x + 4, y - 12 - wave, x + 8, y - 9),
            (x + 8, y - 4),
            (x + 4, y - 7 - wave, x, y - 5),
        ),
        colour,
    )


def draw_place(
    pen: Pen, p: Mapping[str, Any], accessory: str, expression: str, rng: np.random.Generator
) -> None:
    """Draw a building that stands at (0, 0) and is up to 48 px high; it has no expression."""
    u = rng.random(12)
    if accessory == "fireworks":
        for i, x in enumerate((-22.0, 22.0, -15.0 + 30 * (u[0] > 0.5))):
            colour = hsv(u[1 + i], 0.65, 1.0)
            y, r = -40 - 6 * u[4 + i] + (18 if i == 2 else 0), 6.5 + 2 * u[7 + i]
            for k in range(8):
                angle = 0.785 * k + u[10]
                dx, dy = np.cos(angle), np.sin(angle)
                pen.line(x + dx * r * 0.35, y + dy * r * 0.35, x + dx * r, y + dy * r, colour, 1.5)
            pen.oval(x, y, 1.4, 1.4, 0xFFFFFFFF)
    elif accessory == "balloons":
        for i, x in enumerate((-25.0, 25.0, -19.0, 20.0)):
            y = -44 + 16 * u[i] + 9 * (i > 1)
            pen.line(x, y + 5, x + 1, y + 15, 0xFF5A5A66, 1.0)
            pen.oval(x, y, 4.2, 5.2, hsv(0.25 * i + 0.2 * u[4], 0.75, 0.95))
            pen.oval(x - 1.4, y - 1.8, 1.1, 1.4, 0xB0FFFFFF)
    pen.oval(0, 5, 36, 8, p["hill"])
    kind, roof, roof_colour, tall = p["kind"], p["roof"], p["roof_colour"], p["roof_height"]
    trim = p["trim"]
    door, door_x, ends = 3.0, 0.0, [(0.0, 0.0)]
    if kind == "castle":
        half, top = 10 + 4 * p["width"], 17 + 6 * p["height"]
        side_half, side_top = 4.2 + 1.6 * p["width"], top + 7 + 5 * p["wing_height"]
        for s in (-1, 1):
            rise = side_top + (6 if s == p["wing"] else 0)
            _block(pen, p, s * (half + 2), side_half, rise, p["floors"], 1)
            _roof(pen, roof, s * (half + 2), -rise, side_half, tall * 0.85, roof_colour)
            ends.append((s * (half + 2), -rise - tall * 0.9))
        _block(pen, p, 0, half, top, 1, p["columns"])
        _roof(pen, "flat", 0, -top, half - 2, 4, dark(p["wall"], 0.18))
        door = 4.2
    elif kind == "house":
        half, top = 12 + 6 * p["width"], 17 + 8 * p["height"]
        if p["wing"]:
            pen.rect(p["wing"] * half * 0.55 - 2.5, -top - tall - 3, 5, tall + 4, dark(trim, 0.15))
        _block(pen, p, 0, half, top, min(p["floors"], 2), p["columns"] + 1)
        shape = "gable" if roof in ("flat", "steps") else roof
        if shape == "gable":
            pen.ramp(
                outline(
                    (-half - 3, -top),
                    (-half * 0.6, -top - tall),
                    (half * 0.6, -top - tall),
                    (half + 3, -top),
                ),
                (0, -top - tall),
                (0, -top),
                light(roof_colour, 0.12),
                dark(roof_colour, 0.2),
            )
        else:
            _roof(pen, shape, 0, -top, half, tall, roof_colour)
        ends = [(0.0, -top - tall * (1.2 if shape != "gable" else 0.95))]
        door_x = half * 0.35 * p["wing"]
    else:
        slim = kind != "tower"
        half = (6 if slim else 7) + (2.5 if slim else 5) * p["width"]
        top = (26 if kind == "windmill" else 28) + (5 if slim else 7) * p["height"]
        if p["wing"] and kind != "windmill":
            x = p["wing"] * (half + 6)
            rise = top * p["wing_height"]
            _block(pen, p, x, 7, rise, 1, 2)
            pen.poly([(x - 9, -rise), (x, -rise - tall * 0.7), (x + 9, -rise)], roof_colour)
        _block(pen, p, 0, half, top, p["floors"], 1 if slim else p["columns"])
        head = half * 0.72 if slim else half * 0.95
        if kind == "lighthouse":
            pen.rect(-head - 2, -top - 1.5, 2 * head + 4, 2.8, dark(trim, 0.3))
            pen.rect(-head * 0.7, -top - 7.5, head * 1.4, 6.5, 0xFFFFF3A0)
            pen.rect(-0.7, -top - 7.5, 1.4, 6.5, dark(trim, 0.3))
            top += 7
            pen.poly([(0, -top + 3), (-26, -top - 3), (-26, -top + 8)], 0x60FFF6B0)
            head *= 0.7
        _roof(
            pen,
            "cone" if kind == "windmill" and roof in ("flat", "steps") else roof,
            0,
            -top,
            head,
            tall * (0.7 if slim else 1),
            roof_colour,
        )
        ends = [(0.0, -top - tall * (0.6 if slim else 0.95))]
        if kind == "windmill":
            turn = float(u[11]) * 1.5
            for k in range(4):
                angle = turn + k * np.pi / 2
                dx, dy = float(np.cos(angle)), float(np.sin(angle))
                hub, tip = -top + 1, 17.0
                sail = [
                    (dx * 4 - dy * 0.6, hub + dy * 4 + dx * 0.6),
                    (dx * tip - dy * 0.6, hub + dy * tip + dx * 0.6),
                    (dx * tip - dy * 5, hub + dy * tip + dx * 5),
                    (dx * 4 - dy * 5, hub + dy * 4 + dx * 5),
                ]
                pen.poly(sail, light(trim, 0.45))
                pen.line(0, hub, dx * tip, hub + dy * tip, 0xFF4A3626, 1.6)
            pen.oval(0, -top + 1, 2, 2, 0xFF4A3626)
    tall_door = 7.0
    pen.rect(
        door_x - door,
        -tall_door,
        2 * door,
        tall_door + 1,
        p["door_colour"],
        door if p["door"] == "arch" else 0,
    )
    pen.rect(door_x - door, -tall_door / 2, 2 * door, tall_door / 2 + 1, p["door_colour"])
    if accessory == "flags":
        colour = hsv(u[0], 0.8, 0.9)
        for x, y in ends if len(ends) == 1 else ends[1:]:
            _flag(pen, x, y + 1, 2 * u[1] - 1, colour)
        for s in (-1, 1):
            _flag(pen, s * 22, 4, 2 * u[2] - 1, colour)
            pen.line(s * 22, 4, s * 22, -6, 0xFF4A4038, 1.3)
