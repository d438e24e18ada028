"""`perdure verify` and `--repair`: what is hurt is named with its mend, what is lost comes back."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import safetensors.torch
import torch
from host_parts import words
from test_bank_agreement import BASE, LAYER, add, made

from perdure import cli
from perdure.bank import Bank
from perdure.bank_checking import check_bank
from perdure.bank_repair import rebuild
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.learning.learn import bank_for, learn

OLD = Path(__file__).parent / "data" / "bank-format-1" / "bank"


def flipped(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def reformed(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads((path / "bank.json").read_text())
    change(content)
    (path / "bank.json").write_text(json.dumps(content))


def unreal(path: Path) -> None:
    """A file that is listed with its checksum, and yet holds what no learn keeps."""
    bank = Bank.open(path)
    file = bank.concept_file("cy")
    tensors = safetensors.torch.load_file(file)
    with safetensors.safe_open(file, "pt") as opened:
        about = opened.metadata()
    tensors[f"{LAYER}/A"][0, 0] = float("nan")
    file.write_bytes(safetensors.torch.save(tensors, about))
    relisted(path, "cy")


def relisted(path: Path, name: str) -> None:
    """The checksum of a concept's file as it is now, in a bank.json without one of its own."""
    file = path / "concepts" / name / "concept.safetensors"
    content = json.loads((path / "bank.json").read_text())
    del content["sha256"]
    for task in content["tasks"]:
        for entry in task["concepts"]:
            if entry["name"] == name:
                entry["sha256"] = sha256(file.read_bytes()).hexdigest()
    (path / "bank.json").write_text(json.dumps(content))


def nonsense(path: Path) -> None:
    (path / "concepts/cy/concept.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    relisted(path, "cy")


HURTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a bit of a concept": (lambda p: flipped(p / "concepts/cy/concept.safetensors"), "cy", "damag"),
    "a concept gone": (lambda p: (p / "concepts/bo/concept.safetensors").unlink(), "bo", "missing"),
    "what the tasks share": (
        lambda p: flipped(p / "composition.1.safetensors"),
        "composition.1.safetensors",
        "damaged",
    ),
    "a value of bank.json": (
        lambda p: reformed(p, lambda c: c["tasks"].pop()),
        "bank.json",
        "checksum is of.*--repair",
    ),
    "a newer format": (
        lambda p: reformed(p, lambda c: c.update(format=3)),
        "bank.json",
        "newer perdure.*pip install -U",
    ),
    "no bank.json": (lambda p: (p / "bank.json").unlink(), "bank.json", "missing.*--repair"),
    "not finite": (unreal, "cy", "not finite.*learn it again"),
    "no safetensors": (nonsense, "cy", "no file of a bank"),
    "a log": (lambda p: (p / "tasks/02-cy").rename(p / "elsewhere"), "02-cy", "missing"),
}


@pytest.mark.parametrize("what", HURTS)
def test_what_is_hurt_is_named_with_its_mend(what: str, tmp_path: Path) -> None:
    made(tmp_path)
    assert check_bank(tmp_path) == []
    hurt, file, sentence = HURTS[what]
    hurt(tmp_path)
    (found,) = [one for one in check_bank(tmp_path) if one.kind == "hurt"]
    assert file in found.file
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(found.says)


def test_what_is_not_hurt_is_told_from_what_is(tmp_path: Path) -> None:
    bank = made(tmp_path)
    (tmp_path / "concepts/ghost").mkdir()
    (tmp_path / "concepts/ghost/concept.safetensors").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "concepts/cy/photo.png").write_bytes(b"mine")
    bank.workspace.mkdir(exist_ok=True)
    (bank.workspace / "request.json").write_text("{}")
    assert {(one.kind, one.file) for one in check_bank(tmp_path)} == {
        ("leftover", "concepts/ghost"),
        ("foreign", "notes.txt"),
        ("foreign", "concepts/cy/photo.png"),
        ("interrupted", ".learning/request.json"),
    }


def test_the_command_says_it_in_words_and_in_json_and_leaves_with_one_where_something_is_hurt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*asked: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["perdure", *asked])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        told = capsys.readouterr()
        return stop.value.code or 0, told.out + told.err

    made(tmp_path / "bank")
    bank = ("--bank", str(tmp_path / "bank"))
    assert said("verify", *bank) == (0, f"{tmp_path / 'bank'} is whole.\n")
    flipped(tmp_path / "bank/concepts/cy/concept.safetensors")
    for verb in ("verify", "doctor"):
        status, text = said(verb, *bank, "--json")
        content = json.loads(text)
        assert status == 1 and not content["sound"] and len(content["findings"]) == 1
    assert "restore it from a backup" in said("verify", *bank)[1]
    status, text = said("doctor", *bank, "--repair")
    assert status == 0 and "bank.rebuilt.json lists <ada>, <bo>, <cy>" in text
    assert said("doctor", "--repair")[0] == said("doctor", "--measure", *bank)[0] == 2


def test_a_bank_is_compared_with_its_base(tiny: Path, tiny_v: Path, tmp_path: Path) -> None:
    base, other = (Base.open(path, device="cpu") for path in (tiny, tiny_v))
    bank = bank_for(tmp_path, base, "c-lora", {"rank": 2})
    bank.commit(
        concepts=["ada"],
        tensors={
            f"{layer}/{name}": torch.zeros(shape)
            for layer, (d_out, d_in) in base.shapes.items()
            for name, shape in (("A", (d_out, 2)), ("B", (2, d_in)))
        },
        tokens=words({"ada": torch.ones(1, 32)}),
        facts={},
        method=bank.method,
        config=bank.config,
    )
    assert check_bank(tmp_path, base) == []
    (found,) = check_bank(tmp_path, other)
    assert "learned on the base" in found.says
    for tensors, width in (({f"{LAYER}/A": torch.ones(4, 2)}, 32), ({}, 31)):
        bank.commit(
            concepts=["bo"],
            tensors=tensors,
            tokens=words({"bo": torch.ones(1, width)}),
            facts={},
            method=bank.method,
            config=bank.config,
        )
        (found,) = check_bank(tmp_path, base)
        assert "bo" in found.file and "does not fit the base" in found.says
        bank.remove("bo")


def test_a_lost_bank_json_is_rebuilt_as_it_was_beside_whatever_is_there(tmp_path: Path) -> None:
    bank = made(tmp_path)
    add(bank, "di", "el", "fo")
    bank.remove("di")
    whole, state = (tmp_path / "bank.json").read_bytes(), bank.state
    for left in (whole, whole[:200], None):
        if left is None:
            (tmp_path / "bank.json").unlink()
        else:
            (tmp_path / "bank.json").write_bytes(left)
        rebuilt = rebuild(tmp_path)
        assert (tmp_path / "bank.json").exists() == (left is not None)
        content = json.loads(rebuilt.file.read_text())
        assert content == json.loads(whole)
        assert bool(rebuilt.notes) == (left != whole)
    assert sorted(path.name for path in tmp_path.glob("bank.rebuilt*")) == [
        "bank.rebuilt-1.json",
        "bank.rebuilt-2.json",
        "bank.rebuilt.json",
    ]
    rebuilt.file.rename(tmp_path / "bank.json")
    assert Bank.open(tmp_path).state == state
    assert all(one.kind == "foreign" for one in check_bank(tmp_path))


def test_a_bank_of_format_1_is_rebuilt_too(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "bank")
    before = Bank.open(tmp_path / "bank").state
    rebuild(tmp_path / "bank").file.replace(tmp_path / "bank/bank.json")
    assert Bank.open(tmp_path / "bank").state == before


def test_what_cannot_be_read_is_left_out_and_named(tmp_path: Path) -> None:
    bank = made(tmp_path)
    file = bank.concept_file("cy")
    file.write_bytes(file.read_bytes()[:50])
    rebuilt = rebuild(tmp_path)
    assert rebuilt.concepts == ("ada", "bo")
    assert "concept.safetensors is no file of a bank" in rebuilt.notes[0]
    bank.concept_file("ada").unlink()  # the factors of <bo>, too
    with pytest.raises(PerdureError, match="None of the tasks"):
        rebuild(tmp_path)


def test_a_bank_whose_bank_json_is_lost_is_never_taken_for_a_new_one(
    tiny: Path, drawings: Path, tmp_path: Path
) -> None:
    made(tmp_path)
    (tmp_path / "bank.json").unlink()
    before = sorted(path for path in tmp_path.rglob("*"))
    base = Base.open(tiny, device="cpu")
    with pytest.raises(PerdureError, match="its bank.json is missing.*--repair"):
        learn(base, tmp_path, {"ada": drawings / "ada"}, steps=1)
    with pytest.raises(PerdureError, match="its bank.json is missing.*--repair"):
        Bank.create(tmp_path, base=BASE, method="lora", config={})
    assert sorted(path for path in tmp_path.rglob("*")) == before
