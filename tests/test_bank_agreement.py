"""bank.json against the files that it lists: what was lost or changed in it is never drawn with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from host_parts import words

from perdure.bank import Bank, BaseIdentity
from perdure.cli.banks import list_concepts
from perdure.errors import PerdureError
from perdure.methods import build

Change = Callable[[dict[str, Any]], object]
BASE = BaseIdentity(name="smallworld", hash="a" * 64)
LAYER = "down.0/attn2.to_k"


def made(path: Path, method: str = "fl2t") -> Bank:
    """A task of two concepts, then one of one."""
    config = build(method).describe()["config"]
    bank = Bank.open_or_create(path, base=BASE, method=method, config=config)
    for names in (("ada", "bo"), ("cy",)):
        add(bank, *names)
    return bank


def add(bank: Bank, *names: str) -> None:
    facts = {"seconds": 1.0, "composition": {"steps": 1}, "settings": {"templates": ["a {}"]}}
    bank.commit(
        concepts=names,
        tensors={f"{LAYER}/A": torch.ones(4, 2), f"{LAYER}/B": torch.ones(2, 3)},
        tokens=words({name: torch.ones(1, 6) for name in names}),
        facts=facts,
        method=bank.method,
        config=bank.config,
        composition={"w": torch.ones(3)},
    )


def changed(path: Path, change: Change) -> None:
    """Of a bank from before bank.json had a checksum."""
    content = json.loads((path / "bank.json").read_text())
    content.pop("sha256", None)
    change(content)
    (path / "bank.json").write_text(json.dumps(content))


ON_OPENING: dict[str, tuple[Change, str]] = {
    "no such method": (lambda c: c.update(method="magic"), "no method 'magic'.*pip install"),
    "a method of another kind": (lambda c: c.update(method=["fl2t"]), "method is"),
    "another method": (lambda c: c.update(method="gated"), "gated has no option"),
    "a list for a config": (lambda c: c.update(config=[]), "config is"),
    "a text for a config": (lambda c: c.update(config=""), "config is"),
    "no config": (lambda c: c.pop("config"), "config"),
    "no such option": (lambda c: c["config"].update(magic=1), "no option 'magic'"),
    "a wrong value": (lambda c: c["config"].update(rank=0), "rank is 0"),
    "a value of another kind": (lambda c: c["config"].update(rank="8"), "rank is '8'"),
    "a value beyond floats": (lambda c: c["config"].update(tau=10**400), "cannot be used"),
    "a list for an option": (lambda c: c["config"].update(relevance=["x"]), "relevance is"),
    "not a number": (lambda c: c["config"].update(tau=float("nan")), "damaged"),
    "no number of a format": (lambda c: c.update(format=True), "format is True"),
    "no tasks": (lambda c: c.update(tasks={}), "tasks is"),
    "tasks in another order": (lambda c: c["tasks"].reverse(), "comes after"),
    "facts of another kind": (lambda c: c["tasks"][0].update(facts=[]), "facts is"),
    "seconds that are none": (lambda c: c["tasks"][0]["facts"].update(seconds="1"), "seconds is"),
    "settings of another kind": (lambda c: c["tasks"][0]["facts"].update(settings=3), "settings"),
    "a base without a name": (lambda c: c["base"].update(name=None), "name is None"),
    "no checksum": (lambda c: c["composition"].update(sha256=""), "bad entry"),
}


@pytest.mark.parametrize("what", ON_OPENING)
def test_a_bank_json_that_cannot_be_right_is_refused_on_opening(what: str, tmp_path: Path) -> None:
    made(tmp_path)
    change, sentence = ON_OPENING[what]
    changed(tmp_path, change)
    with pytest.raises(PerdureError, match=sentence):
        Bank.open(tmp_path)


ON_READING: dict[str, tuple[Change, str]] = {
    "a lost config": (lambda c: c.update(config={}), r"rank = 16 \(not unset\)"),
    "another value": (lambda c: c["config"].update(heads=2), r"heads = 4 \(not 2\)"),
    "a lost option": (lambda c: c["config"].pop("tau"), r"tau = 0.05 \(not unset\)"),
    "a method that fits": (
        lambda c: c.update(method="lora", config={"rank": 16}),
        r'method = "fl2t" \(not "lora"\)',
    ),
    "another base": (lambda c: c["base"].update(hash="b" * 64), r'base = "a*" \(not "b*"\)'),
    "a renumbered task": (
        lambda c: c["tasks"][0].update(folder="01-bo"),
        r'task = "01-ada\+1" \(not "01-bo"\)',
    ),
    "a first concept that is gone": (
        lambda c: c["tasks"][0]["concepts"].pop(0),
        r'first concept = "ada" \(not "bo"\)',
    ),
}


@pytest.mark.parametrize("what", ON_READING)
def test_what_a_concepts_file_knows_better_is_said_with_the_difference(
    what: str, tmp_path: Path
) -> None:
    made(tmp_path)
    change, sentence = ON_READING[what]
    changed(tmp_path, change)
    bank = Bank.open(tmp_path)
    first = bank.concepts[0]
    for read in (
        lambda: bank.read(first),
        lambda: bank.tokens()[first],
        lambda: dict(bank.kept()[0][1]),
        lambda: bank.metadata(first),
    ):
        with pytest.raises(PerdureError, match=f"{sentence}.*unlike .*bank.json: rebuild"):
            read()


def test_what_is_trained_for_the_whole_bank_agrees_with_it_and_is_not_lost(tmp_path: Path) -> None:
    made(tmp_path)
    changed(tmp_path, lambda c: c["config"].update(heads=2))
    with pytest.raises(PerdureError, match=r"composition\.1\.safetensors says heads = 4 \(not 2\)"):
        Bank.open(tmp_path).composition()
    changed(tmp_path, lambda c: c["config"].update(heads=4))
    changed(tmp_path, lambda c: c.pop("composition"))
    with pytest.raises(PerdureError, match="does not list what the method trained for all"):
        Bank.open(tmp_path).composition()


def test_an_option_that_is_younger_than_the_bank_has_its_default(tmp_path: Path) -> None:
    config = build("fl2t").describe()["config"]
    younger = {key: value for key, value in config.items() if key not in ("nu", "contrast_tau")}
    Bank.create(tmp_path, base=BASE, method="fl2t", config=younger)
    for name in ("ada", "bo"):
        add(Bank.open(tmp_path), name)
    bank = Bank.open(tmp_path)
    assert bank.config == younger and bank.read("ada")[1].keys() == {"ada"}
    assert build(bank.method, **bank.config).describe()["config"] == config
    assert bank.composition().keys() == {"w"}
    bank.remove("ada")
    assert Bank.open(tmp_path).read("bo")[1].keys() == {"bo"}


def test_removing_a_tasks_concepts_in_any_order_leaves_files_that_agree(tmp_path: Path) -> None:
    for number, names in enumerate((("ada", "bo"), ("bo", "ada"))):
        bank = made(tmp_path / str(number))
        bank.remove(names[0])
        tensors, rows = Bank.open(bank.path).read(names[1])
        assert rows.keys() == {names[1]} and len(tensors) == 2
        bank.remove(names[1])
        assert Bank.open(bank.path).concepts == ("cy",)


def test_a_listed_file_that_is_missing_is_named_by_list_too(tmp_path: Path) -> None:
    made(tmp_path).concept_file("bo").unlink()
    with pytest.raises(PerdureError, match=r"bo/concept\.safetensors is missing"):
        list_concepts(tmp_path)
