"""Masked low-rank deltas: the mask's gradient, its noise and its bits."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perdure.adapters import MaskedLowRank, masked_product, pack_bits, straight_through, unpack_bits
from perdure.hosts.frozen import Layer, attached, fold_into


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def delta(d_out: int = 7, d_in: int = 5, *, bias: float = 0.0, tau: float = 1.0) -> MaskedLowRank:
    made = MaskedLowRank(
        d_out, d_in, 2, mask_rank=3, hidden=4, bias=bias, tau=tau, generator=generator()
    )
    nn.init.normal_(made.factored.A, generator=generator(1))
    return made


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_the_masks_gradient_is_that_of_the_sigmoid_whatever_the_mask(tau: float) -> None:
    # d/dl of 1[l + g > 0] is taken to be d/dl sigmoid(l / tau) = s (1 - s) / tau; g has no part.
    values, noise, weights = [-2.0, -0.5, 0.0, 0.7], [3.0, 0.0, 0.0, -5.0], [1.0, -2.0, 3.0, 0.5]
    logits = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    M = straight_through(logits, torch.tensor(noise, dtype=torch.float64), tau)
    assert M.tolist() == [1.0, 0.0, 0.0, 0.0]  # 1, -0.5, 0, -4.3 above zero?
    (M * torch.tensor(weights)).sum().backward()
    assert logits.grad is not None
    for value, weight, slope in zip(values, weights, logits.grad.tolist(), strict=True):
        s = sigmoid(value / tau)
        assert slope == pytest.approx(weight * s * (1 - s) / tau, rel=1e-12)


def test_the_mask_is_zeros_and_ones_to_the_bit() -> None:
    M = straight_through(torch.linspace(-30, 30, 10001, requires_grad=True), None, 0.3)
    assert set(M.tolist()) == {0.0, 1.0}


def test_the_gradients_of_a_masked_delta_are_the_ones_worked_out_by_hand() -> None:
    # L = sum(G (.) (AB (.) M)):  dA = (G (.) M) B^T,  dB = A^T (G (.) M),
    # dl = G (.) AB (.) s (1 - s) / tau with s = sigmoid(l / tau), also where M is 0.
    made, G = delta(tau=2.0), torch.randn(7, 5, generator=generator(2))
    logits = made.logits().detach().requires_grad_()
    made.logits = lambda: logits  # type: ignore[method-assign]
    (G * made.dense()).sum().backward()
    A, B = made.factored.A.detach(), made.factored.B.detach()
    M = (logits.detach() > 0).float()
    assert 0 < M.sum() < M.numel()
    s = 1 / (1 + torch.exp(-logits.detach() / 2.0))
    for got, wanted in (
        (made.factored.A.grad, (G * M) @ B.T),
        (made.factored.B.grad, A.T @ (G * M)),
        (logits.grad, G * (A @ B) * s * (1 - s) / 2.0),
    ):
        assert got is not None and torch.allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_the_logits_are_the_scaled_product_of_two_mlps() -> None:
    made = delta(bias=-1.5).mask_logits
    weights = {name: p.numpy(force=True).astype(float) for name, p in made.named_parameters()}
    U = np.maximum(weights["e_u"] @ weights["u_in"].T, 0) @ weights["u_out"].T
    V = np.maximum(weights["e_v"] @ weights["v_in"].T, 0) @ weights["v_out"].T
    assert U.shape == (7, 3) and V.shape == (5, 3)
    assert np.allclose(made().numpy(force=True), U @ V.T / 3**0.5 - 1.5, atol=1e-5)


def test_the_logits_start_about_the_bias_with_deviation_one() -> None:
    made = MaskedLowRank(
        400, 300, 1, mask_rank=16, hidden=64, bias=-2.0, tau=1.0, generator=generator()
    )
    logits = made.logits().detach()
    assert float(logits.mean()) == pytest.approx(-2.0, abs=0.2)
    assert float(logits.std()) == pytest.approx(1.0, abs=0.2)


def test_the_noise_is_logistic_and_the_masks_density_is_the_sigmoid_of_the_logit() -> None:
    made = MaskedLowRank(
        300, 300, 1, mask_rank=1, hidden=1, bias=0.0, tau=1.0, generator=generator()
    )
    made.draw(generator(5))
    assert made.noise is not None
    assert float(made.noise.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(made.noise.var()) == pytest.approx(math.pi**2 / 3, rel=0.02)
    for logit in (-2.0, 0.0, 1.0):
        M = straight_through(torch.full((300, 300), logit), made.noise, 1.0)
        assert float(M.mean()) == pytest.approx(sigmoid(logit), abs=0.005)


def test_noise_follows_from_the_steps_generator_and_counts_in_training_alone() -> None:
    made = delta()
    still = made.mask().detach()
    made.draw(generator(3))
    noisy = made.mask().detach()
    assert not torch.equal(noisy, still)
    assert torch.equal(made.mask().detach(), noisy)  # one step, one mask
    made.draw(generator(4))
    assert not torch.equal(made.mask().detach(), noisy)
    made.draw(generator(3))
    assert torch.equal(made.mask().detach(), noisy)
    kept = made.factors()["mask"]
    made.eval()
    assert torch.equal(made.mask().detach(), still)
    assert torch.equal(kept, made.factors()["mask"])
    assert torch.equal(unpack_bits(kept, (7, 5)).float(), still)


def test_noise_and_mlps_take_their_randomness_from_the_generator_alone() -> None:
    torch.manual_seed(1)
    one = delta()
    torch.manual_seed(2)
    two = delta()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    shared = generator(9)
    one.draw(shared)
    first = one.noise
    one.draw(shared)
    assert first is not None and one.noise is not None and not torch.equal(first, one.noise)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 4), (3, 3), (7, 5), (16, 8)])
def test_packed_bits_come_back_and_take_an_eighth(shape: tuple[int, int]) -> None:
    mask = torch.rand(shape, generator=generator()) < 0.4
    packed = pack_bits(mask)
    assert packed.dtype == torch.uint8 and packed.numel() == math.ceil(mask.numel() / 8)
    assert torch.equal(unpack_bits(packed, shape), mask)
    for fill in (torch.ones, torch.zeros):
        assert torch.equal(
            unpack_bits(pack_bits(fill(shape, dtype=torch.bool)), shape), fill(shape).bool()
        )


def test_the_first_entry_is_the_lowest_bit() -> None:
    mask = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 1, 1, 0]]).bool()
    assert pack_bits(mask).tolist() == [1 + 8 + 128, 1]


def test_bits_of_another_layer_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2,\) of torch.uint8.*\(5, 5\) has \(4,\)"):
        unpack_bits(pack_bits(torch.ones(3, 4).bool()), (5, 5))
    with pytest.raises(ValueError, match="torch.float32"):
        unpack_bits(torch.ones(1), (2, 2))


def test_what_is_kept_rebuilds_the_delta_to_the_bit() -> None:
    made = delta().eval()
    factors = made.factors()
    assert sorted(factors) == ["A", "B", "mask"]
    assert torch.equal(masked_product(**factors), made.dense().detach())


def test_folding_equals_the_masked_forward() -> None:
    made = delta().eval()
    layer = nn.Linear(5, 7).requires_grad_(False)
    pristine = {"k": layer.weight.detach().clone()}
    x = torch.randn(3, 4, 5, generator=generator(8))
    with attached({"k": Layer(layer)}, {"k": made}), torch.no_grad():
        adapted = layer(x)
    fold_into({"k": Layer(layer)}, pristine, {"k": masked_product(**made.factors())})
    assert float((layer(x) - adapted).norm() / adapted.norm()) < 1e-6


def test_the_delta_is_fp32_and_its_mask_the_same_within_bf16_autocast() -> None:
    made = delta()
    with torch.autocast("cpu", torch.bfloat16):
        inside: Tensor = made.dense()
    assert inside.dtype == torch.float32 and torch.equal(inside, made.dense())
