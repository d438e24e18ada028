"""The ten backgrounds; what makes each known stands at the sides, where a portrait leaves room."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from perdure.smallworld.pen import Pen, dark, hsv, light, mix, outline, veil


def _ground(pen: Pen, y: float, bend: float, near: int, far: int) -> None:
    path = outline((-2, y), (20, y - bend, 34, y), (50, y + bend, 66, y - bend), (66, 66), (-2, 66))
    pen.ramp(path, (0, y), (0, 64), far, near)


def _cloud(pen: Pen, x: float, y: float, r: float, colour: int) -> None:
    pen.oval(x, y, r * 1.5, r * 0.6, colour)
    pen.oval(x - r * 0.4, y - r * 0.4, r * 0.7, r * 0.6, colour)
    pen.oval(x + r * 0.5, y - r * 0.25, r * 0.6, r * 0.5, colour)


def _beach(pen: Pen, u: np.ndarray) -> None:
    pen.ramp(None, (0, 0), (0, 36), hsv(0.54 + 0.04 * u[0], 0.6, 0.95), hsv(0.53, 0.2, 1.0))
    side = u[1] < 0.5
    pen.oval(54 if side else 10, 8 + 5 * u[2], 5, 5, 0xFFFFE45C)
    sea = 30 + 5 * u[3]
    pen.rect(-2, sea, 68, 16, hsv(0.5 + 0.05 * u[4], 0.75, 0.78))
    _ground(pen, sea + 9, 2 + 2 * u[5], hsv(0.11, 0.42, 0.9), hsv(0.12, 0.3, 1.0))
    x = 6 + 5 * u[6] if side else 58 - 5 * u[6]
    lean = 3 if side else -3
    pen.bow((x, sea + 18), (x - lean, 30), (x + lean * 0.4, 16), 0xFF8A5A2C, 2.6)
    leaf = hsv(0.33 + 0.05 * u[7], 0.75, 0.55)
    for dx, dy in ((-9, 5), (9, 5), (-8, -3), (8, -3), (0, 9)):
        top = (x + lean * 0.4, 16.0)
        pen.bow(top, (top[0] + dx * 0.6, top[1] - 5), (top[0] + dx, top[1] + dy), leaf, 2.6)


def _forest(pen: Pen, u: np.ndarray) -> None:
    hue = 0.3 + 0.09 * u[0]
    pen.ramp(None, (0, 0), (0, 50), hsv(hue - 0.03, 0.45, 0.62), hsv(hue - 0.06, 0.4, 0.85))
    _ground(pen, 50, 2, hsv(0.25, 0.6, 0.25), hsv(0.27, 0.6, 0.42))
    trunk = hsv(0.07, 0.55, 0.3 + 0.12 * u[1])
    for i, x in enumerate((3, 14, 25, 40, 51, 61)):
        near = i in (0, 2, 3, 5)
        x += 5 * u[2 + i] - 2.5
        width = (4.5 if near else 2.8) + 1.5 * u[8 + i]
        pen.rect(x - width / 2, 8, width, 48 if near else 42, trunk if near else light(trunk, 0.25))
    for i, x in enumerate((0, 13, 27, 40, 52, 64)):
        leaf = hsv(hue + 0.05 * u[i] - 0.02, 0.7, 0.32 + 0.22 * u[5 + i])
        pen.oval(x, 4 + 6 * u[9 - i], 10, 9, leaf)
    pen.oval(2, 54, 8, 6, hsv(hue, 0.7, 0.35))
    pen.oval(62, 54, 8, 6, hsv(hue, 0.7, 0.35))


def _city(pen: Pen, u: np.ndarray) -> None:
    pen.ramp(None, (0, 0), (0, 46), hsv(0.58, 0.3, 0.82), hsv(0.08, 0.12 + 0.15 * u[0], 0.97))
    x = -2.0 - 3 * u[1]
    for i in range(6):
        width = 10 + 5 * u[2 + i]
        top = 6 + 22 * u[8 + i] + (8 if 1 < i < 4 else 0)
        wall = hsv(0.58 + 0.1 * u[i], 0.12 + 0.14 * u[15 - i], 0.35 + 0.22 * u[7 - i])
        pen.rect(x, top, width, 60, wall)
        glass = 0xFFFFE08A if u[5 + i] < 0.5 else light(wall, 0.5)
        for row in range(4):
            for column in (0.18, 0.58):
                pen.rect(x + width * column, top + 4 + 8 * row, width * 0.26, 4, glass)
        x += width + 0.6
    pen.rect(-2, 52, 68, 14, 0xFF50535C)
    for x in (4, 28, 52):
        pen.rect(x - 3 + 6 * u[1], 57.5, 9, 2, 0xFFE9E6DA)


def _pine(pen: Pen, x: float, base: float, size: float, leaf: int, snow: int) -> None:
    pen.rect(x - 1.2, base - 2, 2.4, 5, 0xFF5D4330)
    for step in range(3):
        y, half = base - step * size * 0.3, size * (0.36 - 0.08 * step)
        tip = y - size * 0.45
        pen.poly([(x - half, y), (x, tip), (x + half, y)], leaf)
        pen.poly(
            [(x - half * 0.5, tip + size * 0.22), (x, tip), (x + half * 0.5, tip + size * 0.22)],
            snow,
        )


def _snow(pen: Pen, u: np.ndarray) -> None:
    pen.ramp(None, (0, 0), (0, 40), hsv(0.58, 0.22 + 0.15 * u[0], 0.82), hsv(0.57, 0.08, 0.97))
    pen.poly([(-4, 46), (12 + 6 * u[1], 18 + 8 * u[2]), (34, 46)], 0xFFA9BBD2)
    pen.poly([(28, 46), (50 + 6 * u[3], 16 + 8 * u[4]), (72, 46)], 0xFF9BB0CB)
    _ground(pen, 42, 2.5, 0xFFFFFFFF, 0xFFDDE8F5)
    leaf = hsv(0.42, 0.55, 0.36)
    for i, x in enumerate((6, 58, 17, 48)):
        _pine(
            pen,
            x + 4 * u[5 + i] - 2,
            47 - 2 * (i > 1),
            30 - 8 * (i > 1) + 5 * u[9 + i],
            leaf,
            0xFFF7FAFF,
        )
    for i in range(10):
        pen.oval(64 * u[i], 40 * u[15 - i], 1.2, 1.2, 0xFFFFFFFF)


def _night(pen: Pen, u: np.ndarray) -> None:
    pen.ramp(None, (0, 0), (0, 50), hsv(0.66, 0.75, 0.16), hsv(0.63 + 0.06 * u[0], 0.6, 0.4))
    x = 9 + 4 * u[1] if u[2] < 0.5 else 55 - 4 * u[1]
    y = 9 + 4 * u[3]
    pen.glow(x, y, 12, veil(0xFFFFF6C8, 0.45))
    pen.oval(x, y, 6, 6, 0xFFFFF3BE)
    pen.oval(x + 2.6, y - 1.6, 5, 5, hsv(0.65, 0.6, 0.24))
    for i in range(12):
        pen.oval(64 * u[4 + i], 36 * u[(9 + 5 * i) % 16], 0.9, 0.9, 0xFFF5F3DE)
    _ground(pen, 46 + 3 * u[4], 4, 0xFF080A1A, 0xFF141833)


def _desert(pen: Pen, u: np.ndarray) -> None:
    pen.ramp(None, (0, 0), (0, 40), hsv(0.08, 0.45 + 0.2 * u[0], 0.98), hsv(0.12, 0.35, 1.0))
    left = u[1] < 0.5
    pen.oval(54 if left else 10, 9 + 5 * u[2], 6, 6, 0xFFFFF6D0)
    _ground(pen, 37 + 3 * u[3], -6, hsv(0.075, 0.6, 0.85), hsv(0.085, 0.55, 0.92))
    _ground(pen, 47 + 3 * u[4], 5, hsv(0.07, 0.65, 0.72), hsv(0.08, 0.6, 0.86))
    green = hsv(0.36, 0.6, 0.42 + 0.12 * u[5])
    for x, size in ((8 + 3 * u[6], 1.0 if left else 0.6), (56 - 3 * u[7], 0.6 if left else 1.0)):
        pen.rect(x - 2.6 * size, 50 - 27 * size, 5.2 * size, 27 * size, green, 2.5 * size)
        for sign in (-1, 1):
            bottom = (x + sign * 2 * size, 50 - (9 + 3 * sign) * size)
            corner = (x + sign * 7.5 * size, bottom[1])
            pen.bow(bottom, corner, (corner[0], bottom[1] - 8 * size), green, 3 * size)


def _room(pen: Pen, u: np.ndarray) -> None:
    wall = hsv(u[0], 0.12 + 0.2 * u[1], 0.78 + 0.17 * u[2])
    pen.ramp(None, (0, 0), (0, 50), wall, dark(wall, 0.12))
    pen.rect(-2, 50, 68, 16, hsv(0.07, 0.5, 0.42 + 0.15 * u[3]))
    pen.rect(-2, 48, 68, 2.5, light(wall, 0.6))
    left = u[4] < 0.5
    x = 2 if left else 46
    pen.rect(x, 5, 17, 24, 0xFFF8F4EA)
    pen.rect(x + 2, 7, 13, 20, 0xFF9FD3F5)
    pen.rect(x + 7.7, 7, 1.8, 20, 0xFFF8F4EA)
    pen.rect(x + 2, 16, 13, 1.8, 0xFFF8F4EA)
    x = 56 if left else 8
    shade = hsv(u[5], 0.45, 0.95)
    pen.rect(x - 1, 20, 2, 32, 0xFF4A3B30)
    pen.glow(x, 20, 13, veil(0xFFFFF0B0, 0.7))
    pen.poly([(x - 6, 23), (x - 3.5, 12), (x + 3.5, 12), (x + 6, 23)], shade)
    pen.oval(x, 52, 5, 1.6, 0xFF4A3B30)


def _meadow(pen: Pen, u: np.ndarray) -> None:
    pen.ramp(None, (0, 0), (0, 36), hsv(0.56, 0.5 + 0.15 * u[0], 0.96), hsv(0.54, 0.15, 1.0))
    _cloud(pen, 10 + 8 * u[1], 9 + 4 * u[2], 6, 0xFFFFFFFF)
    _cloud(pen, 52 + 6 * u[3], 12 + 5 * u[4], 5, 0xFFFFFFFF)
    _ground(pen, 31 + 3 * u[5], 4, hsv(0.27, 0.6, 0.7), hsv(0.25, 0.5, 0.82))
    _ground(pen, 39 + 3 * u[6], -4, hsv(0.29, 0.7, 0.55), hsv(0.27, 0.62, 0.74))
    for i in range(12):
        x = (3 + 22 * u[i]) if i % 2 else (61 - 22 * u[i])
        y = 40 + 22 * u[15 - i]
        r = 1.3 + (y - 40) * 0.04
        petal = (0xFFFFFFFF, 0xFFF15B6C, 0xFFFFD43B, 0xFFC77DFF)[i % 4]
        pen.oval(x, y, r * 1.25, r * 1.25, petal)
        pen.oval(x, y, r * 0.5, r * 0.5, 0xFFF2A900 if i % 4 != 2 else 0xFF9A5B00)


def _sea(pen: Pen, u: np.ndarray) -> None:
    pen.ramp(None, (0, 0), (0, 24), hsv(0.56, 0.35 + 0.2 * u[0], 0.9), hsv(0.54, 0.12, 0.98))
    level = 20 + 5 * u[1]
    sea = hsv(0.57 + 0.03 * u[2], 0.85, 0.72)
    pen.ramp(
        outline((-2, level), (66, level), (66, 66), (-2, 66)),
        (0, level),
        (0, 64),
        sea,
        dark(sea, 0.5),
    )
    x = 9 + 4 * u[3] if u[4] < 0.5 else 55 - 4 * u[3]
    pen.poly([(x + 0.5, level - 16), (x + 0.5, level - 3), (x + 8, level - 3)], 0xFFFFFFFF)
    pen.poly([(x - 0.8, level - 13), (x - 0.8, level - 3), (x - 6, level - 3)], 0xFFF25C54)
    pen.poly(
        [(x - 8, level - 2), (x + 8, level - 2), (x + 5, level + 2.5), (x - 5, level + 2.5)],
        0xFF7A3E1D,
    )
    crest = light(sea, 0.55)
    for row in range(5):
        y = level + 7 + 8 * row
        for i in range(4):
            x = 18 * i - 8 + 16 * u[5 + row]
            pen.bow((x, y), (x + 4.5, y - 4), (x + 9, y), crest, 1.5)


def _space(pen: Pen, u: np.ndarray) -> None:
    hue = 0.68 + 0.16 * u[0]
    pen.ramp(None, (0, 0), (64, 64), hsv(hue, 0.8, 0.1), hsv(hue + 0.05, 0.7, 0.24))
    pen.glow(64 * u[1], 64 * u[2], 26, veil(hsv(hue + 0.12, 0.7, 0.8), 0.4))
    for i in range(14):
        r = 0.8 + 0.5 * u[i]
        pen.oval(64 * u[i], 64 * u[(3 + 7 * i) % 16], r, r, 0xFFFFFFFF)
    x, far = (10, 56) if u[3] < 0.5 else (54, 8)
    y = 11 + 6 * u[4]
    planet = hsv(u[5], 0.55, 0.9)
    pen.oval(x, y, 6.5, 6.5, planet)
    pen.oval(x + 1.5, y + 1.5, 4.5, 4.5, dark(planet, 0.2))
    pen.line(x - 10, y + 3, x + 10, y - 3, light(planet, 0.5), 1.8)
    other = hsv(u[6], 0.5, 0.75)
    pen.oval(far, 42 + 8 * u[7], 5, 5, other)
    pen.oval(far - 1.5, 41 + 8 * u[7], 2, 2, mix(other, 0xFF000000, 0.3))


_BACKGROUNDS: dict[str, Callable[[Pen, np.ndarray], None]] = {
    "beach": _beach,
    "forest": _forest,
    "city": _city,
    "snow": _snow,
    "night": _night,
    "desert": _desert,
    "room": _room,
    "meadow": _meadow,
    "sea": _sea,
    "space": _space,
}


def draw_background(pen: Pen, name: str, rng: np.random.Generator) -> None:
    """Fill the 64 by 64 canvas with background ``name``, varied by ``rng``."""
    u = rng.random(16)
    if rng.random() < 0.5:
        pen.canvas.save()
        pen.canvas.translate(64, 0)
        pen.canvas.scale(-1, 1)
        _BACKGROUNDS[name](pen, u)
        pen.canvas.restore()
    else:
        _BACKGROUNDS[name](pen, u)
