"""Numbers out of range: refused by the option's name and range, before any work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest

from perdure import cli
from perdure.benchmarks.class_grid import class_cells
from perdure.benchmarks.grid import cells_of
from perdure.benchmarks.runner import run_grid
from perdure.benchmarks.streams import people
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.learning.advice import make_settings
from perdure.measuring.evaluate import evaluate
from perdure.measuring.features import MetricEncoder
from perdure.settings import Limits, NotNegative, checked


@pytest.mark.parametrize(
    "asked",
    [
        ("generate", "a photo", "--scale=100000"),
        ("generate", "a photo", "--scale=0"),
        ("generate", "a photo", "--count=1000000000"),
        ("generate", "a photo", "--steps=1001"),
        ("generate", "a photo", "--seed=4294967296"),
        ("learn", "photos", "--processes=0"),
        ("learn", "photos", "--processes=-1"),
        ("bench", "people-5", "--processes=0"),
        ("bench", "people-5", "--processes=-1"),
        ("bench", "people-5", "--seeds=1000000000"),
        ("bench", "people-5", "--orders=0"),
        ("bench", "people-5", "--pairs=-1"),
        ("classify", "smallworld-classes-100", "--processes=0"),
        ("classify", "smallworld-classes-100", "--tasks=0"),
        ("evaluate", "--pictures=1"),
        ("evaluate", "--seed=-1"),
        ("smallworld", "photos", "--count=1000000000"),
        ("smallworld", "photos", "--count=0"),
        ("smallworld", "photos", "--identity=-1"),
        ("doctor", "--measure", "--pictures=0"),
    ],
)
def test_a_number_out_of_range_is_refused_by_option_and_range(
    asked: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["perdure", *asked])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr().err
    option = asked[-1].partition("=")[0]
    assert stop.value.code == 2, said
    assert option in said or f"option {option[2:]} is" in said
    assert any(words in said for words in ("or equal to", "of at least", " from ")), said
    assert len(said.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_the_python_calls_beneath_refuse_them_too(tiny: Path, tmp_path: Path) -> None:
    base = Base.open(tiny, device="cpu")
    places = {"out": tmp_path, "work": tmp_path}
    with pytest.raises(PerdureError, match="processes is 0, but must be a whole number"):
        run_grid([], dict, processes=0)
    for name, value in (("seeds", 0), ("orders", -1), ("pictures", 1), ("pairs", -1)):
        with pytest.raises(PerdureError, match=f"{name} is {value}, but must be a whole number"):
            cells_of(people(5), method=["lora"], **places, **{name: value})
    for name in ("seeds", "tasks"):
        with pytest.raises(PerdureError, match=f"{name} is 0, but must be a whole number"):
            class_cells("smallworld-classes-100", method=["lora"], **places, **{name: 0})
    with pytest.raises(PerdureError, match="pictures is 0, but must be a whole number"):
        evaluate(base, tmp_path, MetricEncoder.of(base), pictures=0)


def test_numbers_of_numpy_are_numbers_and_truth_values_are_not() -> None:
    few = Annotated[int, Limits(least=0, most=3)]
    assert checked("seed", np.int64(3), few) == 3
    assert checked("guidance", np.float32(3), NotNegative) == 3
    for value in (True, 1.5, "3", None):
        with pytest.raises(PerdureError, match="whole number from 0 to 3"):
            checked("seed", value, few)
    with pytest.raises(PerdureError, match="guidance is True"):
        checked("guidance", True, NotNegative)


def test_one_template_is_a_template_and_not_its_letters() -> None:
    assert make_settings({}, {"templates": "a photo of {}"}).templates == ("a photo of {}",)
