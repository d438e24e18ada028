"""Target layers that are some rows of a fused one, and deltas that see the text alone."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from perdure.adapters import LowRank, PromptDelta
from perdure.hosts.frozen import Frozen, Layer, acting, adding, attached
from perdure.methods.gated import GatedLowRank

D_IN, HEAD = 4, 3
TEXT = slice(2, 5)
PROMPT = 3
"""Where the text is in a sequence of 6 positions."""


class Fused(Frozen):
    """One linear layer that gives queries, keys and values; keys and values are its targets."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.device = torch.device("cpu")
        self.module = nn.Linear(D_IN, 3 * HEAD).requires_grad_(False)
        self.text = TEXT
        self.aim("keys-values")

    def named(self, targets: str) -> Mapping[str, Layer]:
        return {
            "k": Layer(self.module, "joined", slice(HEAD, 2 * HEAD)),
            "v": Layer(self.module, "joined", slice(2 * HEAD, 3 * HEAD)),
        }


@pytest.fixture
def host() -> Fused:
    return Fused()


def low_rank(seed: int, d_out: int = HEAD) -> LowRank:
    delta = LowRank(d_out, D_IN, 2, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        delta.A.normal_(generator=torch.Generator().manual_seed(seed + 1))
    return delta


def inputs(rows: int = 2) -> Tensor:
    return torch.randn(rows, 6, D_IN, generator=torch.Generator().manual_seed(5))


def test_a_slice_has_the_shape_of_its_own_rows(host: Fused) -> None:
    assert host.shapes == {"k": (HEAD, D_IN), "v": (HEAD, D_IN)}
    assert torch.equal(host.pristine["v"], host.module.weight[2 * HEAD :])


def test_folding_a_slice_changes_its_rows_alone_and_comes_back_to_the_bit(host: Fused) -> None:
    before = host.module.weight.clone()
    dW = torch.randn(HEAD, D_IN)
    host.fold({"k": dW})
    host.fold({"k": dW})  # from W_init, not twice
    assert torch.equal(host.module.weight[HEAD : 2 * HEAD], before[HEAD : 2 * HEAD] + dW)
    assert torch.equal(host.module.weight[:HEAD], before[:HEAD])
    assert torch.equal(host.module.weight[2 * HEAD :], before[2 * HEAD :])
    host.fold({"v": dW})
    assert torch.equal(host.module.weight[: 2 * HEAD], before[: 2 * HEAD])
    host.fold({})
    assert torch.equal(host.module.weight, before)


def test_a_delta_of_the_whole_layers_shape_does_not_fit_a_slice(host: Fused) -> None:
    before = host.module.weight.clone()
    with pytest.raises(ValueError, match=r"dW of the layer 'k' has the shape \(9, 4\)"):
        host.fold({"k": torch.zeros(3 * HEAD, D_IN)})
    assert torch.equal(host.module.weight, before)


def test_two_slices_of_one_layer_run_live_as_they_fold(host: Fused) -> None:
    deltas, x = {"k": low_rank(0), "v": low_rank(2)}, inputs()
    before = host.module(x)
    with host.attached(deltas):
        live = host.module(x)
    assert torch.equal(live[..., :HEAD], before[..., :HEAD])
    assert torch.equal(host.module(x), before)
    host.fold({name: delta.dense().detach() for name, delta in deltas.items()})
    assert torch.allclose(live, host.module(x), atol=1e-6)
    assert not torch.allclose(live[..., HEAD:], before[..., HEAD:], atol=1e-2)


def test_a_slices_delta_gets_its_gradient(host: Fused) -> None:
    delta = low_rank(0)
    with host.attached({"v": delta}):
        host.module(inputs())[..., 2 * HEAD :].sum().backward()
    expected = inputs().flatten(0, 1).sum(dim=0)
    assert delta.A.grad is not None
    assert torch.allclose(delta.A.grad[0], delta.B.detach() @ expected, atol=1e-5)


class Positional(LowRank):
    """It counts the positions that it is shown."""

    positional = True
    shown: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.shown = x.detach()
        return super().forward(x)


def positional(seed: int) -> Positional:
    delta = Positional(HEAD, D_IN, 2, generator=torch.Generator().manual_seed(seed))
    nn.init.ones_(delta.A)
    return delta


def test_a_gated_delta_is_positional() -> None:
    assert GatedLowRank.positional and not LowRank.positional


@torch.no_grad()
def test_a_positional_delta_sees_the_texts_positions_of_a_joined_layer_alone(host: Fused) -> None:
    delta, x = positional(0), inputs()
    before = host.module(x)
    with host.attached({"v": delta}):
        more = host.module(x)
    assert torch.equal(delta.shown, x[:, TEXT])
    changed = more != before
    assert changed[:, TEXT, 2 * HEAD :].all()
    assert changed.sum() == 2 * 3 * HEAD
    own = delta.dense()
    assert torch.allclose((more - before)[:, TEXT, 2 * HEAD :], x[:, TEXT] @ own.T, atol=1e-6)


@torch.no_grad()
def test_where_the_text_is_may_change_from_pass_to_pass(host: Fused) -> None:
    delta, x = positional(0), inputs()
    with host.attached({"k": delta}):
        host.text = slice(0, 1)
        host.module(x)
    assert torch.equal(delta.shown, x[:, :1])


@torch.no_grad()
@pytest.mark.parametrize("reads", ["text", "prompt"])
def test_a_positional_delta_sees_the_prompt_of_a_layer_that_reads_text_alone(
    reads: str, host: Fused
) -> None:
    delta, x = positional(0), inputs()
    layers = {"k": Layer(host.module, reads, slice(HEAD, 2 * HEAD))}  # type: ignore[arg-type]
    with attached(layers, {"k": delta}, lambda: TEXT):
        host.module(x)
    assert torch.equal(delta.shown, x[:, :PROMPT] if reads == "text" else x)


@torch.no_grad()
def test_an_ordinary_delta_acts_on_text_and_picture_of_a_joined_layer(host: Fused) -> None:
    x = inputs()
    before = host.module(x)
    with host.attached({"k": low_rank(0)}):
        assert (host.module(x) != before)[..., HEAD : 2 * HEAD].all()


def prompt_delta(gate: Tensor, layer: str = "k") -> tuple[PromptDelta, Tensor]:
    own = low_rank(3)
    return PromptDelta({layer: (own.A.detach(), own.B.detach())}, gate), own.dense().detach()


@torch.no_grad()
def test_what_acts_in_prompts_touches_the_text_of_the_prompts_rows_by_its_gate(
    host: Fused,
) -> None:
    gate = torch.tensor([[1.0, 0.0, 0.5], [0.0, 2.0, 0.0]])
    delta, dW = prompt_delta(gate)
    x = inputs(4)  # two rows of the empty prompt, then two of prompts
    before = host.module(x)
    with acting(host.layers, [delta], lambda rows: slice(rows - 2, rows), lambda: TEXT):
        more = host.module(x) - before
    assert torch.equal(host.module(x), before)
    expected = torch.zeros_like(more)
    expected[2:, TEXT, HEAD : 2 * HEAD] = gate[..., None] * (x[2:, TEXT] @ dW.T)
    assert torch.allclose(more, expected, atol=1e-6)
    assert torch.equal(more == 0, expected == 0)


@torch.no_grad()
def test_what_acts_in_prompts_touches_no_padding_of_a_text_layer(host: Fused) -> None:
    layers = {"k": Layer(host.module, "text", slice(HEAD, 2 * HEAD))}
    delta, dW = prompt_delta(torch.ones(2, PROMPT))
    x = inputs(2)
    before = host.module(x)
    with acting(layers, [delta], lambda rows: slice(0, rows), lambda: TEXT):
        more = host.module(x) - before
    own = more[..., HEAD : 2 * HEAD]
    assert torch.allclose(own[:, :PROMPT], x[:, :PROMPT] @ dW.T, atol=1e-6)
    assert not own[:, PROMPT:].any()
    assert not more[..., :HEAD].any() and not more[..., 2 * HEAD :].any()


@torch.no_grad()
def test_two_deltas_that_act_in_prompts_add_up(host: Fused) -> None:
    (one, first), (two, second) = prompt_delta(torch.ones(2, 3)), prompt_delta(torch.ones(2, 3))
    x = inputs(2)
    before = host.module(x)
    with acting(host.layers, [one, two], lambda rows: slice(0, rows), lambda: TEXT):
        more = (host.module(x) - before)[:, TEXT, HEAD : 2 * HEAD]
    assert torch.allclose(more, x[:, TEXT] @ (first + second).T, atol=1e-6)


@torch.no_grad()
def test_a_pass_of_negative_prompts_alone_is_the_models_own(host: Fused) -> None:
    delta, _ = prompt_delta(torch.ones(2, 3))
    x = inputs(2)
    before = host.module(x)
    with acting(host.layers, [delta], lambda rows: slice(0, 0), lambda: TEXT):
        assert torch.equal(host.module(x), before)


@torch.no_grad()
def test_what_was_computed_once_a_prompt_is_added_in_the_slices_rows(host: Fused) -> None:
    x, extra = inputs(4), torch.randn(2, 6, HEAD)
    before = host.module(x)
    with adding(host.layers, {"v": extra}, lambda rows: slice(2, 4)):
        more = host.module(x)
    assert torch.equal(more[:2], before[:2])
    assert torch.equal(more[2:, :, : 2 * HEAD], before[2:, :, : 2 * HEAD])
    assert torch.equal(more[2:, :, 2 * HEAD :], before[2:, :, 2 * HEAD :] + extra)


def test_what_names_no_layer_is_refused_and_nothing_stays_attached(host: Fused) -> None:
    delta, _ = prompt_delta(torch.ones(2, 3), layer="q")
    with (
        pytest.raises(ValueError, match="no layer is named 'q'"),
        acting(host.layers, [delta], lambda rows: slice(0, rows)),
    ):
        pass
    assert not host.module._forward_hooks


def test_a_block_that_raises_leaves_nothing_attached(host: Fused) -> None:
    delta, _ = prompt_delta(torch.ones(2, 3))
    for block in (
        acting(host.layers, [delta], lambda rows: slice(0, rows)),
        adding(host.layers, {"k": torch.zeros(2, 6, HEAD)}, lambda rows: slice(0, rows)),
        host.attached({"k": low_rank(0)}),
    ):
        with pytest.raises(ZeroDivisionError), block:
            raise ZeroDivisionError
    assert not host.module._forward_hooks
