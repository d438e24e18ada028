"""What the page of a stream of classes shows, ready for its template, accuracies in per cent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perdure.benchmarks.class_words import MEANINGS, commands, lead, surroundings, table_note
from perdure.benchmarks.figures import heat, lengths, marked, scatter
from perdure.benchmarks.paired import paired_tables
from perdure.benchmarks.results import Results
from perdure.benchmarks.series import mean_matrix, mean_so_far
from perdure.benchmarks.words import definitions, seeds_each
from perdure.classification.run import ACCURACY
from perdure.measuring.matrix import TaskMatrix
from perdure.measuring.tables import Best, Column, cells

__all__ = ["page"]


def page(
    results: Results,
    rows: Mapping[str, Mapping[str, Sequence[float]]],
    columns: Sequence[Column],
    best: Best,
) -> dict[str, Any]:
    """The names that classes.html.j2 uses; ``rows``, ``columns`` and ``best`` are the table's."""
    shown = {
        title: {c.key: [c.scale * v for v in values[c.key]] for c in columns if c.key in values}
        for title, values in rows.items()
    }
    methods = marked(results, shown)
    percent = {m["title"]: [_percent(r.matrix) for r in m["runs"].records] for m in methods}
    means = {t: _over_tasks(mean_matrix(runs, ACCURACY)) for t, runs in percent.items()}
    known = [v or 0.0 for mean in means.values() for row in mean.scores[ACCURACY] for v in row]
    top = max(known) or 100.0
    return {
        "results": results,
        "lead": lead(results),
        "tables": [{"columns": columns, "cells": cells(rows, columns, best)}],
        "paired": paired_tables(results, columns),
        "note": table_note(results),
        "seeds": seeds_each(results),
        "scatter": scatter(methods, "F_N", "A_N"),
        "so_far": lengths([(m, _so_far(percent[m["title"]])) for m in methods]),
        "maps": [
            {
                "title": title,
                "heat": heat(mean, ACCURACY, (0.0, top), ends=False, digits=0),
            }
            for title, mean in means.items()
        ],
        "top": top,
        "definitions": definitions(columns, MEANINGS),
        "surroundings": surroundings(results),
        "commands": commands(results),
    }


def _percent(matrix: TaskMatrix) -> TaskMatrix:
    return TaskMatrix(
        tasks=matrix.tasks,
        scores={
            ACCURACY: tuple(
                tuple(None if value is None else 100 * value for value in row)
                for row in matrix.scores[ACCURACY]
            )
        },
        higher_is_better={ACCURACY: True},
    )


def _over_tasks(matrix: TaskMatrix) -> TaskMatrix:
    """A moment a task, of which a method that learns all at once has the last alone."""
    names, rows = matrix.concepts, matrix.scores[ACCURACY]
    blank = ((None,) * len(names),) * (len(names) - len(rows))
    return TaskMatrix(
        tasks=tuple((name,) for name in names),
        scores={ACCURACY: (*blank, *rows)},
        higher_is_better={ACCURACY: True},
    )


def _so_far(matrices: Sequence[TaskMatrix]) -> dict[int, list[float]]:
    """Tasks taught -> the accuracy on all classes seen, one value a seed."""
    lines = [mean_so_far(matrix, ACCURACY) for matrix in matrices]
    return {taught: [line[taught] for line in lines] for taught in lines[0]}
