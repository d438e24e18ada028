"""The page's figures of whole methods: where marks, lines and labels lie."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from perdure.benchmarks.results import Results
from perdure.benchmarks.series import spread
from perdure.measuring.chart import apart, axis
from perdure.measuring.matrix import TaskMatrix
from perdure.measuring.tables import number

__all__ = ["HUES", "fates", "heat", "lengths", "marked", "orders", "scatter"]

Box = tuple[float, float, float, float]
WIDTH, HEIGHT = 760.0, 420.0
LEFT, TOP, BOTTOM = 52.0, 30.0, 366.0
LETTER, BOLD, LINE = 7.1, 8.2, 14.0
HUES = 8
"""The page's colours, --c0 to --c7."""
_SHAPES = 4


def marked(
    results: Results, rows: Mapping[str, Mapping[str, Sequence[float]]]
) -> list[dict[str, Any]]:
    """The methods as figures take them: each with its values, and a colour and mark of its own."""
    return [
        {
            "title": runs.title,
            "hue": k % HUES,
            "shape": (k + k // HUES) % _SHAPES,
            "dashed": (k // HUES) % 2 == 1,
            "values": rows[runs.title],
            "runs": runs,
        }
        for k, runs in enumerate(results.methods)
    ]


def _span(values: Sequence[float], margin: float = 0.06) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = margin * (high - low) or 0.05
    return low - room, high + room


def _frame(right: float) -> dict[str, float]:
    return {"left": LEFT, "right": right, "top": TOP, "bottom": BOTTOM}


def scatter(methods: Sequence[Mapping[str, Any]], x: str, y: str) -> dict[str, Any] | None:
    """One mark a method at the means of two numbers, with whiskers of one spread either way.

    A method without the number ``x`` is a horizontal rule at its ``y``.

    Args:
        methods: each with `values`, number -> one value a seed, and what the page knows of it.
        x, y: the numbers.
    """
    placed = [m for m in methods if x in m["values"]]
    if not placed:
        return None
    across = [v for m in placed for v in _reach(m["values"][x])]
    up = [v for m in methods for v in _reach(m["values"][y])]
    right = WIDTH - 20
    (x0, x1), (y0, y1) = _span(across), _span(up)

    def at_x(value: float) -> float:
        return LEFT + (right - LEFT) * (value - x0) / (x1 - x0)

    def at_y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (value - y0) / (y1 - y0)

    marks: list[dict[str, Any]] = []
    taken: list[Box] = []
    for method in placed:
        (left, most), (low, high) = (_reach(method["values"][key]) for key in (x, y))
        mark: dict[str, Any] = {
            "method": method,
            "x": at_x(statistics.fmean(method["values"][x])),
            "y": at_y(statistics.fmean(method["values"][y])),
            "whiskers": (at_x(left), at_x(most), at_y(low), at_y(high)),
        }
        marks.append(mark)
        cx, cy = mark["x"], mark["y"]
        taken += [
            (cx - 7, cy - 7, cx + 7, cy + 7),
            (at_x(left) - 5, cy - 1, at_x(most) + 5, cy + 1),
            (cx - 1, at_y(high) - 1, cx + 1, at_y(low) + 1),
        ]
    rules: list[dict[str, Any]] = [
        {"y": at_y(statistics.fmean(m["values"][y])), "words": m["title"]}
        for m in methods
        if x not in m["values"]
    ]
    for rule in rules:
        words = len(rule["words"]) * LETTER
        taken.append((LEFT, rule["y"] - 18, LEFT + words, rule["y"] + 1))
        taken.append((LEFT, rule["y"] - 1, right, rule["y"] + 1))
    inside = (LEFT, TOP, right, BOTTOM)
    for mark in sorted(marks, key=lambda one: one["y"]):
        mark["label"] = _beside(mark, taken, inside)
        taken.append(mark["label"]["box"])
    return {
        "marks": marks,
        "rules": rules,
        "x": [{"at": at_x(value), "words": words} for value, words in axis(x0, x1)],
        "y": [{"at": at_y(value), "words": words} for value, words in axis(y0, y1)],
        "box": _frame(right),
    }


def _reach(values: Sequence[float]) -> tuple[float, float]:
    mean, width = statistics.fmean(values), spread(values)
    return mean - width, mean + width


def _beside(mark: Mapping[str, Any], taken: Sequence[Box], inside: Box) -> dict[str, Any]:
    """The nearest free place for a mark's title; a far one gets a line back to the mark."""
    words = len(mark["method"]["title"]) * LETTER
    places = []
    for distance in (12.0, 20.0, 30.0, 44.0, 60.0, 80.0, 104.0):
        for angle in (0, 180, 30, -30, 150, -150, 60, -60, 120, -120, 90, -90):
            dx, dy = (f(math.radians(angle)) * distance for f in (math.cos, math.sin))
            start = mark["x"] + dx - (0 if dx > 1 else words if dx < -1 else words / 2)
            middle = mark["y"] + dy
            box = (start - 2, middle - LINE / 2, start + words + 2, middle + LINE / 2)
            place = {
                "x": start,
                "y": middle + 4,
                "box": box,
                "from": (mark["x"] + dx, middle) if distance > 20 else None,
            }
            places.append(place)
            if not any(_meet(box, other) for other in taken) and _within(box, inside):
                return place
    return places[0]


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _within(box: Box, inside: Box) -> bool:
    return (
        box[0] >= inside[0] and box[1] >= inside[1] and box[2] <= inside[2] and box[3] <= inside[3]
    )


def lengths(series: Sequence[tuple[Mapping[str, Any], Mapping[int, list[float]]]]) -> Any:
    """A line a method: mean and spread over seeds of a number by how many tasks were taught.

    A method with one such number is a mark with a whisker.
    """
    ends = [(t, v) for _, line in series for t, values in line.items() for v in _reach(values)]
    right = WIDTH - 14 - BOLD * max(len(method["title"]) for method, _ in series)
    first, last = min(t for t, _ in ends), max(t for t, _ in ends)
    low, high = _span([0.0, *(v for _, v in ends)])

    def at_x(task: int) -> float:
        return LEFT + (right - LEFT) * (task - first) / max(1, last - first)

    def at_y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low)

    found: list[dict[str, Any]] = []
    for method, line in series:
        sides = [(at_x(t), *map(at_y, _reach(values))) for t, values in line.items()]
        found.append(
            {
                "method": method,
                "points": [(at_x(t), at_y(statistics.fmean(v))) for t, v in line.items()],
                "band": [(x, y) for x, _, y in sides] + [(x, y) for x, y, _ in sides[::-1]],
            }
        )
    labels = apart([line["points"][-1][1] for line in found], LINE, BOTTOM + 4)
    step = max(1, math.ceil((last - first) / 12))
    return {
        "lines": [{**line, "label_y": y} for line, y in zip(found, labels, strict=True)],
        "x": [{"at": at_x(t), "words": str(t)} for t in range(first, last + 1, step)],
        "y": [{"at": at_y(value), "words": words} for value, words in axis(low, high)],
        "zero": at_y(0.0),
        "box": _frame(right),
    }


def orders(series: Sequence[tuple[Mapping[str, Any], Mapping[int, list[float]]]]) -> Any:
    """A row a method: a number in each order (mean over seeds), and how far orders and seeds go."""
    left, right, row = 12 + LETTER * max(len(m["title"]) for m, _ in series), WIDTH - 216, 30.0
    means = [[statistics.fmean(values) for values in one.values()] for _, one in series]
    low, high = _span([value for one in means for value in one])

    def at_x(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    rows = []
    for k, ((method, one), values) in enumerate(zip(series, means, strict=True)):
        over_seeds = [spread(seeds) for seeds in one.values() if len(seeds) > 1]
        rows.append(
            {
                "method": method,
                "y": TOP + row * (k + 0.5),
                "marks": [
                    {"x": at_x(value), "order": order}
                    for order, value in zip(one, values, strict=True)
                ],
                "ends": (at_x(min(values)), at_x(max(values))),
                "range": number(max(values) - min(values), 3),
                "seeds": number(statistics.fmean(over_seeds) if over_seeds else None, 3),
            }
        )
    bottom = TOP + row * len(rows)
    return {
        "rows": rows,
        "x": [{"at": at_x(value), "words": words} for value, words in axis(low, high)],
        "box": {"left": left, "right": right, "top": TOP, "bottom": bottom},
        "height": bottom + 50,
    }


def heat(
    matrix: TaskMatrix, score: str, span: tuple[float, float], *, ends: bool, digits: int = 2
) -> dict[str, Any]:
    """One row a concept, one cell a moment; of the ends alone one row a moment, a cell a concept.

    Concepts without the score are left out. Names and numbers are printed where there is room.
    """
    names, tasks = matrix.scored(score), len(matrix.tasks)
    low, high = span
    lines: list[tuple[str, list[tuple[int, float]]]]
    if ends:
        lines = [
            (
                "right after",
                [(k, matrix.need(score, matrix.learned_at(n), n)) for k, n in enumerate(names)],
            ),
            ("at the end", [(k, matrix.need(score, -1, n)) for k, n in enumerate(names)]),
        ]
        columns, tall = len(names), 26.0
    else:
        lines = [
            (
                name,
                [
                    (task, value)
                    for task in range(tasks)
                    if (value := matrix.at(score, task, name)) is not None
                ],
            )
            for name in names
        ]
        columns, tall = tasks, 27.0 if len(names) <= 16 else max(3.0, 430.0 / len(names))
    left, top = 84.0, 22.0
    wide = (516.0 - left) / columns
    cells = []
    for row, (_, values) in enumerate(lines):
        for column, value in values:
            share = min(max((value - low) / (high - low), 0.0), 1.0)
            share = share if matrix.higher_is_better[score] else 1 - share
            cells.append(
                {
                    "x": left + column * wide,
                    "y": top + row * tall,
                    "words": number(value, digits) if wide > 26 and tall > 14 else "",
                    "shade": f"{0.06 + 0.94 * share:.3f}",
                    "deep": share > 0.6,
                }
            )
    step = max(1, math.ceil(columns / 12))
    return {
        "cells": cells,
        "width": wide - (2 if wide > 12 else 0.5),
        "height": tall - (2 if tall > 12 else 0.5),
        "rows": [
            {"y": top + (row + 0.5) * tall + 4, "words": words}
            for row, (words, _) in enumerate(lines)
            if tall > 10 or row % 5 == 0
        ],
        "columns": [
            {"x": left + (k + 0.5) * wide - 1, "words": str(k + 1)} for k in range(0, columns, step)
        ],
        "corner": "concept" if ends else "after task",
        "tall": top + tall * len(lines) + 4,
    }


def fates(matrix: TaskMatrix, score: str, span: tuple[float, float]) -> dict[str, Any]:
    """A stem a concept, in the order of learning: from right after learning to the end."""
    names = matrix.scored(score)
    low, high = _span(span, 0.04)
    left, right, top, bottom = 44.0, 504.0, 30.0, 286.0

    def at_x(place: float) -> float:
        return left + (right - left) * (place + 0.5) / len(names)

    def at_y(value: float) -> float:
        return bottom - (bottom - top) * (value - low) / (high - low)

    step = max(1, math.ceil(len(names) / 12))
    return {
        "stems": [
            {
                "x": at_x(place),
                "first": at_y(matrix.need(score, matrix.learned_at(name), name)),
                "last": at_y(matrix.need(score, -1, name)),
            }
            for place, name in enumerate(names)
        ],
        "radius": min(4.0, 0.36 * (right - left) / len(names)),
        "x": [{"at": at_x(k), "words": str(k + 1)} for k in range(0, len(names), step)],
        "y": [{"at": at_y(value), "words": words} for value, words in axis(low, high)],
        "box": {"left": left, "right": right, "top": top, "bottom": bottom},
    }
