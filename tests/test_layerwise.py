"""Tokens with a row for every cross-attention layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from host_parts import words

from perdure.adapters import Token
from perdure.bank import Bank
from perdure.drawing.painter import Painter
from perdure.hosts.diffusion.host import Base
from perdure.learning.learn import learn


@pytest.fixture(scope="module")
def base(tiny: Path) -> Base:
    torch.set_num_threads(1)
    return Base.open(tiny, device="cpu")


def tokens(base: Base, layers: int, *names: str) -> dict[str, Token]:
    width = base.tokens.vocabularies[0].table.embedding_dim
    generator = torch.Generator().manual_seed(0)
    return words({name: torch.randn(layers, width, generator=generator) for name in names})


@torch.no_grad()
def test_each_layers_states_are_those_of_its_own_row(base: Base) -> None:
    assert base.readers > 1
    many = tokens(base, base.readers, "ada", "bo")
    prompts = ["a photo of <ada> and <bo>", "a cat"]
    with base.session(tokens=many) as session:
        said = session.conditioning(prompts)
        assert len(said.by_layer) == base.readers
        for layer, states in enumerate(said.by_layer):
            rows = {name: token.rows[layer : layer + 1] for name, token in many.items()}
            session.speak(words(rows))
            assert torch.equal(states, session.conditioning(prompts).states)
    assert torch.allclose(said.states, said.by_layer.mean(dim=0))
    assert torch.equal(said.prompts.states, said.states)  # the layers read the states as they are


@torch.no_grad()
def test_a_prompt_without_such_a_concept_is_read_once(base: Base) -> None:
    with base.session(tokens={**tokens(base, 1, "ada"), **tokens(base, 3, "bo")}) as session:
        said = session.conditioning(["a photo of <ada>"])
        assert len(said.by_layer) == 1
        session.speak(tokens(base, 1, "ada"))
        assert torch.equal(said.states, session.conditioning(["a photo of <ada>"]).states)


@torch.no_grad()
def test_every_layer_reads_its_own_states_and_guidance_keeps_the_empty_prompt(base: Base) -> None:
    modules = base.family.readers(base.pipeline).values()
    width = base.tokens.state_width
    own = torch.randn(len(modules), 2, 5, width)
    given = torch.randn(4, 5, width)
    read: dict[int, torch.Tensor] = {}  # by module: the mid block is listed last and runs before
    handles = [
        module.to_k.register_forward_pre_hook(lambda m, args, k=k: read.update({k: args[0]}))
        for k, module in enumerate(modules)
    ]
    x, t = torch.randn(4, 4, 8, 8), torch.tensor(5)
    with base.family.reading(base.pipeline, own, lambda rows: slice(2, rows)):
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
    one = tokens(base, 1, "ada")
    many = words({"ada": one["ada"].rows.repeat(base.readers, 1)})
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([5])
    said = []
    for known in (one, many):
        with base.session(tokens=known) as session:
            conditioning = session.conditioning(["a photo of <ada>"])
            said.append(session.predict(x, t, conditioning, base.size))
    assert torch.allclose(*said, atol=1e-6)


@pytest.mark.parametrize("kind", ["word", "state"])
def test_cidm_learns_a_row_for_every_layer_and_draws_with_it(
    kind: str, base: Base, drawings: Path, tmp_path: Path
) -> None:
    fast = {"steps": 3, "checkpoint_every": 2, "token_lr": 0.1, "token": kind}
    for name, layerwise in (("many", True), ("one", False)):
        learn(
            base,
            tmp_path / name,
            {"ada": drawings / "ada"},
            method="cidm",
            options={"rank": 2, "shared": 2, "layerwise_tokens": layerwise},
            **fast,
        )
    token = Bank.open(tmp_path / "many").tokens()["ada"]
    assert token.kind == kind and len(token.rows) == base.readers
    assert not torch.equal(token.rows[0], token.rows[1])  # they start alike and part
    assert len(Bank.open(tmp_path / "one").tokens()["ada"].rows) == 1
    painter = Painter(base, tmp_path / "many")
    drawn = painter.draw(["a photo of <ada>"], seeds=[0])[0]
    (part,) = token.parts
    painter.tokens = {"ada": Token({part: token.rows[:1].repeat(base.readers, 1)})}
    other = painter.draw(["a photo of <ada>"], seeds=[0])[0]
    assert not np.array_equal(np.asarray(drawn), np.asarray(other))
