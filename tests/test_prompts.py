"""What a prompt may be, and what is said of one that cannot be drawn as it stands."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import numpy as np
import pytest

import perdure
from perdure import cli
from perdure.drawing.regions import Region
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.hosts.diffusion.tokens import known_in
from perdure.learning.learn import learn

ADA = "a photo of <ada>"


@pytest.fixture(scope="module")
def base(tiny: Path) -> Base:
    return Base.open(tiny, device="cpu")


@pytest.fixture(scope="module")
def bank(base: Base, drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank that knows <ada>; nothing may write into it."""
    folder = tmp_path_factory.mktemp("banks") / "bank"
    learn(base, folder, {"ada": drawings / "ada"}, method="c-lora", options={"rank": 2}, steps=1)
    return folder


def test_one_prompt_is_a_prompt_and_not_its_letters(base: Base, bank: Path) -> None:
    listed = perdure.draw(base, bank, [ADA])
    for drawn in (
        perdure.draw(base, bank, ADA),
        perdure.draw(base, bank, ADA, seeds=0),
        perdure.Painter(base, bank).draw(ADA, seeds=[0]),
    ):
        assert len(drawn) == 1
        assert np.array_equal(np.asarray(drawn[0]), np.asarray(listed[0]))


LONG = "a photo of a cat " * 9  # 45 tokens, of which the tiny base reads 38


def test_a_concept_behind_the_end_that_the_base_reads_is_refused(base: Base, bank: Path) -> None:
    painter = perdure.Painter(base, bank)
    sentence = r"too long for this base by 8 tokens, and <ada> stands .*: shorten it"
    late, box = LONG + "<ada>", (0.0, 0.0, 1.0, 1.0)
    with pytest.raises(PerdureError, match=sentence):
        painter.draw([ADA, late], seeds=[0, 1])
    with pytest.raises(PerdureError, match=sentence):
        painter.draw([ADA], seeds=[0], negative=late)
    with pytest.raises(PerdureError, match=sentence):
        painter.draw([ADA], seeds=[0], regions=[Region(phrase=late, box=box)])
    with pytest.raises(PerdureError, match=sentence):
        painter.fingerprint(late)
    assert len(painter.draw(["<ada>, " + LONG], seeds=[0], negative=LONG)) == 1
    assert base.tokens.too_long("<ada> " + LONG) == 8
    assert base.tokens.too_long(ADA) == 0


def test_a_template_that_would_be_cut_before_the_concept_is_refused(
    base: Base, drawings: Path, tmp_path: Path
) -> None:
    with pytest.raises(PerdureError, match="<bo> stands in what it would not read"):
        learn(base, tmp_path / "bank", {"bo": drawings / "bo"}, templates=[LONG + "{}"], steps=1)


def test_a_negative_prompt_is_asked_for_unknown_concepts_too(base: Base, bank: Path) -> None:
    with pytest.raises(PerdureError, match="<nobody>, which this bank has not learned"):
        perdure.draw(base, bank, ADA, negative="a photo of <nobody>")


@pytest.mark.parametrize(
    "prompt",
    ["(<ada>:1.3)", "a photo of ((<ada>) smiling:2)", "<ada> <lora:x:1>", "<ada> (smiling: .8)"],
)
def test_weights_in_prompts_are_refused(base: Base, bank: Path, prompt: str) -> None:
    with pytest.raises(PerdureError, match="weights in prompts are not supported"):
        perdure.draw(base, bank, prompt)


def test_times_and_brackets_in_prompts_are_words() -> None:
    assert known_in("(at 12:30) a photo (in oil): <ada>, (2:3)", ["ada"]) == ["ada"]


def test_generate_says_that_the_end_of_a_long_prompt_is_not_read(
    tiny: Path,
    bank: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    asked = ["generate", LONG, ADA, "--count=1", f"--base={tiny}", f"--bank={bank}"]
    monkeypatch.setattr(sys, "argv", ["perdure", *asked, f"--out={tmp_path}"])
    with contextlib.suppress(SystemExit):
        cli.main()
    notes = [line for line in capfd.readouterr().out.splitlines() if line.startswith("note")]
    assert len(notes) == 1 and "did not read its last 7 tokens" in notes[0]


@pytest.mark.parametrize(
    ("option", "value", "range_"),
    [
        ("steps", 0, "from 1 to 1000"),
        ("steps", 1001, "from 1 to 1000"),
        ("guidance", float("inf"), "finite number of at least 0"),
        ("guidance", float("nan"), "finite number of at least 0"),
        ("guidance", -1.0, "finite number of at least 0"),
        ("batch_size", 0, "at least 1"),
        ("seeds", -1, "from 0 to 4294967295"),
        ("seeds", 2**64, "from 0 to 4294967295"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(
    base: Base, bank: Path, option: str, value: float, range_: str
) -> None:
    with pytest.raises(PerdureError, match=rf"{option.removesuffix('s')}s? is .*{range_}"):
        perdure.draw(base, bank, ADA, **{option: value})
