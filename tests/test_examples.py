"""The examples run as they are, with few steps."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

import perdure

EXAMPLES = Path(__file__).parents[1] / "examples"
CASES = {
    "learn_and_draw.py": (["--steps", "2"], "again.png"),
    "remember.py": (["--base", "TINY", "--steps", "2", "--pictures", "2"], "bank/bank.json"),
    "compare_methods.py": (
        ["--base", "TINY", "--steps", "2", "--pictures", "2", "--methods", "lora,gated"],
        "bank-gated/bank.json",
    ),
    "classify.py": (["--epochs", "1", "--pictures", "2"], "classifier"),
    "own_method.py": (["--steps", "2"], "0.4.png"),
}
"""Script -> what it is given, a tiny base for TINY, and something that it leaves."""


def test_every_example_is_run_and_named_in_the_list() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == CASES.keys()
    listed = (EXAMPLES / "README.md").read_text()
    assert all(f"`{name}`" in listed for name in CASES)


@pytest.mark.parametrize("script", CASES)
def test_an_example_runs(
    script: str,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments, made = CASES[script]
    monkeypatch.chdir(tmp_path)
    given = [str(tiny) if word == "TINY" else word for word in arguments]
    monkeypatch.setattr(sys, "argv", [script, *given])
    known = dict(perdure.METHODS)
    try:
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    finally:
        for name in perdure.METHODS.keys() - known.keys():
            del perdure.METHODS[name]
    assert (tmp_path / made).exists()
    if script == "learn_and_draw.py":
        assert (tmp_path / "again.png").read_bytes() == (tmp_path / "1.png").read_bytes()
        assert "Steps: " in capsys.readouterr().out
