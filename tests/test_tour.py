"""The README's tour on photographs runs as it stands, on a tiny random SDXL and with few steps."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PHOTOS
from PIL import Image
from tiny_pipelines import make_sdxl

from perdure import cli
from perdure.bank import Bank

README = Path(__file__).parents[1] / "README.md"
BASE = "stabilityai/stable-diffusion-xl-base-1.0"


def commands() -> list[str]:
    """The indented lines of the tour."""
    tour = README.read_text().split("<!-- tour -->")[1].split("<!-- end of tour -->")[0]
    return [line.strip() for line in tour.splitlines() if line.startswith("    ")]


def test_the_tour_uses_what_it_is_about() -> None:
    told = commands()
    assert [line.split()[1] for line in told if line.startswith("perdure")] == [
        "suggest",
        "learn",
        "learn",
        "generate",
    ]
    assert all(BASE in line for line in told if line.startswith("perdure"))


def test_the_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    if not PHOTOS.exists():
        pytest.skip("the photographs of the DreamBooth set are not here")
    base = make_sdxl(tmp_path / "sdxl")
    for name in ("dog", "dog2"):
        shutil.copytree(PHOTOS / name, tmp_path / "photos" / name)
    monkeypatch.chdir(tmp_path)
    said = []
    for line in commands():
        if not line.startswith("perdure"):
            line = line.replace("python ", f"{shlex.quote(sys.executable)} ", 1)
            subprocess.run(line, shell=True, check=True)
            continue
        words = [word.replace(BASE, str(base)) for word in shlex.split(line)]
        if words[1] == "learn":
            words[words.index("100")] = "1"
            words += ["--steps", "2", "--batch-size", "1", "--option", "rank=2", "--no-check"]
        if words[1] == "generate":
            words += ["--steps", "2"]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, error = capfd.readouterr()
        assert not stop.value.code, error
        said.append(out)
    assert "What follows" in said[0]
    assert "02" not in said[0] or "alike" in said[0]
    assert "has no caption, and others have" in said[1]
    bank = Bank.open("dogs")
    assert bank.concepts == ("dog", "dog2")
    with Image.open(bank.task_folder("dog2") / "while-learning.png") as sheet:
        with Image.open(bank.task_folder("dog") / "while-learning.png") as first:
            assert sheet.width == 2 * first.width
    assert len(list(Path("pictures").glob("*.png"))) >= 2
