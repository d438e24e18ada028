"""What a finished learn says of itself that its user should know."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["EATEN", "eaten"]

EATEN = 10.0
"""A penalty that is so many times the loss at the end leaves little else to be learned."""
END = 0.1
"""The share of the steps that is the end."""


def eaten(log: Path) -> float | None:
    """How many times the loss the penalty is at the end of a log; None where it is not too many."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    last = lines[-max(1, round(END * len(lines))) :]
    loss, penalty = (sum(line[key] for line in last) for key in ("loss", "penalty"))
    return penalty / loss if penalty > EATEN * loss > 0 else None
