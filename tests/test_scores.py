"""Scores against loops in plain Python, scipy and numbers worked out by hand."""

import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import torch

from perdure.measuring.scores import (
    SCORES,
    auc,
    clip_score_cifc,
    diversity,
    frechet,
    image_alignment,
    kid,
    mmd,
    reach,
    text_alignment,
)


def features(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (n, d))


def kernel(a, b, degree: int) -> float:
    return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1.0) ** degree


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_biased_mmd_equals_a_double_loop(degree):
    x, y = features(5, 4, 0), features(7, 4, 1, 0.5)
    xx = sum(kernel(a, b, degree) for a in x for b in x) / 25
    yy = sum(kernel(a, b, degree) for a in y for b in y) / 49
    xy = sum(kernel(a, b, degree) for a in x for b in y) / 35
    assert mmd(x, y, degree=degree) == pytest.approx(xx + yy - 2 * xy, rel=1e-12)


def test_mmd_worked_out_by_hand():
    # d = 1: k(1, 1) = 4, k(0, 0) = 1, k(1, 0) = 1, so 4 + 1 - 2 = 3
    assert mmd([[1.0]], [[0.0]]) == pytest.approx(3.0)


def test_mmd_of_equal_sets_is_zero_and_is_symmetric():
    x, y = features(6, 3, 2), features(4, 3, 3)
    assert mmd(x, x) == pytest.approx(0.0, abs=1e-12)
    assert mmd(x, y) == pytest.approx(mmd(y, x), rel=1e-12)


def test_kid_equals_the_unbiased_cubic_double_loop():
    x, y = features(5, 4, 4), features(6, 4, 5, 0.3)
    xx = sum(kernel(a, b, 3) for a, b in itertools.permutations(x, 2)) / (5 * 4)
    yy = sum(kernel(a, b, 3) for a, b in itertools.permutations(y, 2)) / (6 * 5)
    xy = sum(kernel(a, b, 3) for a in x for b in y) / 30
    assert kid(x, y) == pytest.approx(xx + yy - 2 * xy, rel=1e-12)


@pytest.mark.parametrize(("n", "m", "d"), [(40, 30, 4), (5, 6, 12)])
def test_frechet_equals_scipys_matrix_root(n, m, d):
    x, y = features(n, d, 6), features(m, d, 7, 0.4)
    cx, cy = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    # the root of a product of deficient rank, by the symmetric form with a nudged diagonal
    half = scipy.linalg.sqrtm(cx + 1e-14 * np.eye(d)).real
    root = scipy.linalg.sqrtm(half @ cy @ half + 1e-14 * np.eye(d)).real
    shift = x.mean(0) - y.mean(0)
    expected = shift @ shift + np.trace(cx + cy - 2 * root)
    assert frechet(x, y) == pytest.approx(expected, rel=1e-5)


def test_frechet_of_two_lines_by_hand():
    # means 1 and 2, variances (n - 1) 2 and 8: 1 + 2 + 8 - 2 * sqrt(16) = 3
    assert frechet([[0.0], [2.0]], [[0.0], [4.0]]) == pytest.approx(3.0)


def test_image_alignment_is_the_mean_cosine_of_all_pairs():
    x, y = features(3, 5, 8), features(4, 5, 9)
    cosines = [a @ b / math.sqrt((a @ a) * (b @ b)) for a in x for b in y]
    assert image_alignment(x, y) == pytest.approx(sum(cosines) / 12)
    assert image_alignment(torch.tensor(x), y * 7) == pytest.approx(sum(cosines) / 12)


def test_distinct_pairs_leave_out_the_diagonal():
    x = [[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]]
    # pairs (1,2) 0, (1,3) 0, (2,3) 1, each twice
    assert image_alignment(x, x, distinct=True) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="equally many"):
        image_alignment(x, x[:2], distinct=True)


def test_text_alignment_pairs_rows_and_cifc_clips_each_at_zero():
    images = [[1.0, 0.0], [1.0, 0.0]]
    texts = [[3.0, 4.0], [-1.0, 0.0]]  # cosines 0.6 and -1
    assert text_alignment(images, texts) == pytest.approx(-0.2)
    assert clip_score_cifc(images, texts) == pytest.approx(2.5 * 0.6 / 2)
    assert text_alignment(images, texts[:1]) == pytest.approx(0.6)


def test_auc_counts_pairs_and_halves_ties():
    positive, negative = [0.9, 0.5, 0.5], [0.5, 0.1]
    wins = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    assert auc(positive, negative) == pytest.approx(wins / 6)
    assert auc([2.0], [1.0]) == 1.0
    assert auc([1.0], [2.0]) == 0.0


def test_reach_is_the_share_of_the_way_from_floor_to_ceiling():
    assert reach(0.78, floor=-0.02, ceiling=0.98) == pytest.approx(0.8)
    with pytest.raises(ValueError, match="ceiling must be above floor"):
        reach(0.5, floor=1.0, ceiling=1.0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mmd(np.zeros(3), np.zeros((1, 3))), "x must be features"),
        (lambda: mmd(np.zeros((2, 3)), np.zeros((2, 4))), "one width"),
        (lambda: mmd(np.zeros((2, 3)), np.zeros((2, 3)), degree=0), "degree"),
        (lambda: kid(np.zeros((1, 3)), np.zeros((2, 3))), "n >= 2"),
        (lambda: frechet(np.zeros((2, 3)), np.zeros((1, 3))), "y must be features"),
        (lambda: text_alignment(np.ones((3, 2)), np.ones((2, 2))), "one per image"),
        (lambda: auc([], [1.0]), "both kinds"),
    ],
)
def test_bad_shapes_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_every_score_is_defined_under_its_own_name():
    assert all(name == score.name and score.definition for name, score in SCORES.items())


def test_diversity_is_what_different_rows_lack_of_being_alike():
    rows = features(4, 3, 0)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = [1 - a @ b for a, b in itertools.combinations(unit, 2)]
    assert diversity(rows) == pytest.approx(np.mean(pairs), rel=1e-12)
    assert diversity(np.ones((3, 2))) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="drawn"):
        diversity(rows[:1])
