"""What the page of a stream shows, ready for its template; every number is from the records."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from perdure.benchmarks.figures import HUES, fates, heat, lengths, marked, orders, scatter
from perdure.benchmarks.paired import paired_tables
from perdure.benchmarks.results import MethodRuns, Results
from perdure.benchmarks.series import by_order, forgetting_by_length, mean_matrix
from perdure.benchmarks.strips import concept_rows, pair_rows
from perdure.benchmarks.words import (
    MEANINGS,
    commands,
    counted,
    definitions,
    lead,
    surroundings,
    table_note,
)
from perdure.measuring.chart import curves
from perdure.measuring.matrix import TaskMatrix
from perdure.measuring.scores import SCORES, Score
from perdure.measuring.tables import Best, Column, cells

__all__ = ["page"]

MAIN = "identity"
BESIDE = "image_alignment"
COSTS = (
    *("pair", "boxed", "two", "two_plain", "two_boxed", "three", "kept", "at_place", "in_style"),
    *("seconds", "parameters", "share", "stored", "memory"),
)


def page(
    results: Results,
    rows: Mapping[str, Mapping[str, Sequence[float]]],
    columns: Sequence[Column],
    best: Best,
) -> dict[str, Any]:
    """The names that bench.html.j2 uses; ``rows``, ``columns`` and ``best`` are the table's."""
    methods = marked(results, rows)
    names = results.data["matrix"]["tasks"]
    bounds = results.data["bounds"].values()
    scores = [MAIN, BESIDE] if results.data["styles"] else [MAIN]
    return {
        "results": results,
        "lead": lead(results),
        "methods": methods,
        "tables": [
            {"columns": part, "cells": cells(rows, part, best)} for part in _parts(columns, results)
        ],
        "paired": paired_tables(results, columns),
        "note": table_note(results),
        "scatter": scatter(methods, "forgetting", "final"),
        "bounds": [statistics.fmean(side) for side in zip(*bounds, strict=True)],
        "over_time": [_over_time(methods, SCORES[score], results) for score in scores],
        "lengths": [
            (SCORES[score], lengths(found))
            for score in scores
            if (found := _by_length(methods, score))
        ],
        "orders": [
            (SCORES[score], orders(found))
            for score in scores
            if (found := _by_order(methods, score))
        ],
        "seeds": counted([len(runs.first) for runs in results.methods], "seed"),
        "concepts": len([name for task in names for name in task]),
        "pictures": concept_rows(results.methods),
        "pairs": pair_rows(results.methods),
        "definitions": definitions(columns, MEANINGS),
        "surroundings": surroundings(results),
        "commands": commands(results),
    }


def _parts(columns: Sequence[Column], results: Results) -> list[list[Column]]:
    """The table in parts that a page is wide enough for: concepts; pairs and costs; the rest."""
    beside = [column.key for column in results.kind.further]
    costs = [column for column in columns if column.key in COSTS]
    others = [column for column in columns if column.key not in COSTS]
    main = [column for column in others if column.key not in beside]
    return [main, costs, [column for column in others if column.key in beside]]


def _matrices(runs: MethodRuns) -> list[TaskMatrix]:
    return [record.matrix for record in runs.first]


def _over_time(
    methods: Sequence[Mapping[str, Any]], score: Score, results: Results
) -> dict[str, Any]:
    """For each method the mean matrix as a map, and as a curve a concept."""
    means = [mean_matrix(_matrices(method["runs"]), score.name) for method in methods]
    known = [v for m in means for row in m.scores[score.name] for v in row if v is not None]
    span = (min(known), max(known)) if max(known) > min(known) else (known[0] - 0.5, known[0] + 0.5)
    concepts = {
        name: {"name": name, "title": name, "hue": k % HUES, "dashed": (k // HUES) % 2 == 1}
        for k, name in enumerate(means[0].concepts)
    }
    ends = any(record.data["moments"] != "all" for record in results.records)
    return {
        "score": score,
        "span": span,
        "ends": ends,
        "methods": [
            {
                "title": method["title"],
                "heat": heat(matrix, score.name, span, ends=ends, digits=score.digits),
                "curves": fates(matrix, score.name, span)
                if ends
                else curves(matrix, score.name, concepts, about=score, span=span, bounds={}),
            }
            for method, matrix in zip(methods, means, strict=True)
        ],
    }


def _by_length(methods: Sequence[Mapping[str, Any]], score: str) -> list[tuple[Any, Any]]:
    """Methods with their forgetting after every number of tasks that they were measured at."""
    found = []
    for method in methods:
        lines = [forgetting_by_length(one.matrix, score) for one in method["runs"].first]
        if common := sorted(set.intersection(*map(set, lines))):
            found.append((method, {t: [line[t] for line in lines] for t in common}))
    return found if any(len(line) > 1 for _, line in found) else []


def _by_order(methods: Sequence[Mapping[str, Any]], score: str) -> list[tuple[Any, Any]]:
    """Methods with several orders, with their score at the end in each."""
    return [
        (method, by_order(method["runs"].orders, score))
        for method in methods
        if len(method["runs"].orders) > 1
    ]
