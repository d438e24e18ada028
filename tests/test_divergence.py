"""What goes wrong in learning is said, stops where it must, and leaves the bank."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from perdure import cli
from perdure.bank import Bank
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.learning import learn as teaching
from perdure.learning.divergence import eaten
from perdure.learning.learn import learn
from perdure.measuring.cost import what_it_cost
from perdure.measuring.features import MetricEncoder
from perdure.measuring.likeness import Likenesses
from perdure.methods.protocol import Learner

FAST = {"method": "c-lora", "options": {"rank": 2}, "steps": 4}


@pytest.fixture(scope="module")
def base(tiny: Path) -> Base:
    torch.set_num_threads(1)
    return Base.open(tiny, device="cpu")


@pytest.fixture
def bank(base: Base, drawings: Path, tmp_path: Path) -> Path:
    learn(base, tmp_path / "bank", {"ada": drawings / "ada"}, **FAST)
    return tmp_path / "bank"


def test_weights_that_explode_stop_the_learn_and_leave_the_bank_free_for_the_next(
    base: Base, bank: Path, drawings: Path
) -> None:
    before = (bank / "bank.json").read_bytes()
    with pytest.raises(PerdureError, match=r"diverged at step \d.*\n?.*norm.*weights.*lower lr"):
        learn(base, bank, {"bo": drawings / "bo"}, lr=1e4, steps=4)
    assert (bank / "bank.json").read_bytes() == before
    learn(base, bank, {"bo": drawings / "bo"}, steps=1)
    assert Bank.open(bank).concepts == ("ada", "bo")


@pytest.mark.parametrize("of", ["loss", "penalty", "norm"])
def test_a_number_that_is_none_is_named(
    of: str, base: Base, bank: Path, drawings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = float("nan")
    if of == "norm":
        monkeypatch.setattr(Learner, "norm", lambda self: nan)
    elif of == "penalty":
        monkeypatch.setattr(Learner, "penalty", lambda self: torch.tensor(nan), raising=False)
        for kind in Learner.__subclasses__():
            if "penalty" in vars(kind):
                monkeypatch.setattr(kind, "penalty", lambda self: torch.tensor(nan))
    else:
        loss = torch.nn.functional.mse_loss
        monkeypatch.setattr("perdure.learning.loop.F.mse_loss", lambda *given: loss(*given) * nan)
    with pytest.raises(PerdureError, match=f"diverged at step 1.*{of}.*nan.*lower lr"):
        learn(base, bank, {"bo": drawings / "bo"}, steps=2)
    assert Bank.open(bank).concepts == ("ada",) and not list(Bank.open(bank).workspace.glob("*"))


def test_a_penalty_that_eats_what_is_learned_is_said(
    base: Base, bank: Path, drawings: Path, tmp_path: Path
) -> None:
    notes: list[str] = []
    path = tmp_path / "strict"
    strict = {**FAST, "options": {"rank": 2, "penalty": 1e14}, "lr": 1e-2}
    for name in ("ada", "bo"):
        learn(base, path, {name: drawings / name}, note=notes.append, **strict)
    (said,) = [note for note in notes if "penalty of c-lora is" in note]
    assert "lower penalty" in said
    log = tmp_path / "log.jsonl"
    lines = [{"loss": 0.5, "penalty": 5.5 if step > 90 else 0.1} for step in range(1, 101)]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert eaten(log) == pytest.approx(11)
    log.write_text(json.dumps({"loss": 0.5, "penalty": 4.9}) + "\n")
    assert eaten(log) is None


class Colours:
    """Sees a picture's mean colour."""

    identity_name = "colours"

    def identities(self, pictures: object) -> Tensor:
        seen = []
        for picture in pictures:  # type: ignore[attr-defined]
            if isinstance(picture, Image.Image):
                picture = torch.tensor(list(picture.convert("RGB").getdata())).float()
            rows = torch.as_tensor(picture).float().reshape(-1, 3)
            seen.append(rows.mean(dim=0) - 128)
        return torch.nn.functional.normalize(torch.stack(seen), dim=1)


@pytest.mark.parametrize("alike", [True, False])
def test_a_concept_that_draws_nothing_like_its_pictures_is_known_by_what_the_base_draws(
    alike: bool, base: Base, bank: Path, tmp_path: Path
) -> None:
    encoder = Colours()
    what_it_cost(base, bank, encoder)  # type: ignore[arg-type]
    drawn = encoder.identities(
        [Image.open(path) for path in Bank.open(bank).task_folder("ada").glob("previews/*.png")]
    )
    (tmp_path / "real").mkdir()
    for k in range(2):
        colour = (128 + (100 if alike else -100) * drawn.mean(dim=0)).round().int().tolist()
        colour[0] += k
        Image.new("RGB", (40, 40), tuple(colour)).save(tmp_path / "real" / f"{k}.png")
    likenesses = Likenesses(base, encoder)  # type: ignore[arg-type]
    likenesses._ordinary = encoder.identities([Image.new("RGB", (8, 8), (128, 255, 0))])
    (one,) = likenesses.of(bank, {"ada": tmp_path / "real"})
    assert (one.own > 0.9 > one.ordinary) if alike else (one.own < -0.9 < one.ordinary)


def test_the_command_says_so(
    tiny: Path,
    drawings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: dict[str, object] = {}

    def of(self: object, bank: object, sources: dict[str, Path]) -> list[object]:
        from perdure.measuring.likeness import Likeness

        asked.update(sources)
        return [Likeness(concept=name, own=0.1, ordinary=0.2) for name in sources]

    monkeypatch.setattr(Likenesses, "of", of)
    monkeypatch.setattr(teaching, "eaten", lambda log: None)
    given = [str(drawings / "ada"), "--bank", str(tmp_path / "b"), "--base", str(tiny), "--steps=1"]
    monkeypatch.setattr(sys, "argv", ["perdure", "learn", *given, "--device=cpu"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "<ada> draws nothing like its pictures (likeness 0.10;" in capsys.readouterr().out
    assert asked == {"ada": drawings / "ada"}


def test_what_is_measured_is_the_encoders(base: Base, bank: Path, drawings: Path) -> None:
    encoder = MetricEncoder.of(base)
    what_it_cost(base, bank, encoder)
    (one,) = Likenesses(base, encoder).of(bank, {"ada": drawings / "ada"})
    assert -1 <= one.own <= 1 and -1 <= one.ordinary <= 1
