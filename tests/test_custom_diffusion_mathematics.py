"""Sequential Custom Diffusion: dense deltas that go on, by hand."""

import torch
from torch import nn

from perdure.hosts.frozen import Layer, attached
from perdure.methods import Kept, build

SHAPES = {"k": (2, 3)}


def task(dW: list[list[float]], concept: str = "rex") -> Kept:
    return Kept((concept,), {"k/dW": torch.tensor(dW)})


def test_the_first_task_starts_at_zero_and_the_next_where_the_last_ended() -> None:
    method, rows = build("custom-diffusion"), {"bo": torch.ones(3)}
    first = method.start(SHAPES, [], rows, torch.Generator())
    assert first.norm() == 0.0
    one, two = task([[1.0, 2, 3], [4, 5, 6]]), task([[6.0, 5, 4], [3, 2, 1]], "ada")
    third = method.start(SHAPES, [one, two], rows, torch.Generator())
    assert third.layer_deltas()["k"].dense().tolist() == [[6, 5, 4], [3, 2, 1]]
    assert method.mix([one, two], ["rex"])["k"].tolist() == [[6, 5, 4], [3, 2, 1]]
    assert method.mix([], []) == {}


def test_a_step_of_gradient_descent_is_the_one_worked_out_by_hand() -> None:
    # W = [[1, 0, 0], [0, 1, 0]], dW = [[1, 1, 1], [0, 0, 0]], x = (1, 2, 3): y = (7, 2).
    # L = |y - (5, 3)|^2 / 2: dL/ddW = (2, -1) x^T = [[2, 4, 6], [-1, -2, -3]]; a step of 0.1.
    layer = nn.Linear(3, 2, bias=False).requires_grad_(False)
    layer.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 0]]))
    method = build("custom-diffusion")
    past = [task([[1.0, 1, 1], [0, 0, 0]])]
    learner = method.start(SHAPES, past, {"bo": torch.ones(3)}, torch.Generator())
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
    with attached({"k": Layer(layer)}, learner.layer_deltas()):
        y = layer(torch.tensor([1.0, 2.0, 3.0]))
        assert y.tolist() == [7.0, 2.0]
        ((y - torch.tensor([5.0, 3.0])).square().sum() / 2).backward()
        optimizer.step()
    expected = torch.tensor([[0.8, 0.6, 0.4], [0.1, 0.2, 0.3]])
    assert torch.allclose(method.keep(learner)["k/dW"], expected)
    assert past[0].tensors["k/dW"].tolist() == [[1, 1, 1], [0, 0, 0]]
