"""Merged LoRA: the mean of the products, by hand and against numpy."""

import numpy as np
import torch

from perdure.methods import Kept, build


def task(concept: str, A: list[list[float]], B: list[list[float]]) -> Kept:
    return Kept((concept,), {"k/A": torch.tensor(A), "k/B": torch.tensor(B)})


ONE = task("rex", [[1.0], [2.0]], [[3.0, -1.0]])  # [[3, -1], [6, -2]]
TWO = task("ada", [[0.0], [4.0]], [[1.0, 1.0]])  # [[0, 0], [4, 4]]


def test_it_is_the_mean_of_the_products_over_all_tasks() -> None:
    method = build("lora-merged", rank=1)
    assert method.mix([ONE], ["rex"])["k"].tolist() == [[3.0, -1.0], [6.0, -2.0]]
    for spoken in ([], ["rex"], ["rex", "ada"]):
        assert method.mix([ONE, TWO], spoken)["k"].tolist() == [[1.5, -0.5], [5.0, 1.0]]


def test_it_is_neither_the_sum_nor_the_product_of_mean_factors() -> None:
    # mean A = [[0.5], [3]], mean B = [[2, 0]]: their product is [[1, 0], [6, 0]]
    mean = build("lora-merged", rank=1).mix([ONE, TWO], [])["k"].tolist()
    assert mean != [[1.0, 0.0], [6.0, 0.0]] and mean != [[3.0, -1.0], [10.0, 2.0]]


def test_many_random_tasks_agree_with_numpy_in_float64() -> None:
    rng = np.random.default_rng(0)
    factors = [(rng.normal(size=(6, 3)), rng.normal(size=(3, 5))) for _ in range(7)]
    kept = [
        Kept((f"c{i}",), {"k/A": torch.tensor(A).float(), "k/B": torch.tensor(B).float()})
        for i, (A, B) in enumerate(factors)
    ]
    expected = np.mean([A @ B for A, B in factors], axis=0)
    merged = build("lora-merged", rank=3).mix(kept, [])["k"]
    assert np.allclose(merged, expected, atol=1e-5)
    assert build("lora-merged").mix([], []) == {}


def test_removing_a_task_leaves_the_mean_of_the_rest() -> None:
    method = build("lora-merged", rank=1)
    method.check_removable([ONE, TWO], "rex")
    assert method.mix([TWO], [])["k"].tolist() == [[0.0, 0.0], [4.0, 4.0]]
