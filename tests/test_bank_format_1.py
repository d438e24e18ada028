"""A bank of format 1, made by an earlier perdure on smallworld: two tasks of C-LoRA, and what it
drew of them in 8 steps."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from perdure.bank import Bank
from perdure.drawing.painter import Painter
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.learning.learn import learn

OLD = Path(__file__).parent / "data" / "bank-format-1"
DRAWN = {"ada": ("a photo of <ada>", 0), "ben": ("a photo of <ben> in the snow", 1)}


@pytest.fixture(scope="module")
def base() -> Base:
    torch.set_num_threads(1)
    return Base.open("smallworld", device="cpu")


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD / "bank", tmp_path / "bank"))


def hashes(bank: Path) -> dict[str, str]:
    """Of all files but bank.json and the lock."""
    return {
        str(path.relative_to(bank)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in ("concepts", "tasks")
        for path in sorted((bank / folder).rglob("*"))
        if path.is_file()
    }


def off(base: Base, bank: Path, name: str) -> float:
    """Mean absolute difference, of 255, from what was drawn then."""
    prompt, seed = DRAWN[name]
    (now,) = Painter(base, bank).draw([prompt], seeds=[seed], steps=8)
    then = np.asarray(Image.open(OLD / f"{name}.png").convert("RGB")).astype(int)
    return float(np.abs(np.asarray(now).astype(int) - then).mean())


def metadata(bank: Path, name: str) -> dict[str, object]:
    with safe_open(bank / "concepts" / name / "concept.safetensors", "pt") as file:
        about: dict[str, object] = json.loads(file.metadata()["perdure"])
    return about


def keys(bank: Path, name: str) -> set[str]:
    with safe_open(bank / "concepts" / name / "concept.safetensors", "pt") as file:
        return set(file.keys())


def test_the_stored_bank_is_of_format_1() -> None:
    assert json.loads((OLD / "bank" / "bank.json").read_text())["format"] == 1
    for name in DRAWN:
        assert metadata(OLD / "bank", name)["format"] == 1
        assert f"token/{name}" in keys(OLD / "bank", name)


def test_it_opens_with_its_tokens_as_words_and_its_factors(base: Base, bank: Path) -> None:
    before, listed = hashes(bank), (bank / "bank.json").read_bytes()
    opened = Bank.open(bank)
    opened.check_base(base.identity)
    assert opened.concepts == ("ada", "ben")
    for name, token in opened.tokens().items():
        with safe_open(bank / "concepts" / name / "concept.safetensors", "pt") as file:
            row = file.get_tensor(f"token/{name}")
        assert set(token.parts) == {"word/text_encoder"} and torch.equal(token.rows, row)
        factors, _ = opened.read(name)
        assert set(factors) == keys(bank, name) - {f"token/{name}"}
    assert hashes(bank) == before
    assert (bank / "bank.json").read_bytes() == listed


@pytest.mark.parametrize("name", list(DRAWN))
def test_it_draws_what_it_drew(name: str, base: Base, bank: Path) -> None:
    assert off(base, bank, name) <= 2  # processors round otherwise
    other = "ben" if name == "ada" else "ada"
    prompt, seed = DRAWN[name]
    (picture,) = Painter(base, bank).draw(
        [prompt.replace(f"<{name}>", f"<{other}>")], seeds=[seed], steps=8
    )
    then = np.asarray(Image.open(OLD / f"{name}.png").convert("RGB")).astype(int)
    assert np.abs(np.asarray(picture).astype(int) - then).mean() > 4  # the measure can tell


@pytest.mark.parametrize("token", ["word", "state"])
def test_it_learns_on_and_what_is_new_is_of_format_2(
    token: str, base: Base, bank: Path, drawings: Path
) -> None:
    before, old = hashes(bank), Bank.open(bank).tokens()
    rows = {name: of.rows for name, of in old.items()}
    settings = {"steps": 2, "batch_size": 1, "templates": ("a photo of {}",), "token": token}
    learn(base, bank, {"cy": drawings / "cy"}, **settings)
    assert before.items() < hashes(bank).items()
    assert json.loads((bank / "bank.json").read_text())["format"] == 2
    assert metadata(bank, "cy")["format"] == 2
    part = "state/cy" if token == "state" else "word/text_encoder/cy"
    assert part in keys(bank, "cy") and "token/cy" not in keys(bank, "cy")
    opened = Bank.open(bank)
    assert opened.concepts == ("ada", "ben", "cy")
    assert [task.folder for task in opened.tasks] == ["01-ada", "02-ben", "03-cy"]
    assert all(torch.equal(opened.tokens()[name].rows, row) for name, row in rows.items())
    painter = Painter(base, bank)
    pictures = painter.draw(["<ada> and <cy>", "<ben> and <cy>"], seeds=[0, 0], steps=2)
    assert pictures[0].tobytes() != pictures[1].tobytes()
    prompt, seed = DRAWN["ada"]
    (then,) = Painter(base, bank, upto=2).draw([prompt], seeds=[seed], steps=2)
    (first,) = Painter(base, OLD / "bank").draw([prompt], seeds=[seed], steps=2)
    assert then.tobytes() == first.tobytes()


def test_a_concept_can_be_removed_and_the_other_stays_to_the_bit(base: Base, bank: Path) -> None:
    before = {name: digest for name, digest in hashes(bank).items() if "ben" not in name}
    Bank.open(bank).remove("ben")
    assert hashes(bank) == before
    assert Bank.open(bank).concepts == ("ada",)
    prompt, seed = DRAWN["ada"]
    (now,) = Painter(base, bank).draw([prompt], seeds=[seed], steps=2)
    (alone,) = Painter(base, OLD / "bank", upto=1).draw([prompt], seeds=[seed], steps=2)
    assert now.tobytes() == alone.tobytes()
    Bank.open(bank).remove("ada")
    assert Bank.open(bank).concepts == ()
    with pytest.raises(PerdureError, match="it knows none yet"):
        Painter(base, bank).draw(["<ada>"], seeds=[0])


def test_a_bank_of_a_later_format_is_refused_as_newer(bank: Path) -> None:
    file = bank / "bank.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 3}))
    before = file.read_bytes()
    with pytest.raises(PerdureError, match=r"newer perdure \(format 3, this one reads 2\)"):
        Bank.open(bank)
    assert file.read_bytes() == before
