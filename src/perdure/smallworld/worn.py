"""What a person or a pet can wear on head and neck."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perdure.smallworld.pen import Pen, dark, hsv, light, outline


@dataclass(frozen=True, kw_only=True)
class Head:
    """Where things sit on a head drawn around (0, 0), in pixels at scale 1."""

    half: float
    """Half the head's width."""
    top: float
    """y of the top of the skull (negative)."""
    chin: float
    """y of the chin."""
    eye_y: float
    eye_gap: float
    """Half the distance between the eyes."""
    neck: float
    """Half the neck's width."""


def draw_worn(pen: Pen, name: str, head: Head, rng: np.random.Generator) -> None:
    """Draw accessory ``name`` on ``head``; its colour comes from ``rng``."""
    hue, tone, side = (float(v) for v in rng.random(3))
    colour = hsv(hue, 0.75, 0.55 + 0.35 * tone)
    sign = 1 if side < 0.5 else -1
    w, top = head.half, head.top
    if name == "hat":
        brim = top + 5.5
        felt = (0xFF3A2F2A, 0xFF7A4A21, 0xFF1F2A44, 0xFF6B1F2A)[int(hue * 4)]
        crown = outline(
            (-w * 0.78, brim),
            (-w * 0.72, top - 8.5, 0, top - 7),
            (w * 0.72, top - 8.5, w * 0.78, brim),
        )
        pen.path(crown, felt)
        pen.rect(-w * 0.79, brim - 4, w * 1.58, 3, light(felt, 0.55))
        pen.oval(0, brim, w * 1.45, 2.6, dark(felt, 0.25))
    elif name == "glasses":
        frame = (0xFF15151C, 0xFF15151C, 0xFF8C1C13, 0xFF1B3A7A)[int(hue * 4)]
        r = min(4.6, head.eye_gap - 0.7) + 0.2
        for s in (-1.0, 1.0):
            x = s * head.eye_gap
            lens = outline(
                (x - r, head.eye_y - r),
                (x + r, head.eye_y - r),
                (x + r, head.eye_y + r),
                (x - r, head.eye_y + r),
            )
            pen.path(lens, 0x40D8ECFF)
            pen.edge(lens, frame, 1.7)
            pen.line(x + s * r, head.eye_y - 1, s * w, head.eye_y - 2, frame, 1.5)
        pen.line(-head.eye_gap + r, head.eye_y - 1, head.eye_gap - r, head.eye_y - 1, frame, 1.6)
    elif name == "scarf":
        y, n = head.chin + 0.5, max(head.neck * 1.75, w * 0.8)
        band = outline((-n, y), (0, y + 4.5, n, y), (n + 2, y + 7), (0, y + 13, -n - 2, y + 7))
        pen.path(band, colour)
        tail = sign * n * 0.45
        pen.poly(
            [(tail - 3, y + 6), (tail + 3, y + 6), (tail + 4.5, y + 20), (tail - 2.5, y + 20)],
            dark(colour, 0.2),
        )
        pen.bow((-n, y + 3.5), (0, y + 8.5), (n, y + 3.5), light(colour, 0.55), 1.8)
    elif name == "crown":
        base, gold = top + 3.5, 0xFFF9C826
        reach = w * 0.8
        points = [
            (-reach, base),
            (-reach * 1.12, base - 11),
            (-reach * 0.5, base - 5.5),
            (0, base - 12.5),
        ]
        points += [(reach * 0.5, base - 5.5), (reach * 1.12, base - 11), (reach, base)]
        pen.poly(points, gold)
        pen.rect(-reach, base - 2.4, 2 * reach, 3, 0xFFD99A12)
        for x, jewel in (
            (-reach * 0.55, 0xFFE03131),
            (0.0, 0xFF1C7ED6),
            (reach * 0.55, 0xFFE03131),
        ):
            pen.oval(x, base - 1, 1.4, 1.4, jewel)
    elif name == "headphones":
        body = (0xFF22232B, 0xFFE9E9EE, 0xFFD62839)[int(hue * 3)]
        arch = outline((-w - 1, 0))
        arch.reset()
        arch.moveTo(-w - 0.5, head.eye_y + 2)
        arch.cubicTo(-w - 1.5, top - 7, w + 1.5, top - 7, w + 0.5, head.eye_y + 2)
        pen.edge(arch, body, 2.8)
        for s in (-1.0, 1.0):
            pen.rect(s * (w + 0.6) - 3, head.eye_y - 3, 6, 10.5, body, 2.6)
            pen.rect(s * (w + 0.6) - 1.2, head.eye_y - 0.8, 2.4, 6, colour, 1.2)
    elif name == "flower":
        x, y = sign * w * 0.72, top + 4.5
        petal = (0xFFF06595, 0xFFFFFFFF, 0xFFE03131, 0xFFFF922B)[int(hue * 4)]
        for i in range(5):
            angle = 1.2566 * i + tone
            pen.oval(x + 3.1 * np.cos(angle), y + 3.1 * np.sin(angle), 2.5, 2.5, petal)
        pen.oval(x, y, 1.9, 1.9, 0xFFFFD43B)
    elif name == "collar":
        y, n = head.chin + 0.5, head.neck * 1.15
        pen.bow((-n, y), (0, y + 5.5), (n, y), colour, 3.4)
        pen.oval(0, y + 5.4, 2.5, 2.5, 0xFFFFD43B)
        pen.oval(0, y + 5.8, 0.9, 0.9, 0xFF9A6A00)
    elif name == "bow":
        y = head.chin + 3.5
        for s in (-1.0, 1.0):
            pen.poly([(0, y), (s * 7.5, y - 4.5), (s * 7.5, y + 4.5)], colour)
        pen.oval(0, y, 2, 2.2, dark(colour, 0.3))
