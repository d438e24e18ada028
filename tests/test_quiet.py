"""The libraries beneath say nothing to perdure's users, and their own settings stay the users'."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import perdure

SOURCES = Path(perdure.__file__).parent

QUIET = """
import perdure
perdure.Base.open(device="cpu")
"""
SETTINGS = """
import diffusers.utils.logging as one, transformers.utils.logging as other
one.set_verbosity_info(), other.set_verbosity_warning(), one.disable_progress_bar()
import perdure
perdure.Base.open(device="cpu")
assert (one.get_verbosity(), other.get_verbosity()) == (20, 30)
assert (one.is_progress_bar_enabled(), other.is_progress_bar_enabled()) == (False, True)
"""


@pytest.mark.parametrize("script", [QUIET, SETTINGS], ids=["prints nothing", "leaves settings"])
def test_importing_and_opening_a_base(script: str) -> None:
    bars = {"HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"}
    spoken = {"TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY", *bars}
    plain = {name: value for name, value in os.environ.items() if name not in spoken}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=plain, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert script is SETTINGS or not done.stderr  # there diffusers comes first, and says its own


def test_pipelines_are_imported_in_quiet_alone() -> None:
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "diffusers":
                names = {one.name for one in node.names} - {"DiffusionPipeline"}  # it says nothing
                loud = [name for name in names if name.endswith("Pipeline")]
                assert not loud or path.name == "quiet.py", f"{path} imports {loud}"
