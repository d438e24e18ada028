"""Cells of a grid that learn nothing: for tests of the grid itself."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from perdure.errors import PerdureError
from perdure.machine import peak_memory


@dataclass(frozen=True, kw_only=True)
class Sleep:
    """A cell that counts how often it ran, and may fail or take its time."""

    record: Path
    fails: bool = False
    seconds: float = 0.0


def count(cell: Sleep) -> Mapping[str, Any]:
    """Leave a mark, wait, and return a record."""
    with open(cell.record.with_suffix(".ran"), "a") as file:
        file.write("x")
    time.sleep(cell.seconds)
    if cell.fails:
        raise PerdureError("The picture is broken: take it away.")
    return {"name": cell.record.stem}


def peak_after(size: int) -> int | None:
    """Touch so many bytes, and say the most that this process ever had."""
    assert len(bytes(size)) == size and b"1" * size
    return peak_memory(torch.device("cpu"))
