"""What the report's page shows, ready for its template.

Every number that it prints is derived from the `Report`'s raw matrices, by the named
functions of `matrix` and `scores`.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from perdure.measuring.chart import curves
from perdure.measuring.contents import Definition, MethodResult, Report, Shot, Strip
from perdure.measuring.inline import image
from perdure.measuring.matrix import DEFINITIONS, TaskMatrix
from perdure.measuring.scores import Score, reach
from perdure.measuring.tables import WORDS, method_table, number

__all__ = ["page"]

Range = tuple[float, float]

SHOWN = 4  # pictures of a concept at a moment; the page shows the first large
HUES = 10  # the page's colours for concepts, --c0 to --c9


def page(data: Report) -> dict[str, Any]:
    """The names that report.html.j2 uses."""
    concepts: dict[str, dict[str, Any]] = {
        concept.name: {
            "name": concept.name,
            "title": concept.title or concept.name,
            "hue": i % HUES,
            "dashed": (i // HUES) % 2 == 1,
            "references": [image(picture) for picture in concept.references[: SHOWN + 1]],
            "ceiling": concept.ceiling,
            "floor": concept.floor,
        }
        for i, concept in enumerate(data.concepts)
    }
    main = data.describe(data.score)
    bounds = {
        key: statistics.fmean(values)
        for key in ("ceiling", "floor")
        if (values := [c[key] for c in concepts.values() if c[key] is not None])
    }
    span = _range(data)
    methods: list[dict[str, Any]] = []
    for method in data.methods:
        strips = {strip.concept: strip for strip in method.strips}
        methods.append(
            {
                "title": method.title,
                "summary": method.summary,
                "figure": _figure(method, data, main),
                "cards": {
                    name: _card(method.matrix, data.score, concept, strips.get(name))
                    for name, concept in concepts.items()
                },
                "heat": _heat(method.matrix, data.score, concepts, span),
                "curves": curves(
                    method.matrix,
                    data.score,
                    concepts,
                    about=main,
                    span=span,
                    bounds=bounds,
                ),
                "film": _film(method.matrix, data.score, concepts, strips),
                "contexts": [
                    {
                        "concept": concept,
                        "shots": _shots(strips[name].contexts),
                    }
                    for name, concept in concepts.items()
                    if name in strips and strips[name].contexts
                ],
            }
        )
    return {
        "data": data,
        "main": main,
        "concepts": list(concepts.values()),
        "methods": methods,
        "together": _shots(data.together),
        "bounds": bounds,
        "tasks": len(data.methods[0].matrix.tasks),
        "has_references": any(concept["references"] for concept in concepts.values()),
        "has_pictures": any(card for m in methods for card in m["cards"].values()),
        "scale": {"low": span[0], "high": span[1]},
        "table": method_table(data),
        "definitions": _definitions(data),
        "number": lambda value, score=main: number(
            None if value is None else value * score.scale, score.digits
        ),
    }


def _shots(shots: Sequence[Shot]) -> list[dict[str, Any]]:
    return [{"caption": shot.caption, "image": image(shot.picture)} for shot in shots]


def _range(data: Report) -> Range:
    """The main score's range over all methods and bounds: one scale for every map and curve."""
    values = [v for m in data.methods for row in m.matrix.scores[data.score] for v in row]
    values += [bound for c in data.concepts for bound in (c.ceiling, c.floor)]
    known = [value for value in values if value is not None]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _figure(method: MethodResult, data: Report, main: Score) -> dict[str, Any] | None:
    """A method's figure in the head: earlier concepts' mean right after learning and at the end.

    The last task's concepts are left out: nothing was taught after them.
    """
    matrix = method.matrix
    pairs = [
        (before, after)
        for name in matrix.earlier(data.score) or matrix.concepts
        if (before := matrix.at(data.score, matrix.learned_at(name), name)) is not None
        and (after := matrix.at(data.score, -1, name)) is not None
    ]
    if not pairs:
        return None
    before, after = (statistics.fmean(side) for side in zip(*pairs, strict=True))
    return {
        "before": number(before * main.scale, main.digits),
        "after": number(after * main.scale, main.digits),
        "moved": len(matrix.tasks) > 1,
        "count": len(pairs),
    }


def _bar(value: float | None, concept: Mapping[str, Any]) -> dict[str, str] | None:
    """Where a value lies on the way from floor to ceiling: bar width and words."""
    floor, ceiling = concept["floor"], concept["ceiling"]
    if value is None or floor is None or ceiling is None or not ceiling > floor:
        return None
    share = reach(value, floor=floor, ceiling=ceiling)
    return {
        "width": f"{100 * min(max(share, 0.0), 1.0):.1f}",
        "words": number(100 * share, 0) + " %",
    }


def _card(
    matrix: TaskMatrix, score: str, concept: Mapping[str, Any], strip: Strip | None
) -> list[dict[str, Any]]:
    """Right after learning, and at the end: pictures, score, and its place between the bounds."""
    learned, last = matrix.learned_at(concept["name"]), len(matrix.tasks) - 1
    moments = [("right after learning", learned), ("at the end", last)]
    if learned == last:
        moments.pop()
    cards = []
    for words, task in moments:
        pictures = strip.drawn.get(task, ()) if strip else ()
        value = matrix.at(score, task, concept["name"])
        if pictures or value is not None:
            cards.append(
                {
                    "words": words,
                    "images": [image(picture) for picture in pictures[:SHOWN]],
                    "value": value,
                    "bar": _bar(value, concept),
                }
            )
    return cards if any(card["images"] for card in cards) else []


def _heat(
    matrix: TaskMatrix, score: str, concepts: Mapping[str, Mapping[str, Any]], span: Range
) -> list[dict[str, Any]]:
    """One row a concept, one cell a moment; `shade` in [0, 1], 1 the best."""
    low, high = span
    better = matrix.higher_is_better[score]
    rows = []
    for name in matrix.concepts:
        cells = []
        for task in range(len(matrix.tasks)):
            value = matrix.at(score, task, name)
            share = 0.0 if value is None else (value - low) / (high - low)
            shade = share if better else 1.0 - share
            cells.append(
                {
                    "value": value,
                    "before": task < matrix.learned_at(name),
                    "shade": f"{0.06 + 0.94 * shade:.3f}",
                    "deep": shade > 0.6,
                }
            )
        rows.append({"concept": concepts[name], "cells": cells})
    return rows


def _film(
    matrix: TaskMatrix,
    score: str,
    concepts: Mapping[str, Mapping[str, Any]],
    strips: Mapping[str, Strip],
) -> list[dict[str, Any]]:
    """The triangle of pictures: one row a concept, the first picture after each task."""
    if len(matrix.tasks) < 3:
        return []
    rows = []
    for name in matrix.concepts:
        drawn = strips[name].drawn if name in strips else {}
        cells = [
            {
                "image": image(drawn[task][0]) if drawn.get(task) else None,
                "value": matrix.at(score, task, name),
            }
            for task in range(len(matrix.tasks))
        ]
        if any(cell["image"] for cell in cells):
            rows.append({"concept": concepts[name], "cells": cells})
    return rows


def _definitions(data: Report) -> list[Definition]:
    """The caller's, then those of every score and derived number on the page."""
    result = list(data.definitions)
    scores = dict.fromkeys([data.score, *(s for m in data.methods for s in m.matrix.scores)])
    for score in scores:
        about = data.describe(score)
        if about.definition:
            result.append(Definition(term=about.title, text=about.definition))
    if max(len(m.matrix.tasks) for m in data.methods) > 1:
        result += [
            Definition(term=f"{WORDS[name].capitalize()} ({name})", text=text)
            for name, text in DEFINITIONS.items()
        ]
    return result
