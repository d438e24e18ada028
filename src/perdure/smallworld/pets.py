"""Pets: the parameters of a cat or a dog, and a sitting portrait of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from perdure.smallworld.pen import Pen, dark, light, mix, outline, oval_path, pick, spread
from perdure.smallworld.people import sample_colour
from perdure.smallworld.worn import Head, draw_worn

_FUR = {
    "black": ((0.6, 0.7), (0.05, 0.2), (0.13, 0.22)),
    "grey": ((0.55, 0.65), (0.04, 0.16), (0.45, 0.65)),
    "white": ((0.08, 0.14), (0.0, 0.08), (0.9, 0.97)),
    "brown": ((0.05, 0.075), (0.55, 0.75), (0.32, 0.5)),
    "orange": ((0.06, 0.085), (0.7, 0.9), (0.85, 0.98)),
    "golden": ((0.1, 0.12), (0.45, 0.65), (0.82, 0.94)),
}
FUR_WORDS = tuple(_FUR)
_EYES = (0xFFE0B020, 0xFF59B24A, 0xFF3C8FD9, 0xFF6E3F1A, 0xFFC8D93C)
_PATTERNS = {
    "plain": "",
    "tabby": "striped",
    "spots": "spotted",
    "patch": "",
    "half": "",
    "mask": "",
    "blaze": "",
}


def sample_pet(rng: np.random.Generator) -> dict[str, Any]:
    """The parameters of a random cat or dog: ARGB colours, pixels at scale 1, names of kinds."""
    species = str(pick(rng, ("cat", "dog")))
    fur_word = str(pick(rng, list(_FUR)))
    second_word = str(pick(rng, [word for word in _FUR if word != fur_word]))
    ears = (
        ("pointed", "pointed", "folded")
        if species == "cat"
        else ("floppy", "long", "pointed", "folded")
    )
    return {
        "species": species,
        "fur_word": fur_word,
        "fur": sample_colour(rng, _FUR, fur_word),
        "second": sample_colour(rng, _FUR, second_word),
        "pattern": pick(rng, list(_PATTERNS)),
        "pattern_side": pick(rng, (-1.0, 1.0)),
        "head_width": spread(rng, 12.5, 17.0),
        "head_height": spread(rng, 11.0, 14.5),
        "cheeks": spread(rng, 0, 1),
        "ear": pick(rng, ears),
        "ear_size": spread(rng, 0.75, 1.35),
        "ear_spread": spread(rng, 0.5, 0.8),
        "ear_second": bool(rng.random() < 0.35),
        "eye_gap": spread(rng, 5.2, 7.8),
        "eye_size": spread(rng, 0.8, 1.4),
        "eye_colour": pick(rng, _EYES),
        "muzzle_width": spread(rng, 4.8, 7.4),
        "muzzle_height": spread(rng, 3.4, 5.4) + (1.4 if species == "dog" else 0.0),
        "muzzle_light": spread(rng, 0, 1),
        "nose": pick(rng, (0xFF1E1A1C, 0xFFD9778A, 0xFF6B3A2A)),
        "nose_size": spread(rng, 0.85, 1.35),
        "tongue": bool(species == "dog" and rng.random() < 0.45),
        "body_width": spread(rng, 12, 19),
        "chest_second": bool(rng.random() < 0.5),
    }


def describe_pet(p: Mapping[str, Any]) -> tuple[str, list[str], list[str]]:
    """Noun, adjectives and features, in coarse words."""
    word = _PATTERNS[p["pattern"]]
    return p["species"], [word, p["fur_word"]] if word else [p["fur_word"]], []


def _ears(pen: Pen, p: Mapping[str, Any], w: float, h: float, front: bool) -> None:
    colour = p["second"] if p["ear_second"] else dark(p["fur"], 0.12)
    inner = mix(colour, 0xFFF0A0A8, 0.55)
    k, kind = p["ear_size"], p["ear"]
    cat = p["species"] == "cat"
    for s in (-1, 1):
        x, y = s * w * p["ear_spread"], -h * 0.72
        if kind == "pointed" and not front:
            half, tall = (6.2 if cat else 5.2) * k, (11 if cat else 13) * k
            tip = (x + s * 3.5, y - tall)
            pen.poly([(x - half, y + 2), tip, (x + half, y + 4)], colour)
            pen.poly(
                [
                    (x - half * 0.45, y + 1),
                    (tip[0] - s * 0.3, tip[1] + 3.4),
                    (x + half * 0.5, y + 2),
                ],
                inner,
            )
        elif kind == "folded" and front:
            half = 5.8 * k
            pen.poly([(x - half, y), (x, y - 6 * k), (x + half, y + 1)], dark(colour, 0.2))
            pen.path(
                outline(
                    (x - half * 0.8, y - 3),
                    (x + s * 3, y - 7 * k, x + s * half, y - 1),
                    (x + s * 3, y + 7 * k),
                    (x - half * 0.8, y - 3),
                ),
                colour,
            )
        elif kind in ("floppy", "long") and front:
            drop = (13 if kind == "floppy" else 21) * k
            a = s * w * 0.62
            b = s * (w + 4.5 * k)
            path = outline(
                (a, -h * 0.85),
                (b, -h * 1.1, b + s * 2, -h * 0.6 + drop),
                (b - s * 3, -h * 0.5 + drop * 1.25, s * w * 0.78, -h * 0.5 + drop * 0.7),
                (s * w * 0.8, -h * 0.3, a, -h * 0.85),
            )
            pen.path(path, colour)


def _markings(pen: Pen, p: Mapping[str, Any], w: float, h: float) -> None:
    second, pattern, side = p["second"], p["pattern"], p["pattern_side"]
    if pattern == "tabby":
        stripe = dark(p["fur"], 0.5) if p["fur_word"] not in ("black",) else light(p["fur"], 0.35)
        for x in (-4.2, 0, 4.2):
            pen.line(x, -h, x * 0.8, -h * 0.5, stripe, 2)
        for s in (-1, 1):
            for y in (1.0, 5.0):
                pen.line(s * w, y, s * w * 0.68, y + 1, stripe, 1.9)
    elif pattern == "spots":
        for x, y, r in ((-0.6, -0.5, 3.2), (0.55, -0.62, 2.6), (0.78, 0.3, 2.8), (-0.8, 0.35, 2.3)):
            pen.oval(side * x * w, y * h, r, r * 0.9, second)
    elif pattern == "patch":
        pen.oval(side * p["eye_gap"], -1.5, 6, 6.5, second)
    elif pattern == "half":
        pen.rect(0 if side > 0 else -w - 2, -h - 2, w + 2, 2 * h + 4, second)
    elif pattern == "mask":
        pen.oval(0, -1, w * 0.84, 5.4, second)
    elif pattern == "blaze":
        pen.path(
            outline((-1.6, -h), (1.6, -h), (2, 0, 5, h * 0.6), (-5, h * 0.6), (-2, 0, -1.6, -h)),
            second,
        )


def _body(pen: Pen, p: Mapping[str, Any], h: float) -> None:
    fur, b = p["fur"], p["body_width"]
    body = outline(
        (-b * 0.55, h * 0.4), (-b, h + 6, -b - 1, 42), (b + 1, 42), (b, h + 6, b * 0.55, h * 0.4)
    )
    pen.ramp(body, (-b, 0), (b, 0), light(fur, 0.06), dark(fur, 0.25))
    with pen.inside(body):
        if p["pattern"] == "spots":
            for x, y in ((-0.7, 9.0), (0.75, 13.0), (-0.6, 20.0)):
                pen.oval(p["pattern_side"] * x * b, h + y, 3.6, 3.2, p["second"])
        elif p["pattern"] == "half":
            pen.rect(0 if p["pattern_side"] < 0 else -b - 2, h, b + 2, 40, p["second"])
        if p["chest_second"]:
            pen.oval(0, h + 8, b * 0.42, 9, p["second"])
    for s in (-1, 1):
        pen.bow((s * 2, 42), (s * 2.5, h + 16), (s * 4, h + 13), dark(fur, 0.45), 1.2)


def draw_pet(
    pen: Pen, p: Mapping[str, Any], accessory: str, expression: str, rng: np.random.Generator
) -> None:
    """Draw a pet around the centre of its face (0, 0); a pet has no expression."""
    w, h, fur = p["head_width"], p["head_height"], p["fur"]
    cat = p["species"] == "cat"
    gaze, turn = spread(rng, -0.7, 0.7), spread(rng, -1.0, 1.0)
    _body(pen, p, h)
    _ears(pen, p, w, h, front=False)
    if cat:
        puff = w * (1.0 + 0.14 * p["cheeks"])
        head = outline(
            (-w * 0.9, -2),
            (-w * 0.9, -h * 1.28, w * 0.9, -h * 1.28, w * 0.9, -2),
            (puff * 1.3, h * 0.95, w * 0.35, h, 0, h),
            (-w * 0.35, h, -puff * 1.3, h * 0.95, -w * 0.9, -2),
        )
    else:
        low = h * 1.12
        head = outline(
            (-w * 0.92, -3),
            (-w * 0.9, -h * 1.3, w * 0.9, -h * 1.3, w * 0.92, -3),
            (w * 0.95, h * 0.6, w * 0.6, low, 0, low),
            (-w * 0.6, low, -w * 0.95, h * 0.6, -w * 0.92, -3),
        )
    pen.ramp(head, (-w, -h), (w, h), light(fur, 0.1), dark(fur, 0.13))
    with pen.inside(head):
        _markings(pen, p, w, h)
    _ears(pen, p, w, h, front=True)
    pen.canvas.save()
    pen.canvas.translate(turn, 0)
    size, gap, y = p["eye_size"], p["eye_gap"], -1.6
    for s in (-1, 1):
        x = s * gap
        rx, ry = (2.8 * size, 2.5 * size) if cat else (2.3 * size, 2.4 * size)
        pen.oval(x, y, rx + 0.8, ry + 0.8, 0xFF1A1416)
        eye = oval_path(x, y, rx, ry)
        pen.path(eye, p["eye_colour"])
        with pen.inside(eye):
            pupil = 1.0 * size if cat else 1.45 * size
            pen.oval(x + gaze, y, pupil, ry if cat else pupil, 0xFF0B0B10)
        pen.oval(x + gaze - 0.8, y - 0.9, 0.7, 0.7, 0xFFFFFFFF)
    my = 4.8 if cat else 5.4
    mw, mh = p["muzzle_width"], p["muzzle_height"]
    muzzle = light(fur, 0.25 + 0.6 * p["muzzle_light"])
    if cat:
        for s in (-1, 1):
            pen.oval(s * mw * 0.45, my + 1.6, mw * 0.62, mh * 0.72, muzzle)
    else:
        pen.oval(0, my + 1, mw, mh, muzzle)
    if p["tongue"]:
        pen.rect(-2.1, my + 2.6, 4.2, 6.4, 0xFFE9697B, 2.1)
    ink, n = 0xFF2A1A1C, p["nose_size"]
    nose_y = my - (1.2 if cat else 2.0)
    if cat:
        pen.poly([(-2 * n, nose_y - 1), (2 * n, nose_y - 1), (0, nose_y + 1.7 * n)], p["nose"])
    else:
        pen.oval(0, nose_y, 3 * n, 2.1 * n, dark(p["nose"], 0.3))
    base = nose_y + (2.4 if cat else 3.4) * n * 0.9
    for s in (-1, 1):
        pen.bow((0, base), (s * 1.4, base + 2.6), (s * 3.4, base + 0.9), ink, 1.1)
        if cat:
            for lift in (-0.4, 2.4):
                pen.line(
                    s * mw * 0.9,
                    my + 1 + lift * 0.4,
                    s * (mw + 7),
                    my - 1 + lift * 1.6,
                    0xB0FFFFFF,
                    0.9,
                )
    pen.canvas.restore()
    if accessory != "none":
        worn = Head(
            half=w * 0.86,
            top=-h + 1,
            chin=h + (0.5 if cat else 2),
            eye_y=y,
            eye_gap=gap,
            neck=p["body_width"] * 0.62,
        )
        draw_worn(pen, accessory, worn, rng)
