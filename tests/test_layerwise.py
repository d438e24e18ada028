"""Tokens with a row for every cross-attention layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from perdure.base.base import Base
from perdure.base.layerwise import cross_attentions, layer_states, reading, typical

from perdure.bank import Bank
from perdure.drawing.painter import Painter
from perdure.learning.learn import learn


@pytest.fixture(scope="module")
def base(tiny: Path) -> Base:
    torch.set_num_threads(1)
    return Base.open(tiny, device="cpu")


def rows(base: Base, layers: int, *names: str) -> dict[str, torch.Tensor]:
    width = base.tokens.embedding().embedding_dim
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(layers, width, generator=generator) for name in names}


@torch.no_grad()
def test_each_layers_states_are_those_of_its_own_row(base: Base) -> None:
    layers = len(cross_attentions(base))
    assert layers > 1
    many = rows(base, layers, "ada", "bo")
    base.tokens.set(many)
    ids = base.tokens.ids(["a photo of <ada> and <bo>", "a cat"])
    states = layer_states(base, ids, many)
    assert len(states) == layers
    for layer in range(layers):
        base.tokens.set({name: row[layer : layer + 1] for name, row in many.items()})
        assert torch.equal(states[layer], base.states(ids))
    assert torch.allclose(typical(states), states.mean(dim=0))


@torch.no_grad()
def test_a_prompt_without_such_a_concept_is_read_once(base: Base) -> None:
    one, many = rows(base, 1, "ada"), rows(base, 3, "bo")
    base.tokens.set({**one, **many})
    ids = base.tokens.ids(["a photo of <ada>"])
    states = layer_states(base, ids, {**one, **many})
    assert len(states) == 1
    assert torch.equal(typical(states), base.states(ids))


@torch.no_grad()
def test_every_layer_reads_its_own_states_and_guidance_keeps_the_empty_prompt(base: Base) -> None:
    modules = cross_attentions(base)
    width = base.tokens.embedding().embedding_dim
    own = torch.randn(len(modules), 2, 5, width)
    given = torch.randn(4, 5, width)
    read: dict[int, torch.Tensor] = {}  # by module: the mid block is listed last and runs before
    handles = [
        module.to_k.register_forward_pre_hook(lambda m, args, k=k: read.update({k: args[0]}))
        for k, module in enumerate(modules)
    ]
    x, t = torch.randn(4, 4, 8, 8), torch.tensor(5)
    with reading(base, own):
        base.denoiser(x, t, encoder_hidden_states=given)
    for layer, expected in enumerate(own):
        assert torch.equal(read[layer][:2], given[:2])
        assert torch.equal(read[layer][2:], expected)
    base.denoiser(x, t, encoder_hidden_states=given)
    assert all(torch.equal(states, given) for states in read.values())
    for handle in handles:
        handle.remove()


@torch.no_grad()
def test_rows_that_are_all_the_same_draw_as_one_row_does(base: Base) -> None:
    layers = len(cross_attentions(base))
    one = rows(base, 1, "ada")
    base.tokens.set(one)
    ids = base.tokens.ids(["a photo of <ada>"])
    x, t = torch.randn(1, 4, 8, 8), torch.tensor(5)
    plain = base.denoiser(x, t, encoder_hidden_states=base.states(ids)).sample
    states = layer_states(base, ids, {"ada": one["ada"].repeat(layers, 1)})
    with reading(base, states):
        again = base.denoiser(x, t, encoder_hidden_states=typical(states)).sample
    assert torch.allclose(plain, again, atol=1e-6)


def test_cidm_learns_a_row_for_every_layer_and_draws_with_it(
    base: Base, drawings: Path, tmp_path: Path
) -> None:
    fast = {"steps": 3, "checkpoint_every": 2, "token_lr": 0.1}
    for name, layerwise in (("many", True), ("one", False)):
        learn(
            base,
            tmp_path / name,
            {"ada": drawings / "ada"},
            method="cidm",
            options={"rank": 2, "shared": 2, "layerwise_tokens": layerwise},
            **fast,
        )
    row = Bank.open(tmp_path / "many").rows()["ada"]
    assert len(row) == len(cross_attentions(base))
    assert not torch.equal(row[0], row[1])  # they start alike and part
    assert len(Bank.open(tmp_path / "one").rows()["ada"]) == 1
    painter = Painter(base, tmp_path / "many")
    drawn = painter.draw(["a photo of <ada>"], seeds=[0])[0]
    painter.rows = {"ada": row[:1].repeat(len(row), 1)}
    other = painter.draw(["a photo of <ada>"], seeds=[0])[0]
    assert not np.array_equal(np.asarray(drawn), np.asarray(other))
