"""EWC against numbers computed by hand (see docs/methods/ewc.md)."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perdure.hosts.frozen import Layer, attached
from perdure.methods import Kept, build
from perdure.methods.ewc import EWCLearner

SHAPES = {"k": (2, 2)}


def task(dW: list[list[float]], F: list[list[float]]) -> Kept:
    return Kept(("rex",), {"k/dW": torch.tensor(dW), "k/F": torch.tensor(F)})


def learner(past: list[Kept], penalty: float = 1.0) -> EWCLearner:
    made = build("ewc", penalty=penalty).start(
        SHAPES, past, {"ada": torch.ones(2)}, torch.Generator()
    )
    assert isinstance(made, EWCLearner)
    return made


def moved(past: list[Kept], by: list[list[float]], penalty: float = 1.0) -> EWCLearner:
    made = learner(past, penalty)
    with torch.no_grad():
        made.layer_deltas()["k"].get_parameter("dW").add_(torch.tensor(by))
    return made


PAST = task([[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.5], [0.0, 2.0]])


def test_the_penalty_is_half_lambda_times_the_weighted_square_of_the_move() -> None:
    # moved by [[2, -2], [7, 1]]: 1*4 + 0.5*4 + 0*49 + 2*1 = 8; half of it 4; times 10
    made = moved([PAST], [[2.0, -2.0], [7.0, 1.0]], penalty=10.0)
    assert made.forgetting().item() == 4.0
    assert made.penalty().item() == 40.0


def test_its_gradient_is_lambda_f_times_the_move() -> None:
    made = moved([PAST], [[2.0, -2.0], [7.0, 1.0]], penalty=10.0)
    made.penalty().backward()
    grad = made.layer_deltas()["k"].get_parameter("dW").grad
    assert grad.tolist() == [[20.0, -10.0], [0.0, 20.0]]


def test_there_is_no_penalty_at_the_first_task_nor_where_it_starts_nor_with_lambda_zero() -> None:
    assert moved([], [[5.0, 5.0], [5.0, 5.0]]).penalty().item() == 0.0
    assert learner([PAST]).penalty().item() == 0.0
    assert moved([PAST], [[2.0, -2.0], [7.0, 1.0]], penalty=0).penalty().item() == 0.0


def losses(layer: nn.Linear, xs: Tensor, ys: Tensor):
    """-log N(y; W x, 1) without its constant, a picture at a time."""
    return ((layer(x) - y).square().sum() / 2 for x, y in zip(xs, ys, strict=True))


def test_the_fisher_of_a_linear_gaussian_is_the_one_worked_out_by_hand() -> None:
    # W = 0, dW = [[1, 0], [0, 1]]. The gradient of |W x - y|^2 / 2 is (W x - y) x^T.
    # x = (1, 2), y = (0, 0): r = (1, 2): [[1, 2], [2, 4]], squared [[1, 4], [4, 16]]
    # x = (3, 0), y = (0, 1): r = (3, -1): [[9, 0], [-3, 0]], squared [[81, 0], [9, 0]]
    # mean [[41, 2], [6.5, 8]]; with the earlier tasks' [[1, 0.5], [0, 2]] it is the sum.
    layer = nn.Linear(2, 2, bias=False).requires_grad_(False)
    nn.init.zeros_(layer.weight)
    xs, ys = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    for past, expected in (
        ([], [[41.0, 2.0], [6.5, 8.0]]),
        ([task([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.5], [0.0, 2.0]])], [[42.0, 2.5], [6.5, 10.0]]),
    ):
        made = learner(past)
        if not past:
            made.layer_deltas()["k"].load_state_dict({"dW": torch.eye(2)})
        with attached({"k": Layer(layer)}, made.layer_deltas()):
            made.look_back(losses(layer, xs, ys))
        assert made.information()["k"].tolist() == expected
        assert build("ewc").keep(made)["k/F"].tolist() == expected


def test_the_fisher_tends_to_the_covariance_of_the_inputs() -> None:
    # For y = W x + noise of variance 1 the Fisher of W_ij is E[x_j^2], whatever i and W.
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(2, 2, bias=False).requires_grad_(False)
    deviations = torch.tensor([0.5, 2.0])
    xs = torch.randn(4000, 2, generator=generator) * deviations
    ys = layer(xs) + torch.randn(4000, 2, generator=generator)
    made = learner([])
    with attached({"k": Layer(layer)}, made.layer_deltas()):
        made.look_back(losses(layer, xs, ys))
    assert np.allclose(made.information()["k"], [[0.25, 4.0], [0.25, 4.0]], rtol=0.15)


def test_a_loss_that_does_not_reach_a_layer_says_nothing_of_it() -> None:
    made = learner([])
    made.look_back([torch.ones((), requires_grad=True) * 2])
    assert made.information()["k"].tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_keeping_before_looking_back_is_refused() -> None:
    with pytest.raises(ValueError, match="call look_back"):
        build("ewc").keep(learner([]))


def test_a_large_lambda_holds_the_important_weight_and_frees_the_other() -> None:
    """Minimum of (w - 3)^2/2 + lambda/2 F (w - 1)^2 is (3 + lambda F) / (1 + lambda F)."""
    made = learner([PAST], penalty=4.0)
    dW = made.layer_deltas()["k"].get_parameter("dW")
    optimizer = torch.optim.SGD([dW], lr=0.05)
    for _ in range(500):
        optimizer.zero_grad()
        ((dW - 3).square().sum() / 2 + made.penalty()).backward()
        optimizer.step()
    old, stiff = np.array([[1.0, 2.0], [3.0, 4.0]]), 4 * np.array([[1.0, 0.5], [0.0, 2.0]])
    assert np.allclose(dW.detach(), (3 + stiff * old) / (1 + stiff), atol=1e-4)
