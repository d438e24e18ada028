"""Objectives against values by hand."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch

from perdure.errors import PerdureError
from perdure.hosts.diffusion.objective import Epsilon, Flow, Velocity, of_schedule

X = torch.tensor([[[[2.0, -4.0]]], [[[2.0, -4.0]]], [[[2.0, -4.0]]]])
NOISE = torch.tensor([[[[-2.0, 8.0]]], [[[-2.0, 8.0]]], [[[-2.0, 8.0]]]])


def test_flow_goes_in_a_straight_line_from_the_picture_to_the_noise() -> None:
    noised = Flow().noised(X, NOISE, torch.tensor([0.0, 250.0, 1000.0]))
    assert noised.flatten(1).tolist() == [[2.0, -4.0], [1.0, -1.0], [-2.0, 8.0]]
    assert torch.equal(Flow(scale=4).noised(X, NOISE, torch.tensor([0.0, 1.0, 4.0])), noised)


def test_flow_predicts_the_direction_at_every_time() -> None:
    target = Flow().target(X, NOISE, torch.tensor([0.0, 250.0, 1000.0]))
    assert target.flatten(1).tolist() == [[-4.0, 12.0]] * 3


def test_the_noised_latents_of_a_flow_change_by_its_target() -> None:
    flow, t = Flow(), torch.tensor([100.0, 400.0, 700.0])
    later = flow.noised(X, NOISE, t + 100)
    moved = flow.noised(X, NOISE, t) + 0.1 * flow.target(X, NOISE, t)
    assert torch.allclose(later, moved, atol=1e-6)


def test_uniform_times_are_the_places_themselves() -> None:
    assert Flow().times(torch.tensor([0.0, 0.25, 0.5])).tolist() == [0.0, 250.0, 500.0]


def test_a_shift_moves_times_towards_noise_and_leaves_the_ends() -> None:
    times = Flow(shift=3.0).times(torch.tensor([0.0, 0.25, 0.5, 1.0]))
    assert times.tolist() == [0.0, 500.0, 750.0, 1000.0]  # 3 s / (1 + 2 s)


def test_logit_normal_times_are_the_sigmoid_of_normal_quantiles() -> None:
    places = [0.5, NormalDist().cdf(1.0), NormalDist().cdf(-2.0)]
    times = Flow(logit_normal=True).times(torch.tensor(places, dtype=torch.float64))
    expected = [500.0, 1000 / (1 + math.exp(-1)), 1000 / (1 + math.exp(2))]
    assert times.tolist() == pytest.approx(expected, rel=1e-9)


def test_logit_normal_times_are_shifted_afterwards() -> None:
    flow = Flow(logit_normal=True, shift=3.0)
    assert flow.times(torch.tensor([0.5])).tolist() == [750.0]


def test_the_smallest_place_is_a_time_too() -> None:
    assert Flow(logit_normal=True, shift=3.0).times(torch.tensor([0.0])).tolist() == [0.0]


def test_a_place_that_was_rounded_to_one_is_the_last_time() -> None:
    place = (torch.tensor([7.0]) + torch.tensor([1 - 2**-24])) / 8
    assert place.tolist() == [1.0]
    assert Epsilon(torch.tensor([1.0, 0.36])).times(place).tolist() == [1]
    assert Flow(logit_normal=True, shift=3.0).times(place).tolist() == [1000.0]


def test_epsilon_and_velocity_by_hand() -> None:
    alphas = torch.tensor([1.0, 0.36])  # alpha 0.6, sigma 0.8
    for kind, wanted in ((Epsilon, [-2.0, 8.0]), (Velocity, [-2.8, 8.0])):
        objective = kind(alphas)
        assert objective.times(torch.tensor([0.0, 0.49, 0.5, 0.99])).tolist() == [0, 0, 1, 1]
        t = torch.tensor([1, 1, 1])
        noised = objective.noised(X, NOISE, t)
        assert noised[0].flatten().tolist() == pytest.approx([-0.4, 4.0], abs=1e-6)
        target = objective.target(X, NOISE, t)
        assert target[0].flatten().tolist() == pytest.approx(wanted, abs=1e-6)


def test_a_schedule_gives_the_objective_that_it_names() -> None:
    alphas = torch.tensor([1.0, 0.5])
    assert type(of_schedule(alphas, "epsilon")) is Epsilon
    assert type(of_schedule(alphas, "v_prediction")) is Velocity
    with pytest.raises(PerdureError, match="predicts 'sample'"):
        of_schedule(alphas, "sample")
