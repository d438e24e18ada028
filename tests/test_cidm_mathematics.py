"""CIDM's R1, R2 and both forms of its aggregation, against numbers worked out without it."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from perdure.adapters import Prompts
from perdure.methods import Kept, build
from perdure.methods.cidm import CIDMLearner, psi

# Two layers, two past tasks of rank 1.
SHAPES = {"k": (2, 2), "v": (3, 2)}


def task(name: str, A: Sequence[float], A_v: Sequence[float], B: Sequence[float]) -> Kept:
    tensors = {
        "k/A": torch.tensor(A)[:, None],
        "k/B": torch.tensor(B)[None, :],
        "v/A": torch.tensor(A_v)[:, None],
        "v/B": torch.tensor(B)[None, :],
        f"encoded/{name}": torch.tensor([3.0, 4.0] if name == "rex" else [0.0, 2.0]),
    }
    return Kept((name,), tensors)


PAST = [
    task("rex", [1.0, -2.0], [1.0, 0.0, 1.0], [3.0, 4.0]),
    task("ada", [0.0, 1.0], [0.0, 2.0, 0.0], [0.0, 1.0]),
]


def learner(past: Sequence[Kept] = PAST, **config: object) -> CIDMLearner:
    method = build("cidm", **{"rank": 1, "shared": 1, **config})
    made = method.start(SHAPES, past, {"bo": torch.ones(3)}, torch.Generator().manual_seed(0))
    assert isinstance(made, CIDMLearner)
    with torch.no_grad():
        for delta, A in zip(
            made.layer_deltas().values(), ([2.0, -1.0], [1.0, 1.0, 0.0]), strict=True
        ):
            delta.A.copy_(torch.tensor(A)[:, None])
            delta.B.copy_(torch.tensor([[1.0, 2.0]]))
    return made


def test_r1_is_the_sum_of_the_absolute_products_of_every_past_a_with_the_new_one() -> None:
    # k: rex [1, -2] x [2, -1]: (1 + 2)(2 + 1) = 9; ada 1 * 3 = 3
    # v: rex (1 + 0 + 1)(1 + 1 + 0) = 4;           ada 2 * 2 = 4
    assert learner().specific().item() == 20.0
    assert learner(past=[]).specific().item() == 0.0
    # The code's mean: over 2 layers, 2 tasks, and 4 or 9 entries.
    mean = (12 / 4 + 8 / 9) / 4
    assert learner(orthogonality="code").specific().item() == pytest.approx(mean)


def test_the_gradient_of_r1_is_that_of_the_plain_formula() -> None:
    made = learner()
    made.specific().backward()
    delta = made.layer_deltas()["k"]
    A = delta.A.detach().clone().requires_grad_(True)
    plain = sum((kept.tensors["k/A"] @ A.T).abs().sum() for kept in PAST)
    assert isinstance(plain, Tensor)
    plain.backward()
    assert torch.equal(delta.A.grad, A.grad)
    # sign(A_g) times the sums of the past's absolute values: 3 + 1
    assert delta.A.grad.flatten().tolist() == [4.0, -4.0]


def dense(made: CIDMLearner, layer: str, past: Sequence[Kept] = PAST) -> list[np.ndarray]:
    """dW_i of the past and of the new task."""
    old = [(k.tensors[f"{layer}/A"] @ k.tensors[f"{layer}/B"]).numpy() for k in past]
    return [*old, made.layer_deltas()[layer].dense().detach().numpy()]


def test_r2_is_the_squared_distance_of_every_delta_from_the_shared_rows() -> None:
    made = learner()
    made.begin_step(torch.Generator())
    by_hand = 0.0
    for shared, layer in zip(made.shared, SHAPES, strict=True):
        W = shared.W.numpy().astype(np.float64)
        for dW in dense(made, layer):
            H, *_ = np.linalg.lstsq(W.T, dW.T.astype(np.float64), rcond=None)
            by_hand += float(np.square(dW - H.T @ W).sum())
    assert made.common().item() == pytest.approx(by_hand, rel=1e-5)
    assert made.penalty().item() == pytest.approx(0.1 * 20 + by_hand, rel=1e-5)


def test_the_alternation_never_raises_r2_and_ends_at_the_best_shared_rows() -> None:
    made = learner()
    with torch.no_grad():  # far from the best: the rows least used
        for shared in made.shared:
            shared.W.copy_(torch.tensor([[0.8, -0.6]]))
    values = []
    for _ in range(60):
        made.begin_step(torch.Generator())
        values.append(made.common().item())
    assert all(b <= a * (1 + 1e-5) for a, b in pairwise(values))
    assert values[-1] < values[0]
    best = 0.0  # Eckart-Young: what a rank of one leaves of the stacked deltas
    for layer in SHAPES:
        s = np.linalg.svd(np.concatenate(dense(made, layer)), compute_uv=False)
        best += float(np.square(s[1:]).sum())
    assert values[-1] == pytest.approx(best, rel=1e-4)


def test_r2_by_hand_for_fixed_h_and_w() -> None:
    made = learner()
    shared = made.shared[0]
    with torch.no_grad():
        shared.W.copy_(torch.tensor([[0.6, 0.8]]))
        shared.H.copy_(torch.tensor([[1.0], [0.0]]))
        shared.past.zero_()
    # dW = [[2, 4], [-1, -2]], H W = [[.6, .8], [0, 0]]
    value = 1.4**2 + 3.2**2 + 1 + 4
    assert shared(made.layer_deltas()["k"]).item() == pytest.approx(value)


def test_the_first_task_of_a_rank_within_the_shared_rows_has_no_penalty() -> None:
    made = learner(past=[])
    for _ in range(3):
        made.begin_step(torch.Generator())
    assert made.penalty().item() == pytest.approx(0.0, abs=1e-9)
    fresh = build("cidm", rank=1, shared=1).start(
        SHAPES, [], {"bo": torch.ones(3)}, torch.Generator()
    )
    fresh.begin_step(torch.Generator())  # A is zero: nothing to lean on, and W_* stays
    assert isinstance(fresh, CIDMLearner)
    for shared in fresh.shared:
        assert shared.W.norm().item() == pytest.approx(1.0)


def test_a_step_of_the_optimiser_leaves_the_shared_rows_alone() -> None:
    made = learner()
    groups = made.groups()["deltas"]
    before = [shared.W.clone() for shared in made.shared]
    optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.1)
    made.penalty().backward()
    optimizer.step()
    assert all(torch.equal(a, shared.W) for a, shared in zip(before, made.shared, strict=True))


def test_psi_by_hand() -> None:
    m = torch.tensor([3.0, -4.0])
    assert psi(m, "paper").tolist() == pytest.approx([9 / 5, 16 / 5])
    assert psi(m, "code").tolist() == pytest.approx([81 / 337, 256 / 337])
    assert psi(torch.zeros(2), "paper").tolist() == [0.0, 0.0]
    assert psi(torch.zeros(2), "code").tolist() == [0.0, 0.0]


STATES = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-2.0, -2.0]])


def test_both_forms_of_the_aggregation_by_hand() -> None:
    # paper: <c, [3, 4]> is 3, 4, -14 and <c, [0, 2]> is 0, 2, -4: m = [4, 2], ||m|| = sqrt(20)
    w = [16 / math.sqrt(20), 4 / math.sqrt(20)]
    mixed = build("cidm", aggregation="paper").mix(PAST, [], STATES)
    for layer in SHAPES:
        dW = dense(learner(), layer)
        assert np.allclose(mixed[layer].numpy(), w[0] * dW[0] + w[1] * dW[1], rtol=1e-6)
    # code: cosines 0.8 (of [0, 1]) and 1: 0.4096 and 1, which sum to one, times 0.8
    w = [0.8 * 0.4096 / 1.4096, 0.8 / 1.4096]
    mixed = build("cidm", aggregation="code").mix(PAST, [], STATES)
    for layer in SHAPES:
        dW = dense(learner(), layer)
        assert np.allclose(mixed[layer].numpy(), w[0] * dW[0] + w[1] * dW[1], rtol=1e-5)


def test_a_task_of_two_concepts_is_their_mean_in_the_paper_and_the_mean_cosine_in_the_code() -> (
    None
):
    both = [Kept(("a", "b"), {**PAST[0].tensors, "encoded/b": torch.tensor([1.0, 0.0])}), PAST[1]]
    # paper: e = [2, 2]: m = [2, 2]
    mixed = build("cidm", aggregation="paper").mix(both, [], STATES)
    dW = dense(learner(), "k")
    w = 4 / math.sqrt(8)
    assert np.allclose(mixed["k"].numpy(), w * (dW[0] + dW[1]), rtol=1e-6)
    # code: (0.8 + 1) / 2 = 0.9 and 1
    mixed = build("cidm", aggregation="code").mix(both, [], STATES)
    w_0 = 0.9**4 / (0.9**4 + 1)
    assert np.allclose(mixed["k"].numpy(), 0.8 * (w_0 * dW[0] + (1 - w_0) * dW[1]), rtol=1e-5)


def test_what_is_seen_of_a_concept_is_kept() -> None:
    made = learner()
    states = torch.arange(12.0).view(2, 3, 2)
    made.see(Prompts(states=states, spoken=((("bo", 1),), (("bo", 2),)), ends=(2, 2)))
    kept = build("cidm").keep(made)
    assert kept["encoded/bo"].tolist() == [6.0, 7.0]
    assert Kept(("bo",), kept).factors().keys() == SHAPES.keys()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("gamma1", -1),
        ("gamma2", math.nan),
        ("shared", 0),
        ("aggregation", "both"),
        ("layerwise_tokens", 1),
    ],
)
def test_an_option_that_does_not_fit_is_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"cidm: {option} is {value!r}"):
        build("cidm", **{option: value})
