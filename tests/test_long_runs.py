"""A short form of `tests/faults/long_run.py`: memory and open files stay where they are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "faults"))

from long_run import run


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("method", ["gated", pytest.param("c-lora", marks=pytest.mark.slow)])
def test_learns_and_draws_keep_no_files_open_and_little_memory(method: str, tmp_path: Path) -> None:
    held = run(tmp_path, method=method, learns=4, draws=12)
    assert {row["files"] for row in held[2:]} == {held[2]["files"]}
    assert held[-1]["bytes"] - held[3]["bytes"] < 16 * 2**20
