"""How sure a mean difference is: a bootstrap over two levels, runs and what each run measured.

Runs and concepts are both a sample, and a claim is about neither these seeds nor these concepts,
so both are drawn again. Where every run measured the same concepts, the two are crossed (Owen 2007,
*The pigeonhole bootstrap*); where each run has concepts of its own, they are drawn within it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["COVERAGE", "bootstrap_interval"]

DRAWS = 10_000
COVERAGE = 0.95


def bootstrap_interval(
    differences: Sequence[Sequence[float]], *, crossed: bool
) -> tuple[float, float] | None:
    """The central 95 % of the mean of ``differences``, one row a run and one value a concept.

    Deviations from the mean are widened by sqrt(n / (n - 1)), n the number of runs (of one run: of
    its concepts), because a few that are drawn again vary less than those they stand for. In
    simulations with three runs of five or ten concepts 88 to 99 % of the intervals held the truth,
    the fewest where runs differ far more than concepts do.

    The draws are the same at every call. ``crossed``: column k is one and the same concept in all
    rows. None where there is nothing to draw from: one value. Raises ValueError for rows that are
    empty and, crossed, of unequal length.
    """
    lengths = {len(row) for row in differences}
    if not differences or 0 in lengths or (crossed and len(lengths) > 1):
        raise ValueError(f"differences: rows of {sorted(lengths)} values; give one or more to each")
    runs = len(differences)
    free = runs if runs > 1 else max(lengths)
    if free == 1:
        return None
    rows = [np.asarray(row, dtype=np.float64) for row in differences]
    mean = float(np.mean([row.mean() for row in rows]))
    drawn = _crossed(np.stack(rows)) if crossed or runs == 1 else _nested(rows)
    widened = mean + (drawn - mean) * (free / (free - 1)) ** 0.5
    outside = (1 - COVERAGE) / 2
    low, high = np.quantile(widened, [outside, 1 - outside], method="inverted_cdf")
    return float(low), float(high)


@cache
def _shares(count: int, stream: int) -> NDArray[np.float64]:
    """(draws, count): how much of each of ``count`` a draw with replacement has."""
    rng = np.random.default_rng([stream, count])
    return rng.multinomial(count, np.full(count, 1 / count), size=DRAWS) / count


def _crossed(table: NDArray[np.float64]) -> NDArray[np.float64]:
    runs, concepts = table.shape
    return np.asarray(((_shares(runs, 0) @ table) * _shares(concepts, 1)).sum(axis=1))


def _nested(rows: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    rng = np.random.default_rng([2, len(rows)])
    total = np.zeros(DRAWS)
    for _ in rows:
        run = rng.integers(0, len(rows), DRAWS)
        for k, row in enumerate(rows):
            hit = np.flatnonzero(run == k)
            total[hit] += row[rng.integers(0, len(row), (len(hit), len(row)))].mean(axis=1)
    return total / len(rows)
