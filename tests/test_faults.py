"""A short form of `make faults`: a few kills and a few failing file operations of a learn.
`tests/test_bank.py` interrupts every operation of the bank's own transactions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import perdure

RUN = Path(__file__).parent / "faults" / "run.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kills_and_failing_disks_leave_the_old_state_or_the_new_one(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(perdure.__file__).parents[1])}
    out = tmp_path / "trials.json"
    asked = "--verbs learn --methods c-lora --tokens word --instants 3 --operations 1 --out"
    done = subprocess.run(
        [sys.executable, str(RUN), *asked.split(), str(out)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    trials = json.loads(out.read_text())
    assert len(trials) >= 3 and not [trial for trial in trials if trial["fault"]]
    assert "killed" in {trial["ended"] for trial in trials}
