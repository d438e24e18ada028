"""Colours and antialiased shapes: the few drawing words that the small world is written in."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import skia

Point = tuple[float, float]


def hsv(hue: float, saturation: float, value: float) -> int:
    """An opaque ARGB colour; every argument in [0, 1], the hue wraps."""
    r, g, b = colorsys.hsv_to_rgb(hue % 1.0, min(saturation, 1.0), min(value, 1.0))
    return 0xFF000000 | int(r * 255.0) << 16 | int(g * 255.0) << 8 | int(b * 255.0)


def mix(first: int, second: int, t: float) -> int:
    """The opaque colour at fraction ``t`` of the way from ``first`` to ``second``."""
    out = 0xFF000000
    for shift in (16, 8, 0):
        a, b = first >> shift & 255, second >> shift & 255
        out |= min(255, max(0, int(a + (b - a) * t))) << shift
    return out


def dark(colour: int, t: float) -> int:
    """``colour`` moved towards a near black by ``t``."""
    return mix(colour, 0xFF0A0812, t)


def light(colour: int, t: float) -> int:
    """``colour`` moved towards white by ``t``."""
    return mix(colour, 0xFFFFFFFF, t)


def veil(colour: int, alpha: float) -> int:
    """``colour`` with opacity ``alpha`` in [0, 1]."""
    return int(alpha * 255) << 24 | colour & 0xFFFFFF


def spread(rng: np.random.Generator, low: float, high: float) -> float:
    """One uniform draw."""
    return low + (high - low) * float(rng.random())


def pick(rng: np.random.Generator, options: Sequence) -> object:
    """One of ``options``, all equally likely."""
    return options[int(rng.random() * len(options))]


def outline(start: Point, *steps: tuple[float, ...]) -> skia.Path:
    """A closed path; a step is a line (2 numbers), a quadratic (4) or a cubic (6)."""
    path = skia.Path()
    path.moveTo(*start)
    for step in steps:
        if len(step) == 2:
            path.lineTo(*step)
        elif len(step) == 4:
            path.quadTo(*step)
        else:
            path.cubicTo(*step)
    path.close()
    return path


def oval_path(x: float, y: float, rx: float, ry: float) -> skia.Path:
    """An ellipse as a path, for clipping."""
    path = skia.Path()
    path.addOval(skia.Rect.MakeLTRB(x - rx, y - ry, x + rx, y + ry))
    return path


class Pen:
    """Draws antialiased shapes on a canvas whose unit is one pixel of the finished picture."""

    def __init__(self, canvas: skia.Canvas) -> None:
        self.canvas = canvas
        self._fill = skia.Paint(AntiAlias=True)
        self._line = skia.Paint(
            AntiAlias=True,
            Style=skia.Paint.kStroke_Style,
            StrokeCap=skia.Paint.kRound_Cap,
            StrokeJoin=skia.Paint.kRound_Join,
        )

    def oval(self, x: float, y: float, rx: float, ry: float, colour: int) -> None:
        self._fill.setColor(colour)
        self.canvas.drawOval(skia.Rect.MakeLTRB(x - rx, y - ry, x + rx, y + ry), self._fill)

    def rect(self, x: float, y: float, w: float, h: float, colour: int, r: float = 0.0) -> None:
        self._fill.setColor(colour)
        box = skia.Rect.MakeXYWH(x, y, w, h)
        if r:
            self.canvas.drawRoundRect(box, r, r, self._fill)
        else:
            self.canvas.drawRect(box, self._fill)

    def path(self, path: skia.Path, colour: int) -> None:
        self._fill.setColor(colour)
        self.canvas.drawPath(path, self._fill)

    def poly(self, points: Sequence[Point], colour: int) -> None:
        self.path(outline(points[0], *points[1:]), colour)

    def edge(self, path: skia.Path, colour: int, width: float) -> None:
        self._line.setColor(colour)
        self._line.setStrokeWidth(width)
        self.canvas.drawPath(path, self._line)

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: int, width: float) -> None:
        self._line.setColor(colour)
        self._line.setStrokeWidth(width)
        self.canvas.drawLine(x0, y0, x1, y1, self._line)

    def bow(self, start: Point, bend: Point, end: Point, colour: int, width: float) -> None:
        """A quadratic stroke."""
        path = skia.Path()
        path.moveTo(*start)
        path.quadTo(*bend, *end)
        self.edge(path, colour, width)

    def ramp(
        self, path: skia.Path | None, start: Point, end: Point, first: int, second: int
    ) -> None:
        """Fill ``path`` (None: everything) with a linear gradient."""
        shader = skia.GradientShader.MakeLinear([start, end], [first, second])
        paint = skia.Paint(AntiAlias=True, Shader=shader)
        if path is None:
            self.canvas.drawPaint(paint)
        else:
            self.canvas.drawPath(path, paint)

    def glow(self, x: float, y: float, r: float, colour: int) -> None:
        """A disc that fades from ``colour`` to nothing."""
        colours = [colour, colour & 0xFFFFFF]
        shader = skia.GradientShader.MakeRadial((x, y), r, colours)
        self.canvas.drawCircle(x, y, r, skia.Paint(AntiAlias=True, Shader=shader))

    def star(self, x: float, y: float, r: float, colour: int) -> None:
        angles = np.arange(10) * (np.pi / 5) - np.pi / 2
        radii = np.where(np.arange(10) % 2, r * 0.45, r)
        xs, ys = x + radii * np.cos(angles), y + radii * np.sin(angles)
        self.poly(list(zip(xs.tolist(), ys.tolist(), strict=True)), colour)

    def heart(self, x: float, y: float, r: float, colour: int) -> None:
        left = (x - 1.9 * r, y - r * 0.2, x - r * 0.8, y - 1.6 * r, x, y - r * 0.5)
        right = (x + r * 0.8, y - 1.6 * r, x + 1.9 * r, y - r * 0.2, x, y + r)
        self.path(outline((x, y + r), left, right), colour)

    @contextmanager
    def inside(self, path: skia.Path) -> Iterator[None]:
        """Draw only within ``path``."""
        self.canvas.save()
        self.canvas.clipPath(path, doAntiAlias=True)
        yield
        self.canvas.restore()

    @contextmanager
    def placed(self, x: float, y: float, scale: float, degrees: float) -> Iterator[None]:
        """Draw around (x, y), scaled and turned."""
        self.canvas.save()
        self.canvas.translate(x, y)
        self.canvas.rotate(degrees)
        self.canvas.scale(scale, scale)
        yield
        self.canvas.restore()
