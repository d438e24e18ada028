"""People: the parameters of a person, and a head-and-shoulders portrait of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from perdure.smallworld.hair import (
    HAIR_COLOURS,
    HAIR_STYLES,
    HAIR_WEIGHTS,
    hair_before,
    hair_behind,
)
from perdure.smallworld.pen import (
    Pen,
    dark,
    hsv,
    light,
    mix,
    outline,
    oval_path,
    pick,
    spread,
    veil,
)
from perdure.smallworld.vocabulary import COLOURS
from perdure.smallworld.worn import Head, draw_worn

_SKIN = (0xFFFBE0CF, 0xFFF2C7A3, 0xFFD9A074, 0xFFB0764A, 0xFF84502F, 0xFF563220)
_EYES = {
    0xFF4A2C17: "brown",
    0xFF2B6CB0: "blue",
    0xFF2F7D4F: "green",
    0xFF6B7280: "grey",
    0xFF8A5A14: "brown",
}
BEARDS = {"none": "", "moustache": "a moustache", "goatee": "a goatee", "full": "a beard"}


def sample_colour(rng: np.random.Generator, table: Mapping, name: str) -> int:
    """A colour that the word ``name`` of ``table`` covers."""
    hues, saturations, values = table[name]
    return hsv(spread(rng, *hues), spread(rng, *saturations), spread(rng, *values))


def sample_person(rng: np.random.Generator) -> dict[str, Any]:
    """The parameters of a random person: ARGB colours, pixels at scale 1, and names of kinds."""
    tone = spread(rng, 0, len(_SKIN) - 1.001)
    place = np.searchsorted(np.cumsum(HAIR_WEIGHTS), rng.random() * 0.999)
    hair_word = list(HAIR_COLOURS)[int(place)]
    clothes_word = str(pick(rng, list(COLOURS)))
    beard = rng.random()
    return {
        "skin": mix(_SKIN[int(tone)], _SKIN[int(tone) + 1], tone % 1),
        "face_width": spread(rng, 10.2, 14.2),
        "face_height": spread(rng, 13.8, 17.2),
        "jaw": spread(rng, 0, 1),
        "ears": spread(rng, 1.4, 3.4),
        "hair_style": pick(rng, list(HAIR_STYLES)),
        "hair_word": hair_word,
        "hair": sample_colour(rng, HAIR_COLOURS, hair_word),
        "hair_volume": spread(rng, 0, 1),
        "hairline": spread(rng, 0, 1),
        "hair_side": pick(rng, (-1.0, 1.0)),
        "eye_gap": spread(rng, 4.3, 6.8),
        "eye_y": spread(rng, -2.6, 0.6),
        "eye_size": spread(rng, 0.8, 1.4),
        "eye_openness": spread(rng, 0.7, 1.15),
        "eye_colour": pick(rng, list(_EYES)),
        "brow_width": spread(rng, 1.0, 2.5),
        "brow_tilt": spread(rng, -1.2, 1.2),
        "nose_length": spread(rng, 3.0, 6.0),
        "nose_width": spread(rng, 1.3, 3.2),
        "mouth_width": spread(rng, 3.4, 6.6),
        "lips": hsv(spread(rng, 0.96, 1.02), spread(rng, 0.45, 0.8), spread(rng, 0.45, 0.85)),
        "lip_width": spread(rng, 1.2, 2.3),
        "blush": spread(rng, 0, 0.5),
        "freckles": bool(rng.random() < 0.2),
        "beard": "none" if beard < 0.64 else str(pick(rng, ("moustache", "goatee", "full"))),
        "earrings": bool(rng.random() < 0.2),
        "clothes_word": clothes_word,
        "clothes": sample_colour(rng, COLOURS, clothes_word),
        "second": sample_colour(rng, COLOURS, str(pick(rng, list(COLOURS)))),
        "pattern": pick(rng, ("plain", "stripes", "dots", "collar", "jacket", "bars")),
        "shoulders": spread(rng, 18, 25),
    }


def describe_person(p: Mapping[str, Any]) -> tuple[str, list[str], list[str]]:
    """Noun, adjectives and features, in coarse words."""
    features = [HAIR_STYLES[p["hair_style"]].format(p["hair_word"])]
    if p["beard"] != "none":
        features.append(BEARDS[p["beard"]])
    if p["freckles"]:
        features.append("freckles")
    features.append(_face_words(p))
    size = _word(p["eye_size"], 1.0, 1.2, "small", "big")
    features.append(" ".join([*size, _EYES[p["eye_colour"]], "eyes"]))
    for part, word in (
        ("nose", _word(p["nose_length"], 4.0, 5.0, "short", "long")),
        ("mouth", _word(p["mouth_width"], 4.5, 5.5, "small", "big")),
    ):
        features += [f"a {word[0]} {part}"] if word else []
    features.append(f"{'an' if p['clothes_word'] == 'orange' else 'a'} {p['clothes_word']} shirt")
    return "person", [], features


def _face_words(p: Mapping[str, Any]) -> str:
    """Its shape, where that is marked, and one of three shades, by the skin's luma."""
    skin = p["skin"]
    luma = 0.299 * (skin >> 16 & 255) + 0.587 * (skin >> 8 & 255) + 0.114 * (skin & 255)
    shade = "bright" if luma > 185 else "brown" if luma > 105 else "dark"
    shape = _word(p["face_height"] / p["face_width"], 1.19, 1.36, "big", "long")
    return " ".join(["a", *shape, shade, "face"])


def _word(value: float, low: float, high: float, less: str, more: str) -> list[str]:
    """``less`` below ``low``, ``more`` above ``high``, else nothing."""
    return [less] if value < low else [more] if value > high else []


def _body(pen: Pen, p: Mapping[str, Any], w: float, h: float) -> None:
    skin, cloth, second = p["skin"], p["clothes"], p["second"]
    neck, top, wide = w * 0.48, h + 3.5, p["shoulders"]
    torso = outline(
        (-neck - 1.5, top),
        (-wide * 0.8, top + 2, -wide, top + 5, -wide - 1, 46),
        (wide + 1, 46),
        (wide, top + 5, wide * 0.8, top + 2, neck + 1.5, top),
    )
    pen.ramp(torso, (-wide, 0), (wide, 0), light(cloth, 0.1), dark(cloth, 0.2))
    pattern = p["pattern"]
    with pen.inside(torso):
        if pattern == "stripes":
            for y in (5.5, 12.0, 18.5):
                pen.rect(-wide - 2, top + y, 2 * wide + 4, 3.2, second)
        elif pattern == "bars":
            for x in (-15.0, -8.5, 8.5, 15.0):
                pen.rect(x - 1.7, top - 1, 3.4, 30, second)
        elif pattern == "dots":
            for i in range(10):
                x, y = (i % 5) * 8 - 16 + (i // 5) * 4, top + 5.5 + (i // 5) * 7
                pen.oval(x, y, 1.9, 1.9, second)
        elif pattern == "jacket":
            pen.poly([(-neck, top - 1), (neck, top - 1), (2.5, 46), (-2.5, 46)], second)
    pen.poly(
        [(-neck, h * 0.6), (neck, h * 0.6), (neck + 0.5, top), (0, top + 4), (-neck - 0.5, top)],
        dark(skin, 0.17),
    )
    if pattern == "collar":
        for s in (-1, 1):
            pen.poly(
                [(s * (neck + 2), top - 2), (0, top + 4), (s * (neck - 0.5), top + 8.5)], second
            )


def _eyes(pen: Pen, p: Mapping[str, Any], expression: str, gaze: float) -> None:
    size, gap, y = p["eye_size"], p["eye_gap"], p["eye_y"]
    openness = p["eye_openness"] * {"surprised": 1.35, "smiling": 0.85}.get(expression, 1.0)
    rx, ry = 2.5 * size, 2.0 * size * openness
    brow = mix(p["hair"], 0xFF2A1C14, 0.45)
    raised = {"surprised": 2.6, "sad": 0.4}.get(expression, 0.0)
    inner = p["brow_tilt"] + {"sad": 2.2, "surprised": 0.4}.get(expression, 0.0)
    for s in (-1, 1):
        x = s * gap
        white = oval_path(x, y, rx, ry)
        pen.path(white, 0xFFFFFFFF)
        with pen.inside(white):
            pen.oval(x + gaze, y, 1.75 * size, 1.75 * size, p["eye_colour"])
            pen.oval(x + gaze, y, 0.9 * size, 0.9 * size, 0xFF0B0B10)
        pen.bow((x - rx, y - ry * 0.2), (x, y - ry * 1.7), (x + rx, y - ry * 0.2), 0xFF2A1B18, 1.0)
        b = y - ry - 1.9 - raised
        pen.bow(
            (x - s * 2.6, b - inner),
            (x, b - 1.4 - 0.3 * inner),
            (x + s * 3, b + 0.7),
            brow,
            p["brow_width"],
        )


def _mouth(pen: Pen, p: Mapping[str, Any], expression: str, y: float) -> None:
    m, lips, width = p["mouth_width"], p["lips"], p["lip_width"]
    if expression == "smiling":
        smile = outline(
            (-m - 0.6, y - 1.6), (0, y - 0.2, m + 0.6, y - 1.6), (0, y + 7.2, -m - 0.6, y - 1.6)
        )
        pen.path(smile, 0xFFFFFFFF)
        pen.edge(smile, lips, 1.2)
    elif expression == "sad":
        pen.bow((-m * 0.9, y + 2.2), (0, y - 3.6), (m * 0.9, y + 2.2), lips, width + 0.3)
    elif expression == "surprised":
        pen.oval(0, y + 0.8, m * 0.55, 3.1, lips)
        pen.oval(0, y + 0.9, m * 0.55 - 1.1, 2.0, 0xFF3A0F14)
    else:
        pen.bow((-m * 0.85, y), (0, y + 0.7), (m * 0.85, y), lips, width + 0.2)


def draw_person(
    pen: Pen, p: Mapping[str, Any], accessory: str, expression: str, rng: np.random.Generator
) -> None:
    """Draw a portrait around the centre of the face (0, 0); about 31 px from brow to chin."""
    w, h, skin = p["face_width"], p["face_height"], p["skin"]
    gaze = spread(rng, -0.9, 0.9)
    turn = spread(rng, -1.0, 1.0)
    hair_behind(pen, p, w, h)
    _body(pen, p, w, h)
    for s in (-1, 1):
        pen.oval(s * w, p["eye_y"] + 2.5, p["ears"], p["ears"] * 1.45, dark(skin, 0.1))
        if p["earrings"]:
            pen.oval(s * (w + 0.6), p["eye_y"] + 4 + p["ears"] * 1.3, 1.5, 1.5, 0xFFFFD84D)
    jaw = p["jaw"]
    side = (w, h * (0.4 + 0.4 * jaw), w * (0.35 + 0.45 * jaw), h, 0, h)
    mirrored = (-side[2], h, -w, side[1], -w, 0)
    face = outline((-w, 0), (-w, -h * 1.28, w, -h * 1.28, w, 0), side, mirrored)
    pen.ramp(face, (-w, -h), (w, h), light(skin, 0.1), dark(skin, 0.14))
    nose_y = p["eye_y"] + 1.5 + p["nose_length"]
    mouth_y = min(nose_y + 4.6, h - 4.2)
    pen.canvas.save()
    pen.canvas.translate(turn, 0)
    with pen.inside(face):
        if p["beard"] == "full":
            beard = outline(
                (-w - 1, 1),
                (-w * 0.6, mouth_y - 3.5, 0, mouth_y - 3.6),
                (w * 0.6, mouth_y - 3.5, w + 1, 1),
                (w + 2, h + 2),
                (-w - 2, h + 2),
            )
            pen.path(beard, dark(p["hair"], 0.1))
        elif p["beard"] == "goatee":
            pen.oval(0, mouth_y + 3.6, p["mouth_width"] * 0.75, 4.2, dark(p["hair"], 0.1))
        for s in (-1, 1):
            pen.oval(s * w * 0.6, nose_y, 3.2, 2.4, veil(0xFFE8505B, p["blush"]))
            if p["freckles"]:
                for dx, dy in ((-1.8, -0.8), (0.6, 0.6), (2.4, -1.2), (-0.4, -2.4)):
                    pen.oval(s * w * 0.52 + dx, nose_y + dy, 0.75, 0.75, veil(0xFF8A4A20, 0.75))
    _eyes(pen, p, expression, gaze)
    n, shadow = p["nose_width"], dark(skin, 0.3)
    pen.path(
        outline(
            (-0.6, p["eye_y"] + 1),
            (0.6, p["eye_y"] + 1),
            (n * 1.1, nose_y - 1, n, nose_y + 0.4),
            (0, nose_y + 1.8, -n, nose_y + 0.4),
            (-n * 0.6, nose_y - 1, -0.6, p["eye_y"] + 1),
        ),
        veil(shadow, 0.55),
    )
    pen.bow((-n, nose_y + 0.3), (0, nose_y + 1.6), (n, nose_y + 0.3), shadow, 1.0)
    if p["beard"] in ("moustache", "full"):
        m = p["mouth_width"]
        pen.path(
            outline(
                (0, mouth_y - 3.2),
                (m * 1.1, mouth_y - 3, m * 1.25, mouth_y + 0.4),
                (m * 0.5, mouth_y - 0.6, 0, mouth_y - 0.8),
                (-m * 0.5, mouth_y - 0.6, -m * 1.25, mouth_y + 0.4),
                (-m * 1.1, mouth_y - 3, 0, mouth_y - 3.2),
            ),
            p["hair"],
        )
    _mouth(pen, p, expression, mouth_y)
    pen.canvas.restore()
    hair_before(pen, p, w, h)
    if accessory != "none":
        head = Head(
            half=w + 0.6,
            top=-h - 0.5,
            chin=h - 0.5,
            eye_y=p["eye_y"],
            eye_gap=p["eye_gap"],
            neck=w * 0.48,
        )
        draw_worn(pen, accessory, head, rng)
