"""Intervals of paired differences, against what can be counted by hand."""

import math

import pytest

from perdure.measuring.intervals import bootstrap_interval


def test_two_runs_of_one_value_have_three_means() -> None:
    # Means 0, 1, 2 with chances 1/4, 1/2, 1/4: both ends are an extreme, widened by sqrt(2).
    low, high = bootstrap_interval([[0.0], [2.0]], crossed=True) or (0, 0)
    assert (low, high) == pytest.approx((1 - math.sqrt(2), 1 + math.sqrt(2)))


def test_three_runs_reach_their_extremes_and_four_do_not() -> None:
    # All draws the least of three: 1/27 = 3.7 %, above 2.5 %.
    low, high = bootstrap_interval([[0.0], [3.0], [6.0]], crossed=True) or (0, 0)
    assert (low, high) == pytest.approx((3 - 3 * math.sqrt(1.5), 3 + 3 * math.sqrt(1.5)))
    # Of 0, 1, 2, 3 the sum of four draws is 0, 1 or 2 in 1, 4 and 10 of 256: 0.4, 2.0 and 5.9 %.
    low, high = bootstrap_interval([[0.0], [1.0], [2.0], [3.0]], crossed=True) or (0, 0)
    assert low == pytest.approx(1.5 - (1.5 - 0.5) * math.sqrt(4 / 3))
    assert high == pytest.approx(1.5 + (1.5 - 0.5) * math.sqrt(4 / 3))


def test_crossed_concepts_are_drawn_for_all_runs_together() -> None:
    # Run r and concept c add r + c: the least mean has a chance of 1/4 * 1/4 = 6.3 %.
    low, high = bootstrap_interval([[0.0, 1.0], [1.0, 2.0]], crossed=True) or (0, 0)
    assert (low, high) == pytest.approx((1 - math.sqrt(2), 1 + math.sqrt(2)))


def test_nested_concepts_are_drawn_within_each_run() -> None:
    # Of the same numbers, each run's concepts apart: mean 0 has 1/4 * 1/16 = 1.6 %, mean 1/4 has
    # 4 times that, so the ends are 1/4 and 7/4.
    low, high = bootstrap_interval([[0.0, 1.0], [1.0, 2.0]], crossed=False) or (0, 0)
    assert (low, high) == pytest.approx((1 - 0.75 * math.sqrt(2), 1 + 0.75 * math.sqrt(2)))
    assert bootstrap_interval([[0.0, 1.0, 2.0], [1.0]], crossed=False)  # as many as each has


def test_one_run_varies_by_its_concepts_alone_and_one_value_says_nothing() -> None:
    low, high = bootstrap_interval([[0.0, 2.0]], crossed=True) or (0, 0)
    assert (low, high) == pytest.approx((1 - math.sqrt(2), 1 + math.sqrt(2)))
    assert bootstrap_interval([[0.5]], crossed=True) is None
    assert bootstrap_interval([[0.5, 0.5], [0.5, 0.5]], crossed=True) == (0.5, 0.5)


def test_rows_that_cannot_be_paired_are_refused() -> None:
    for rows in ([], [[]], [[1.0, 2.0], [1.0]]):
        with pytest.raises(ValueError, match="differences"):
            bootstrap_interval(rows, crossed=True)
