"""The report's charts: where lines, labels and ticks lie."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from perdure.measuring.matrix import TaskMatrix
from perdure.measuring.scores import Score
from perdure.measuring.tables import number

__all__ = ["apart", "axis", "curves"]


def axis(low: float, high: float, count: int = 5) -> list[tuple[float, str]]:
    """Round numbers within [low, high], and how they are printed."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if not math.isclose(step * 10**digits, round(step * 10**digits), abs_tol=1e-6):
        digits += 1
    return [(i * step, number(i * step, digits)) for i in range(first, last + 1)]


def apart(heights: Sequence[float], gap: float, lowest: float) -> list[float]:
    """Label heights moved as little as needed to be `gap` apart and above `lowest`."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    moved = list(heights)
    for k, i in enumerate(order[1:], start=1):
        moved[i] = max(moved[i], moved[order[k - 1]] + gap)
    limit = lowest
    for i in reversed(order):
        moved[i] = min(moved[i], limit)
        limit = moved[i] - gap
    return moved


def curves(
    matrix: TaskMatrix,
    score: str,
    concepts: Mapping[str, Mapping[str, Any]],
    *,
    about: Score,
    span: tuple[float, float],
    bounds: Mapping[str, float],
) -> dict[str, Any]:
    """The chart's geometry: every concept's score over time, in a 520 x 344 box.

    Args:
        concepts: what the page knows of every concept; each line carries its own.
        about: the score's scale on the page.
        span: the lowest and the highest value, unscaled.
        bounds: word -> value of the horizontal rules.
    """
    left, top, width, height = 44.0, 30.0, 384.0, 256.0
    low, high = span
    margin = 0.04 * (high - low)
    lowest, highest = (low - margin) * about.scale, (high + margin) * about.scale
    count = len(matrix.tasks)

    def at_x(task: int) -> float:
        return left + (width * task / (count - 1) if count > 1 else width / 2)

    def at_y(value: float) -> float:
        return top + height * (1 - (value * about.scale - lowest) / (highest - lowest))

    lines: list[dict[str, Any]] = []
    for name in matrix.concepts:
        points = [
            (at_x(task), at_y(value))
            for task in range(count)
            if (value := matrix.at(score, task, name)) is not None
        ]
        if points:
            lines.append({"concept": concepts[name], "points": points})
    labels = apart([line["points"][-1][1] for line in lines], 14.0, top + height + 4)
    step = max(1, math.ceil(count / 10))
    return {
        "lines": [{**line, "label_y": y} for line, y in zip(lines, labels, strict=True)],
        "rules": [{"y": at_y(value), "words": words} for words, value in bounds.items()],
        "labelled": len(lines) <= 16,
        "x": [
            {"at": at_x(task), "words": str(task + 1)}
            for task in range(count)
            if task % step == 0 or task == count - 1
        ],
        "y": [
            {"at": at_y(tick / about.scale), "words": words}
            for tick, words in axis(lowest, highest)
        ],
        "box": {"left": left, "right": left + width, "top": top, "bottom": top + height},
    }
