"""What the figures of a stream show, derived from the raw matrices of its runs."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

from perdure.benchmarks.records import Record
from perdure.measuring.matrix import (
    TaskMatrix,
    accuracy_final,
    final,
    forgetting,
    right_after,
)

__all__ = ["by_order", "by_place", "forgetting_by_length", "mean_matrix", "mean_so_far", "spread"]


def spread(values: Sequence[float]) -> float:
    """The sample standard deviation; 0 of one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def mean_matrix(matrices: Sequence[TaskMatrix], score: str) -> TaskMatrix:
    """Cell by cell the mean of one score over runs with the same tasks in the same order."""
    rows = [matrix.scores[score] for matrix in matrices]
    means = tuple(
        tuple(
            None if None in cells else statistics.fmean(cells)
            for cells in zip(*(run[i] for run in rows), strict=True)
        )
        for i in range(len(matrices[0].tasks))
    )
    return TaskMatrix(
        tasks=matrices[0].tasks,
        scores={score: means},
        higher_is_better={score: matrices[0].higher_is_better[score]},
    )


def first_tasks(matrix: TaskMatrix, count: int) -> TaskMatrix:
    """The matrix as if the stream had ended after ``count`` tasks."""
    width = sum(len(task) for task in matrix.tasks[:count])
    return TaskMatrix(
        tasks=matrix.tasks[:count],
        scores={
            score: tuple(row[:width] for row in rows[:count])
            for score, rows in matrix.scores.items()
        },
        higher_is_better=matrix.higher_is_better,
    )


def forgetting_by_length(matrix: TaskMatrix, score: str) -> dict[int, float]:
    """t -> `forgetting` had the stream ended after t tasks, for every t with something to forget
    at which all concepts so far were measured."""
    ended = {t: first_tasks(matrix, t) for t in range(2, len(matrix.tasks) + 1)}
    return {
        t: forgetting(one, score)
        for t, one in ended.items()
        if one.earlier(score) and all(one.at(score, -1, c) is not None for c in one.scored(score))
    }


def mean_so_far(matrix: TaskMatrix, score: str) -> dict[int, float]:
    """t -> the mean over all t concepts seen, at every moment; needs all moments."""
    seen = list(itertools.accumulate(len(task) for task in matrix.tasks))
    return {
        count: statistics.fmean(
            matrix.need(score, moment, name) for name in matrix.concepts[:count]
        )
        for moment, count in enumerate(seen)
    }


def by_order(orders: dict[int, list[Record]], score: str) -> dict[int, list[float]]:
    """Order -> the mean over all concepts at the end, one value a seed."""
    return {
        order: [accuracy_final(record.matrix, score) for record in records]
        for order, records in orders.items()
    }


def by_place(
    matrix: TaskMatrix, score: str, parts: int
) -> dict[tuple[int, int], tuple[float, float]]:
    """(first, last place) -> mean right after learning and at the end, of equal parts of a stream.

    Places are counted from 1, over the concepts that the score applies to, in their order.
    """
    after, ended = right_after(matrix, score), final(matrix, score)
    names = list(after)
    bounds = [round(len(names) * k / parts) for k in range(parts + 1)]
    return {
        (low + 1, high): (
            statistics.fmean(after[name] for name in names[low:high]),
            statistics.fmean(ended[name] for name in names[low:high]),
        )
        for low, high in itertools.pairwise(bounds)
        if high > low
    }
