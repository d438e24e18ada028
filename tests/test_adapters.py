import pytest
import torch
import torch.nn.functional as F
from host_parts import layers_of
from torch import Tensor, nn

from perdure.adapters import FullRank, LowRank, Prompts, low_rank_sum
from perdure.hosts.frozen import Layer, attached, fold_into


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def relative(a: Tensor, b: Tensor) -> float:
    return float(((a - b).norm() / b.norm()).detach())


def trained(d_out: int = 24, d_in: int = 16, rank: int = 4, seed: int = 0) -> LowRank:
    delta = LowRank(d_out, d_in, rank, generator=generator(seed))
    nn.init.normal_(delta.A, generator=generator(seed + 100))
    return delta


def linear(d_out: int = 24, d_in: int = 16, bias: bool = True) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(d_in, d_out, bias=bias)


def test_low_rank_is_the_product_of_its_factors_by_hand() -> None:
    delta = LowRank(2, 3, 1, generator=generator())
    delta.continue_from(torch.tensor([[1.0], [-2.0]]), torch.tensor([[3.0, 0.0, 5.0]]))
    assert delta.dense().tolist() == [[3.0, 0.0, 5.0], [-6.0, 0.0, -10.0]]
    # dW @ (1, 1, 2) = (13, -26)
    assert delta(torch.tensor([1.0, 1.0, 2.0])).tolist() == [13.0, -26.0]


def test_low_rank_starts_at_zero_with_a_random_b_in_pefts_range() -> None:
    delta = LowRank(64, 400, 32, generator=generator())
    assert torch.count_nonzero(delta.dense()) == 0
    assert float(delta.B.detach().abs().max()) <= 1 / 20
    # a uniform number in +-b has the standard deviation b / sqrt(3)
    assert float(delta.B.detach().std()) == pytest.approx(1 / 20 / 3**0.5, rel=0.02)


def test_low_rank_takes_its_randomness_from_the_generator_alone() -> None:
    torch.manual_seed(5)
    first = LowRank(8, 8, 2, generator=generator(3))
    torch.manual_seed(6)
    assert torch.equal(first.B, LowRank(8, 8, 2, generator=generator(3)).B)
    assert not torch.equal(first.B, LowRank(8, 8, 2, generator=generator(4)).B)


@pytest.mark.parametrize("shape", [(16,), (5, 16), (2, 7, 16), (2, 3, 7, 16)])
def test_forward_is_x_times_dense_transposed_for_any_leading_shape(shape: tuple[int, ...]) -> None:
    full = FullRank(24, 16)
    nn.init.normal_(full.dW, generator=generator(9))
    x = torch.randn(shape, generator=generator(2))
    for delta in (trained(), full):
        y = delta(x)
        assert y.shape == (*shape[:-1], 24)
        assert relative(y, x @ delta.dense().T) < 1e-6


def test_dense_stays_fp32_and_exact_within_bf16_autocast() -> None:
    delta = trained()
    with torch.autocast("cpu", torch.bfloat16):
        inside, summed = delta.dense(), low_rank_sum([(delta.A, delta.B)])
        assert delta(torch.randn(3, 16)).dtype == torch.bfloat16
    assert inside.dtype == summed.dtype == torch.float32
    assert torch.equal(inside, delta.dense())
    assert torch.equal(summed, delta.dense())


def test_a_bf16_model_is_served_by_fp32_factors() -> None:
    layer, delta = linear().to(torch.bfloat16), trained()
    with attached({"l": Layer(layer)}, {"l": delta}):
        y = layer(torch.randn(3, 16, dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert delta.A.grad is not None and delta.A.grad.dtype == torch.float32


def test_factors_are_copies() -> None:
    delta = trained()
    factors = delta.factors()
    before = factors["A"].clone()
    with torch.no_grad():
        delta.A.add_(1.0)
    assert torch.equal(factors["A"], before)
    assert not factors["A"].requires_grad


def test_a_sum_over_tasks_is_the_sum_of_the_products_also_for_unequal_ranks() -> None:
    deltas = [trained(rank=rank, seed=rank) for rank in (1, 4, 7)]
    summed = low_rank_sum([(d.A, d.B) for d in deltas])
    assert not summed.requires_grad
    assert relative(summed, sum(d.A.double() @ d.B.double() for d in deltas)) < 1e-6


def test_continuing_with_another_rank_is_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(24, 4\).*\(24, 8\)"):
        LowRank(24, 16, 8, generator=generator()).continue_from(*trained().factors().values())


def test_attached_adds_and_afterwards_the_layer_is_as_before() -> None:
    layer, delta, x = linear(), trained(), torch.randn(5, 16)
    before = layer(x)
    with attached({"l": Layer(layer)}, {"l": delta}):
        assert relative(layer(x), before + x @ delta.dense().T) < 1e-6
        assert relative(layer(input=x), before + x @ delta.dense().T) < 1e-6
    assert torch.equal(layer(x), before)


def test_attached_lets_go_when_the_block_raises() -> None:
    layer, x = linear(), torch.randn(5, 16)
    before = layer(x)
    with pytest.raises(KeyboardInterrupt), attached({"l": Layer(layer)}, {"l": trained()}):
        raise KeyboardInterrupt
    assert torch.equal(layer(x), before)


def test_two_nested_attachments_add_up() -> None:
    layer, one, two, x = linear(), trained(seed=1), trained(seed=2), torch.randn(5, 16)
    expected = layer(x) + x @ (one.dense() + two.dense()).T
    with attached({"l": Layer(layer)}, {"l": one}), attached({"l": Layer(layer)}, {"l": two}):
        assert relative(layer(x), expected) < 1e-6


def test_attached_gives_gradients_to_the_delta_and_to_the_input() -> None:
    layer, delta = linear().requires_grad_(False), trained()
    x = torch.randn(5, 16, requires_grad=True)
    with attached({"l": Layer(layer)}, {"l": delta}):
        layer(x).sum().backward()
    ones = torch.ones(5, 24)
    assert x.grad is not None and delta.A.grad is not None and layer.weight.grad is None
    assert relative(x.grad, ones @ (layer.weight + delta.dense())) < 1e-6
    assert relative(delta.A.grad, ones.T @ (x @ delta.B.T)) < 1e-6


def test_folding_equals_the_adapted_forward_in_fp32() -> None:
    layer, delta, x = linear(), trained(), torch.randn(9, 16)
    with attached({"l": Layer(layer)}, {"l": delta}), torch.no_grad():
        adapted = layer(x)
    fold_into({"l": Layer(layer)}, {"l": layer.weight.detach().clone()}, {"l": delta.dense()})
    assert relative(layer(x), adapted) < 1e-6


def test_folding_twice_adds_once_and_folding_nothing_restores_the_base_to_the_bit() -> None:
    layers = {"a": linear(), "b": linear(8, 8)}
    pristine = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    dW = {"a": trained().dense()}
    fold_into(layers_of(layers), pristine, dW)
    once = layers["a"].weight.clone()
    fold_into(layers_of(layers), pristine, dW)
    assert torch.equal(layers["a"].weight, once)
    assert not torch.equal(once, pristine["a"])
    assert torch.equal(layers["b"].weight, pristine["b"])
    fold_into(layers_of(layers), pristine, {})
    assert torch.equal(layers["a"].weight, pristine["a"])


def test_folding_into_bf16_sums_in_fp32_and_rounds_once() -> None:
    layer = linear().to(torch.bfloat16)
    W_init, dW = torch.full((24, 16), 1.0), torch.full((24, 16), 0.0117)
    # 1 + 0.0117 = 1.0117 rounds to 1.015625 (steps of 2**-7, half way at 1.01171875: down to
    # 1.0078125); rounding dW to bf16 first gives 0.01171875 and a tie, which goes up to 1.015625.
    fold_into({"l": Layer(layer)}, {"l": W_init}, {"l": dW})
    assert layer.weight.dtype == torch.bfloat16
    assert layer.weight.unique().tolist() == [1.0078125]
    assert (W_init.bfloat16() + dW.bfloat16()).unique().tolist() == [1.015625]


def test_unknown_layers_and_wrong_shapes_are_named_and_nothing_is_written() -> None:
    layers = {"a": linear(), "b": linear()}
    pristine = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    dW = trained().dense()
    with pytest.raises(ValueError, match="no layer is named 'c'"):
        fold_into(layers_of(layers), pristine, {"c": dW})
    with (
        pytest.raises(ValueError, match="no layer is named 'c'"),
        attached(layers_of(layers), {"c": dW}),
    ):
        pass
    with pytest.raises(ValueError, match="dW of the layer 'b'.*\\(16, 24\\)"):
        fold_into(layers_of(layers), pristine, {"a": dW, "b": dW.T})
    with pytest.raises(ValueError, match="W_init of the layer 'b' is missing"):
        fold_into(layers_of(layers), {"a": pristine["a"]}, {"a": dW})
    with pytest.raises(ValueError, match="pass a clone"):
        fold_into(layers_of(layers), {**pristine, "b": layers["b"].weight}, {"a": dW})
    assert all(torch.equal(layers[name].weight, pristine[name]) for name in layers)


def test_full_rank_starts_at_zero_and_folds_what_it_holds() -> None:
    layer, full, x = linear(), FullRank(24, 16), torch.randn(4, 16)
    assert torch.count_nonzero(full.dense()) == 0
    nn.init.normal_(full.dW)
    expected = F.linear(x, layer.weight + full.dW, layer.bias)
    fold_into(
        {"l": Layer(layer)}, {"l": layer.weight.detach().clone()}, {"l": full.factors()["dW"]}
    )
    assert relative(layer(x), expected) < 1e-6


def test_a_concept_is_encoded_as_the_mean_of_the_states_at_its_tokens() -> None:
    states = torch.arange(12.0).view(2, 3, 2)
    prompts = Prompts(states=states, spoken=((("rex", 1),), (("ada", 0), ("rex", 2))), ends=(2, 2))
    encoded = prompts.encoded()
    assert encoded["rex"].tolist() == [6.0, 7.0]  # of [2, 3] and [10, 11]
    assert encoded["ada"].tolist() == [6.0, 7.0]
    assert list(encoded) == ["rex", "ada"]


CONVOLUTIONS = {
    "plain": {"kernel_size": 3, "padding": 1},
    "strided": {"kernel_size": 3, "stride": 2, "padding": 1},
    "spread": {"kernel_size": 3, "dilation": 2},
    "pointwise": {"kernel_size": 1, "bias": False},
    "grouped": {"kernel_size": 3, "groups": 2},
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_convolution_is_attached_and_folded_alike(kind: str) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, **CONVOLUTIONS[kind]).requires_grad_(False)
    delta = FullRank(6, layer.weight[0].numel())
    nn.init.normal_(delta.dW, generator=generator(1))
    x = torch.randn(2, 4, 9, 9, generator=generator(2))
    untouched = layer(x)
    with attached({"c": Layer(layer)}, {"c": delta}):
        adapted = layer(x)
        adapted.square().sum().backward()
    assert delta.dW.grad is not None and float(delta.dW.grad.norm()) > 0
    pristine = {"c": layer.weight.clone()}
    fold_into({"c": Layer(layer)}, pristine, {"c": delta.dense()})
    assert relative(layer(x), adapted) < 1e-6
    assert relative(adapted, untouched) > 0.1
    fold_into({"c": Layer(layer)}, pristine, {})
    assert torch.equal(layer(x), untouched)


def test_full_rank_continues_from_a_copy_and_refuses_another_shape() -> None:
    dW = torch.ones(2, 3)
    delta = FullRank(2, 3).continue_from(dW)
    dW.add_(1)
    assert torch.equal(delta.dense(), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(2, 3\): continue with the same layers"):
        delta.continue_from(torch.ones(3, 2))


def test_a_low_rank_deltas_squares_are_those_of_its_dense_product() -> None:
    generator = torch.Generator().manual_seed(0)
    delta = LowRank(5, 7, 3, generator=generator)
    delta.A.data.normal_(generator=generator)
    P = torch.randn(5, 7, generator=generator)
    assert torch.allclose(delta.square(), delta.dense().square().sum())
    plain = torch.autograd.grad((P * delta.dense()).square().sum(), [delta.A, delta.B])
    lean = torch.autograd.grad(delta.weighed_square(P), [delta.A, delta.B])
    assert all(torch.allclose(one, other) for one, other in zip(plain, lean, strict=True))


def test_the_graph_of_a_weighed_square_holds_nothing_of_the_layers_size() -> None:
    delta = LowRank(64, 48, 2, generator=torch.Generator().manual_seed(0))
    sizes: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        delta.weighed_square(torch.ones(64, 48)).backward()
    assert sizes and max(sizes) <= 64 * 2
