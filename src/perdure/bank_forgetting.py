"""What other files of a bank than a concept's own hold of it, and what becomes of that."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from perdure.bank_format import State
from perdure.durable import replace_file

__all__ = ["EVALUATION", "forget_traces"]

EVALUATION = ("evaluation/matrix.json", "evaluation/report.html")
"""What `perdure evaluate` writes into a bank: scores and pictures of all of its concepts."""


def forget_traces(path: Path, state: State, concept: str) -> None:
    """Delete what the bank at ``path`` holds of a concept beside what bank.json lists of it.

    Later tasks say what they cost it (`cost.json`), and show it (`cost.png`); evaluations show all
    concepts, and can be made again. A crash in here leaves a bank with less of these.
    """
    for name in EVALUATION:
        (path / name).unlink(missing_ok=True)
    for task in state.tasks:
        folder = path / "tasks" / task.folder
        with suppress(FileNotFoundError):
            text = (folder / "cost.json").read_text(encoding="utf-8")
            try:
                said = json.loads(text)
                costs = [one for one in said["costs"] if one["concept"] != concept]
                if len(costs) == len(said["costs"]):
                    continue
                rest = json.dumps({**said, "costs": costs}, indent=1).encode()
                replace_file(folder / "cost.json", rest)
            except (ValueError, KeyError, TypeError):  # no cost.json of ours
                (folder / "cost.json").unlink()
            (folder / "cost.png").unlink(missing_ok=True)
