"""Tokens that are states: nothing goes through a text encoder while they learn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from perdure.bank import Bank
from perdure.drawing.export import export
from perdure.drawing.painter import Painter
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.learning import loop
from perdure.learning.advice import seed_for_concepts
from perdure.learning.learn import learn, resume
from perdure.methods import METHODS

CONTINUAL = [name for name in METHODS if not METHODS[name].all_at_once]
FAST = {"steps": 4, "checkpoint_every": 2, "token_lr": 0.1}
STATE = {**FAST, "token": "state"}
SMALL = {"rank": 2, "replay": 2, "width": 8, "heads": 2, "together_steps": 4, "shared": 2}


def options(method: str, **more: object) -> dict[str, object]:
    known = {field.name for field in fields(METHODS[method].Config)}
    return {key: value for key, value in {**SMALL, **more}.items() if key in known}


@pytest.fixture(scope="module")
def base(tiny: Path) -> Base:
    torch.set_num_threads(1)
    return Base.open(tiny, device="cpu")


class Calls:
    """How often the text encoder ran inside steps, and in all."""

    def __init__(self) -> None:
        self.all, self.within_steps = 0, list[int]()


@pytest.fixture
def calls(base: Base, monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    counted, gradients = Calls(), loop.Step.gradients

    def count(*args: object) -> None:
        counted.all += 1

    def within(step: loop.Step, number: int) -> tuple[float, float]:
        before = counted.all
        out = gradients(step, number)
        counted.within_steps.append(counted.all - before)
        return out

    monkeypatch.setattr(loop.Step, "gradients", within)
    handle = base.pipeline.text_encoder.register_forward_pre_hook(count)
    yield counted
    handle.remove()


def keys(bank: Path, name: str) -> set[str]:
    with safe_open(bank / "concepts" / name / "concept.safetensors", "pt") as file:
        return set(file.keys())


def drawn(base: Base, bank: Path, *prompts: str, upto: int | None = None) -> list[bytes]:
    pictures = Painter(base, bank, upto=upto).draw(prompts, seeds=[3] * len(prompts))
    return [picture.tobytes() for picture in pictures]


@pytest.mark.parametrize("method", CONTINUAL)
def test_no_step_runs_the_text_encoder(
    method: str, base: Base, drawings: Path, tmp_path: Path, calls: Calls
) -> None:
    names = ("ada", "bo") if method in ("gated", "fl2t", "generative-replay") else ("ada",)
    for name in names:
        learn(
            base,
            tmp_path / "bank",
            {name: drawings / name},
            method=method,
            options=options(method),
            prior="a photo of a person",
            prior_pictures=2,
            templates=("a photo of {}", "{} in the snow"),
            **STATE,
        )
        assert f"state/{name}" in keys(tmp_path / "bank", name)
        assert not [key for key in keys(tmp_path / "bank", name) if key.startswith("word/")]
    assert len(calls.within_steps) >= 4 * len(names) and not any(calls.within_steps)
    assert calls.all > 0
    rows = Bank.open(tmp_path / "bank").tokens()["ada"].rows
    layers = base.readers if method == "cidm" else 1  # whose tokens are layerwise by default
    assert rows.shape == (layers, base.tokens.state_width) and rows.dtype == torch.float32


def test_every_step_runs_the_text_encoder_where_a_token_is_a_word(
    base: Base, drawings: Path, tmp_path: Path, calls: Calls
) -> None:
    learn(base, tmp_path / "bank", {"ada": drawings / "ada"}, **FAST)
    assert len(calls.within_steps) == FAST["steps"] and all(calls.within_steps)
    assert keys(tmp_path / "bank", "ada") >= {"word/text_encoder/ada"}
    assert "state/ada" not in keys(tmp_path / "bank", "ada")


def test_a_state_trains_from_its_start_in_units_of_the_states(
    base: Base, drawings: Path, tmp_path: Path
) -> None:
    rows = {}
    for name, rate in (("still", 0.0), ("moved", 0.1)):
        settings = {**STATE, "token_lr": rate}
        learn(
            base, tmp_path / name, {"ada": drawings / "ada"}, method="textual-inversion", **settings
        )
        rows[name] = Bank.open(tmp_path / name).tokens()["ada"].rows
    generator = torch.Generator().manual_seed(seed_for_concepts(0, ["ada"]))
    start = base.tokens.random("state", generator) * base.state_scale
    assert torch.equal(rows["still"], start)
    moved = (rows["moved"] - start).abs().mean() / base.state_scale
    assert 0.1 < float(moved) <= 0.5  # four steps of AdamW at 0.1, in units of the table's rows


@pytest.mark.parametrize(
    "method", ["gated", "c-lora", "textual-inversion", "fl2t", "generative-replay"]
)
def test_a_resumed_learn_ends_in_the_same_bits(
    method: str, base: Base, drawings: Path, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    asked = {"method": method, "options": options(method), **STATE}
    for bank in (whole, cut):
        learn(base, bank, {"ada": drawings / "ada"}, **asked)
    learn(base, whole, {"bo": drawings / "bo"}, **asked)

    class PlugPulled(Exception):
        pass

    def pull(progress: loop.Progress) -> None:
        if progress.step == 3:
            raise PlugPulled

    with pytest.raises(PlugPulled):
        learn(base, cut, {"bo": drawings / "bo"}, report=pull, **asked)
    resume(base, cut)
    (one, first), (two, second) = (Bank.open(bank).read("bo") for bank in (whole, cut))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert first["bo"].kind == second["bo"].kind == "state"
    assert torch.equal(first["bo"].rows, second["bo"].rows)


@pytest.mark.parametrize("method", ["gated", "c-lora", "textual-inversion", "cidm", "fl2t"])
def test_a_word_and_a_state_live_in_one_bank(
    method: str, base: Base, tiny: Path, drawings: Path, tmp_path: Path
) -> None:
    bank = tmp_path / "bank"
    asked = {"method": method, "options": options(method)}
    learn(base, bank, {"ada": drawings / "ada"}, **asked, **FAST)
    ada = drawn(base, bank, "a photo of <ada>")
    learn(base, bank, {"bo": drawings / "bo"}, **asked, **STATE)
    assert {n: t.kind for n, t in Bank.open(bank).tokens().items()} == {
        "ada": "word",
        "bo": "state",
    }
    assert drawn(base, bank, "a photo of <ada>", upto=1) == ada
    prompts = ["a photo of <ada>", "a photo of <bo>", "<ada> and <bo>", "a photo of a cat"]
    pictures = drawn(base, bank, *prompts)
    assert len(set(pictures)) == len(prompts)
    assert drawn(Base.open(tiny, device="cpu"), bank, *prompts) == pictures
    learn(base, bank, {"cy": drawings / "cy"}, **asked, **FAST)  # words go on after states


def test_a_state_stands_in_its_own_place_and_an_ordinary_row_beneath_it(
    base: Base, drawings: Path, tmp_path: Path
) -> None:
    bank = tmp_path / "bank"
    for name, settings in (("ada", FAST), ("bo", STATE)):
        learn(base, bank, {name: drawings / name}, method="textual-inversion", **settings)
    tokens = dict(Bank.open(bank).tokens())
    prompts = ["a photo of <bo> and <ada>", "a photo of <ada>"]
    with torch.no_grad(), base.session(tokens=tokens) as session:
        said = session.conditioning(prompts)
        ordinary = base.tokens.vocabularies[0].ordinary
        as_word = type(tokens["bo"])({"word/text_encoder": ordinary})
        session.speak({**tokens, "bo": as_word})
        beneath = session.conditioning(prompts)
    assert said.prompts.spoken == ((("bo", 4), ("ada", 6)), (("ada", 4),))
    assert torch.equal(said.states[0, 4], tokens["bo"].rows[0].to(said.states))
    others = [place for place in range(said.states.shape[1]) if place != 4]
    assert torch.equal(said.states[0, others], beneath.states[0, others])
    assert not torch.equal(said.states[0, 4], beneath.states[0, 4])
    assert torch.equal(said.states[1], beneath.states[1])


def test_a_picture_depends_on_the_state(base: Base, drawings: Path, tmp_path: Path) -> None:
    bank = tmp_path / "bank"
    learn(base, bank, {"bo": drawings / "bo"}, method="textual-inversion", **STATE)
    painter = Painter(base, bank)
    one = painter.draw(["<bo>"], seeds=[0])[0]
    token = painter.tokens["bo"]
    painter.tokens = {"bo": type(token)({"state": -3 * token.rows})}
    assert not np.array_equal(one, painter.draw(["<bo>"], seeds=[0])[0])


def test_encoding_ahead_gives_what_encoding_gives(base: Base, fp32: None) -> None:
    prompts = ["a photo of <bo>", "a photo of a cat", "<bo> in the snow"]
    row = base.tokens.random("state", torch.Generator().manual_seed(1))
    token = base.tokens.token("state", row, base.state_scale)
    other = base.tokens.token("state", -row, base.state_scale)
    with torch.no_grad(), base.session(tokens={"bo": token}) as session:
        plain = session.conditioning(prompts, {"bo": other})
        session.encode_ahead(prompts)
        ahead = session.conditioning(prompts, {"bo": other})
        assert torch.allclose(plain.states, ahead.states, atol=1e-6)
        assert plain.prompts.spoken == ahead.prompts.spoken
        session.speak({})  # what was encoded ahead is of other concepts
        assert not torch.allclose(session.conditioning(prompts).states, plain.states, atol=1e-3)


def test_layerwise_states_are_learned_without_the_encoder_and_resumed_to_the_bit(
    base: Base, drawings: Path, tmp_path: Path, calls: Calls
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    asked = {"method": "cidm", "options": options("cidm", layerwise_tokens=True), **STATE}
    learn(base, whole, {"ada": drawings / "ada"}, **asked)

    class PlugPulled(Exception):
        pass

    def pull(progress: loop.Progress) -> None:
        if progress.step == 3:
            raise PlugPulled

    with pytest.raises(PlugPulled):
        learn(base, cut, {"ada": drawings / "ada"}, report=pull, **asked)
    resume(base, cut)
    assert not any(calls.within_steps)
    one, two = (Bank.open(bank).tokens()["ada"] for bank in (whole, cut))
    assert one.kind == "state" and one.rows.shape == (base.readers, base.tokens.state_width)
    assert torch.equal(one.rows, two.rows)
    assert drawn(base, whole, "a photo of <ada>") == drawn(base, cut, "a photo of <ada>")


def test_an_export_of_a_state_is_refused_in_one_sentence_and_nothing_is_written(
    base: Base, drawings: Path, tmp_path: Path
) -> None:
    bank = tmp_path / "bank"
    learn(base, bank, {"ada": drawings / "ada"}, method="lora", options=options("lora"), **FAST)
    learn(base, bank, {"bo": drawings / "bo"}, **STATE)
    with pytest.raises(
        PerdureError, match="<bo> is a state, .* learn with --token word"
    ) as refused:
        export(base, bank, tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()
