"""What a concept may be called: in any script, as one token, in one spelling."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from perdure import cli
from perdure.adapters.prompts import Token
from perdure.bank import Bank
from perdure.bank_names import check_new_names
from perdure.drawing.painter import Painter
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.learning.learn import learn

NAMES = ["Rex", "мила", "Мила", "花子", "नाव", "محمد", "한글", "Zoë", "İrem", "ΟΔΟΣ", "Straße"]


@pytest.fixture
def base(tiny: Path) -> Base:
    return Base.open(tiny, device="cpu")


def words(base: Base, *names: str) -> dict[str, Token]:
    generator = torch.Generator().manual_seed(0)
    rows = {name: base.tokens.random("word", generator) for name in names}
    return {name: base.tokens.token("word", row, 1.0) for name, row in rows.items()}


def read(base: Base, prompt: str, tokens: dict[str, Token]) -> torch.Tensor:
    """What the text encoder's table gives for a prompt, (positions, d)."""
    (vocabulary,) = base.tokens.vocabularies
    with base.tokens.serving(tokens):
        return vocabulary.table(vocabulary.ids([prompt]))[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_any_script_is_one_token_in_a_prompt(base: Base, name: str) -> None:
    own = words(base, name)
    base.tokens.set(own)
    (vocabulary,) = base.tokens.vocabularies
    for spelling in ("NFC", "NFD"):
        prompt = unicodedata.normalize(spelling, f"a photo of <{name}>, outdoors")
        assert vocabulary.ids([prompt])[0].tolist().count(vocabulary.id_of(name)) == 1
        here = (read(base, prompt, own) == own[name].rows[0]).all(dim=1)
        assert here.nonzero().flatten().tolist() == [4]


def test_names_of_two_banks_that_differ_by_case_each_draw_with_their_own_row(base: Base) -> None:
    for name in ("rex", "Rex", "мила", "Мила"):
        own = words(base, name)
        base.tokens.set(own)
        here = (read(base, f"a photo of <{name}>", own) == own[name].rows[0]).all(dim=1)
        assert here.sum() == 1


def test_a_name_that_the_tokenizer_would_split_is_refused(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    (vocabulary,) = base.tokens.vocabularies
    monkeypatch.setattr(vocabulary.pristine, "tokenize", lambda text: ["<re", "x>"])
    for _ in "twice":
        with pytest.raises(PerdureError, match="does not keep <rex> in one piece: choose another"):
            base.tokens.set(words(base, "rex"))


@pytest.mark.parametrize(("one", "other"), [("Мила", "мила"), ("ΟΔΟΣ", "οδος"), ("İrem", "i̇rem")])
def test_two_names_that_a_tokenizer_takes_for_one_are_refused(one: str, other: str) -> None:
    with pytest.raises(PerdureError, match="only by its case: choose another name"):
        check_new_names(Path("bank"), [other], known=[one])


def test_such_a_concept_is_learned_drawn_exported_and_removed(
    base: Base, drawings: Path, tmp_path: Path
) -> None:
    composed, apart = "Zoë", unicodedata.normalize("NFD", "Zoë")
    given = {apart: drawings / "ada", "花子": drawings / "bo"}
    for name, source in given.items():
        learn(
            base,
            tmp_path / "bank",
            {name: source},
            nouns={name: "person"},
            method="c-lora",
            options={"rank": 2},
            steps=1,
        )
    bank = Bank.open(tmp_path / "bank")
    assert bank.concepts == (composed, "花子")
    assert [task.folder for task in bank.tasks] == ["01-Zoë", "02-花子"]
    assert bank.tasks[0].facts["nouns"] == {composed: "person"}
    painter = Painter(base, bank)
    one, two = (painter.draw(f"a photo of <{name}>", seeds=3)[0] for name in (composed, apart))
    assert np.array_equal(np.asarray(one), np.asarray(two))
    painter.save_folded(tmp_path / "folded")
    stock = StableDiffusionPipeline.from_pretrained(tmp_path / "folded", safety_checker=None)
    assert "<花子>" in stock.tokenizer.tokenize("a photo of <花子>")
    bank.remove(composed)
    assert Bank.open(tmp_path / "bank").concepts == ("花子",)


def test_a_folder_whose_name_is_none_is_refused_with_the_mend(
    drawings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(drawings / "ada", tmp_path / "sp ace")
    monkeypatch.setattr(sys, "argv", ["perdure", "learn", str(tmp_path / "sp ace")])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "'sp ace'" in said and "--name" in said
    assert len(said.strip().splitlines()) == 1
