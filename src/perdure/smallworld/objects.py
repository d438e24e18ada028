"""Objects: the parameters of a small thing, and the thing in front of the viewer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import skia

from perdure.smallworld.pen import Pen, dark, hsv, light, outline, oval_path, pick, spread, veil
from perdure.smallworld.people import sample_colour
from perdure.smallworld.vocabulary import COLOURS
from perdure.smallworld.worn import Head, draw_worn

KINDS = ("mug", "teapot", "backpack", "robot", "ball", "vase", "lamp", "clock")
_DECORATIONS = {
    "plain": "",
    "stripes": "stripes",
    "bars": "stripes",
    "dots": "dots",
    "star": "a star",
    "heart": "a heart",
    "halves": "",
}
DECORATION_WORDS = tuple(_DECORATIONS.values())


def sample_object(rng: np.random.Generator) -> dict[str, Any]:
    """The parameters of a random object: ARGB colours, pixels at scale 1, names of kinds."""
    word = str(pick(rng, list(COLOURS)))
    second = str(pick(rng, [name for name in COLOURS if name != word]))
    third = str(pick(rng, [name for name in COLOURS if name != word]))
    return {
        "kind": pick(rng, KINDS),
        "word": word,
        "colour": sample_colour(rng, COLOURS, word),
        "second": sample_colour(rng, COLOURS, second),
        "third": sample_colour(rng, COLOURS, third),
        "decoration": pick(rng, list(_DECORATIONS)),
        "width": spread(rng, 0, 1),
        "height": spread(rng, 0, 1),
        "curve": spread(rng, 0, 1),
        "part": spread(rng, 0, 1),
        "variant": int(spread(rng, 0, 2.999)),
        "side": pick(rng, (-1.0, 1.0)),
        "count": int(spread(rng, 2, 4.999)),
        "phase": spread(rng, 0, 1),
        "face": pick(rng, (0xFF2B2B38, 0xFFF4F1E8, 0xFFFFE27A)),
        "eye": pick(rng, (0xFF38D9F5, 0xFFFF6B6B, 0xFF8CE99A, 0xFFFFD43B)),
    }


def describe_object(p: Mapping[str, Any]) -> tuple[str, list[str], list[str]]:
    """Noun, adjectives and features, in coarse words."""
    decoration = _DECORATIONS[p["decoration"]]
    return p["kind"], [p["word"]], [decoration] if decoration else []


def _decorate(pen: Pen, p: Mapping[str, Any], body: skia.Path, r: float) -> None:
    """The decoration, clipped to ``body``; ``r`` is about half the body's size."""
    box, kind, second = body.getBounds(), p["decoration"], p["second"]
    x, y = box.centerX(), box.centerY()
    with pen.inside(body):
        n = p["count"]
        if kind == "stripes":
            step = box.height() / n
            for i in range(n):
                pen.rect(
                    box.left(),
                    box.top() + (i + 0.2 + 0.5 * p["phase"]) * step,
                    box.width(),
                    step * 0.42,
                    second,
                )
        elif kind == "bars":
            step = box.width() / n
            for i in range(n):
                pen.rect(
                    box.left() + (i + 0.29) * step, box.top(), step * 0.42, box.height(), second
                )
        elif kind == "dots":
            for i in range(3):
                for j in range(3):
                    pen.oval(
                        x + (i - 1 + 0.3 * (j % 2)) * r * 0.7,
                        y + (j - 1) * r * 0.68,
                        r * 0.2,
                        r * 0.2,
                        second,
                    )
        elif kind == "star":
            pen.star(x, y, r * 0.68, second)
        elif kind == "heart":
            pen.heart(x, y, r * 0.55, second)
        elif kind == "halves":
            pen.rect(box.left(), y, box.width(), box.height(), second)


def _fill(pen: Pen, p: Mapping[str, Any], body: skia.Path, r: float) -> None:
    box = body.getBounds()
    colour = p["colour"]
    pen.path(body, colour)
    _decorate(pen, p, body, r)
    left, right = (box.left(), 0.0), (box.right(), 0.0)
    pen.ramp(body, left, right, veil(0xFFFFFFFF, 0.22), veil(0xFF000010, 0.3))


def _mug(pen: Pen, p: Mapping[str, Any]) -> float:
    w, h, s = 10 + 5 * p["width"], 10 + 5 * p["height"], p["side"]
    handle = 4.5 + 3 * p["part"]
    path = oval_path(s * w, 0, handle + 1, h * 0.55)
    pen.edge(path, p["third"] if p["variant"] == 1 else dark(p["colour"], 0.15), 3)
    low = w * (1 - 0.3 * p["curve"])
    body = outline(
        (-w, -h), (w, -h), (w, h * 0.5, low, h), (0, h + 3, -low, h), (-w, h * 0.5, -w, -h)
    )
    _fill(pen, p, body, min(w, h))
    pen.oval(0, -h, w, 3.2, light(p["colour"], 0.3))
    pen.oval(0, -h + 0.3, w - 1.8, 2.1, 0xFF4A2A18)
    return -h - 2


def _teapot(pen: Pen, p: Mapping[str, Any]) -> float:
    w, h, s = 11 + 3.5 * p["width"], 9 + 4 * p["height"], p["side"]
    part = p["third"] if p["variant"] else dark(p["colour"], 0.15)
    pen.edge(oval_path(-s * w, 0, 6, h * 0.62), part, 2.8)
    rise = 4 + 6 * p["part"]
    pen.path(
        outline(
            (s * w * 0.7, h * 0.5),
            (s * (w + 5), h * 0.4, s * (w + 4), -rise),
            (s * (w + 9), -rise - 2),
            (s * (w + 8), -rise * 0.4, s * w * 0.8, -h * 0.4),
        ),
        part,
    )
    _fill(pen, p, oval_path(0, 1, w, h), h)
    pen.oval(0, -h * 0.86, w * 0.55, 2.6, part)
    pen.oval(0, -h - 2.4, 2.4, 2.4, p["third"])
    return -h - 2


def _backpack(pen: Pen, p: Mapping[str, Any]) -> float:
    w, h = 11 + 3.5 * p["width"], 14 + 3.5 * p["height"]
    strap = dark(p["colour"], 0.45)
    pen.edge(oval_path(0, -h, 4.5, 4.5), strap, 2.4)
    for s in (-1, 1):
        pen.bow((s * w * 0.8, -h * 0.5), (s * (w + 7), 0), (s * w * 0.8, h * 0.8), strap, 3.2)
    round_top = h * (0.8 + 0.6 * p["curve"])
    body = outline(
        (-w, h - 3),
        (-w, -h * 0.2),
        (-w, -h - round_top * 0.35, w, -h - round_top * 0.35, w, -h * 0.2),
        (w, h - 3),
        (w, h, w - 3, h),
        (-w + 3, h),
        (-w, h, -w, h - 3),
    )
    _fill(pen, p, body, w)
    deep = h * (0.4 + 0.3 * p["part"])
    pen.rect(-w * 0.72, h - deep - 2, w * 1.44, deep, p["third"], 2.5)
    pen.line(-w * 0.72, h - deep + 1.4, w * 0.72, h - deep + 1.4, dark(p["third"], 0.4), 1.4)
    if p["variant"] == 1:
        pen.rect(-w, -h * 0.42, 2 * w, 3, dark(p["third"], 0.15))
    return -h - 1


def _robot(pen: Pen, p: Mapping[str, Any]) -> float:
    w, h = 8 + 3.5 * p["width"], 7 + 3 * p["height"]
    metal = p["third"]
    for s in (-1, 1):
        pen.line(s * w, h * 0.4, s * (w + 5), h * 0.4 + (6 if s == p["side"] else -5), metal, 3)
        pen.rect(s * w * 0.5 - 2, h + 4, 4, 8, metal, 1)
        pen.rect(s * w * 0.5 - 3.5, h + 10, 7, 3.4, dark(metal, 0.3), 1.5)
    body = skia.Path()
    body.addRoundRect(skia.Rect.MakeLTRB(-w, -2, w, h + 6), 1 + 4 * p["curve"], 1 + 4 * p["curve"])
    _fill(pen, p, body, h * 0.75)
    hw, top = w * (0.75 + 0.45 * p["part"]), -2 - h - 5
    pen.rect(-1.6, -4, 3.2, 4, dark(metal, 0.3))
    pen.rect(-hw, top, 2 * hw, h + 2, p["colour"], 1 + 4 * p["curve"])
    pen.rect(-hw * 0.8, top + 2, hw * 1.6, h - 2, 0xFF20222E, 2)
    for s in (-1, 1):
        pen.oval(s * hw * 0.4, top + h * 0.5 + 0.6, 1.9, 2.1, p["eye"])
    if p["variant"] < 2:
        pen.line(0, top, 0, top - 4.5, metal, 1.5)
        pen.oval(0, top - 5, 2, 2, p["eye"])
    else:
        for s in (-1, 1):
            pen.rect(s * hw - 1.5, top + 3, 3, 5, metal, 1)
    return top


def _ball(pen: Pen, p: Mapping[str, Any]) -> float:
    r = 12 + 5 * p["width"]
    body = oval_path(0, 0, r, r)
    turned = skia.Path(body)
    pen.path(turned, p["colour"])
    with pen.placed(0, 0, 1, 50 * p["phase"] - 25):
        _decorate(pen, p, body, r)
        with pen.inside(body):
            if p["variant"] == 1:
                pen.bow((-r, -r * 0.2), (0, r * 0.9), (r, -r * 0.2), p["third"], 2.6)
                pen.bow((-r, -r * 0.5), (0, -r * 1.1), (r, -r * 0.5), p["third"], 2.6)
            elif p["variant"] == 2:
                pen.rect(-r, -2.4, 2 * r, 4.8, p["third"])
    pen.ramp(body, (-r, -r), (r, r), veil(0xFFFFFFFF, 0.3), veil(0xFF000010, 0.38))
    pen.oval(-r * 0.4, -r * 0.5, r * 0.2, r * 0.15, 0xC0FFFFFF)
    return -r


def _vase(pen: Pen, p: Mapping[str, Any]) -> float:
    w, h = 8 + 6 * p["width"], 13 + 4 * p["height"]
    neck, foot, belly = w * (0.3 + 0.35 * p["part"]), w * 0.55, h * (0.9 * p["curve"] - 0.45)
    body = outline(
        (-neck - 1.5, -h),
        (neck + 1.5, -h),
        (neck * 0.6, -h * 0.6, w * 1.25, belly - 6, w, belly),
        (w, belly + 6, foot, h * 0.8, foot, h),
        (-foot, h),
        (-foot, h * 0.8, -w, belly + 6, -w, belly),
        (-w * 1.25, belly - 6, -neck * 0.6, -h * 0.6, -neck - 1.5, -h),
    )
    if p["variant"] == 1:
        for s in (-1, 1):
            pen.edge(oval_path(s * w * 0.75, belly - 6, 4, 5), p["third"], 2.4)
    _fill(pen, p, body, w)
    pen.oval(0, -h, neck + 1.5, 1.9, p["third"])
    return -h


def _lamp(pen: Pen, p: Mapping[str, Any]) -> float:
    w, h = 11 + 4 * p["width"], 12 + 3 * p["height"]
    base = p["third"]
    pen.glow(0, 2, 20, veil(0xFFFFF0B0, 0.75))
    if p["variant"] == 1:
        pen.oval(0, h - 2, 5 + 2 * p["curve"], 7, base)
    elif p["variant"] == 2:
        for y in (3.0, 7.5, 12.0):
            pen.oval(0, y, 3.4, 2.9, base)
    pen.rect(-1.4, -2, 2.8, h + 4, dark(base, 0.2))
    pen.rect(-6 - 3 * p["curve"], h + 1, 12 + 6 * p["curve"], 3.2, base, 1.5)
    top = w * (0.3 + 0.55 * p["part"])
    shade = outline((-top, -h - 3), (top, -h - 3), (w, 1), (-w, 1))
    _fill(pen, p, shade, w * 0.62)
    return -h - 3


def _clock(pen: Pen, p: Mapping[str, Any]) -> float:
    r = 12 + 4 * p["width"]
    for s in (-1, 1):
        pen.line(s * r * 0.55, r * 0.7, s * r * 0.8, r + 4, p["third"], 3)
        if p["variant"] == 1:
            pen.oval(s * r * 0.62, -r * 0.9, 4.5, 4.5, p["third"])
    body = (
        oval_path(0, 0, r, r) if p["curve"] > 0.4 else outline((-r, -r), (r, -r), (r, r), (-r, r))
    )
    _fill(pen, p, body, r)
    inner = r * (0.6 + 0.16 * p["part"])
    pen.oval(0, 0, inner, inner, p["face"])
    ink = 0xFF15151C if p["face"] != 0xFF2B2B38 else 0xFFF4F1E8
    for k in range(4):
        x, y = ((0, -1), (1, 0), (0, 1), (-1, 0))[k]
        pen.oval(x * inner * 0.8, y * inner * 0.8, 1, 1, ink)
    for angle, length in ((6.28 * p["phase"], 0.72), (6.28 * p["height"], 0.48)):
        pen.line(0, 0, inner * length * np.cos(angle), inner * length * np.sin(angle), ink, 1.8)
    return -r


_KINDS = {
    "mug": _mug,
    "teapot": _teapot,
    "backpack": _backpack,
    "robot": _robot,
    "ball": _ball,
    "vase": _vase,
    "lamp": _lamp,
    "clock": _clock,
}


def draw_object(
    pen: Pen, p: Mapping[str, Any], accessory: str, expression: str, rng: np.random.Generator
) -> None:
    """Draw an object of about 34 px around (0, 0); it has no expression."""
    pen.oval(0, 18.5, 17, 3, 0x50000000)
    top = _KINDS[p["kind"]](pen, p)
    u = rng.random(3)
    if accessory == "ribbon":
        colour = hsv(u[0], 0.8, 0.9)
        pen.rect(-14, 5, 28, 4, colour, 1)
        for s in (-1, 1):
            pen.path(
                outline((0, 7), (s * 5, -3, s * 10, 1), (s * 11, 9, 0, 7)), light(colour, 0.15)
            )
            pen.poly([(0, 7), (s * 7, 15), (s * 2.5, 16)], dark(colour, 0.2))
        pen.oval(0, 7, 2.2, 2.2, dark(colour, 0.3))
    elif accessory == "sticker":
        x, y = p["side"] * (2 + 3 * u[1]), 1 + 4 * u[2]
        pen.oval(x, y, 6.4, 6.4, 0xFFFFFFFF)
        pen.oval(x, y, 5.2, 5.2, 0xFFFFD43B)
        for s in (-1, 1):
            pen.oval(x + s * 1.9, y - 1.2, 0.9, 1.2, 0xFF15151C)
        pen.bow((x - 2.4, y + 1.2), (x, y + 4), (x + 2.4, y + 1.2), 0xFF15151C, 1.1)
    elif accessory != "none":
        draw_worn(pen, accessory, Head(half=9.5, top=top, chin=12, eye_y=0, eye_gap=5, neck=8), rng)
