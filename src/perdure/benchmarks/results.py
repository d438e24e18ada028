"""Records of runs to a table of means and spreads."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from perdure.measuring.matrix import (
    TaskMatrix,
    accuracy_final,
    forgetting,
    mean_right_after,
)
from perdure.measuring.tables import Column, markdown_table

__all__ = ["table_of"]

COLUMNS = (
    Column(key="after", title="identity, right after"),
    Column(key="final", title="identity, at the end"),
    Column(key="forgetting", title="forgetting", higher_is_better=False, digits=3),
    Column(key="reach", title="way from floor to ceiling, right after"),
    Column(key="text", title="text alignment", digits=3),
    Column(key="drift", title="base drift", higher_is_better=False, digits=3),
    Column(key="seconds", title="s a concept", higher_is_better=False, digits=0),
    Column(key="parameters", title="trained", higher_is_better=False, digits=0),
)


def numbers(record: dict[str, Any]) -> dict[str, float]:
    """The table's numbers of one record."""
    matrix = TaskMatrix.from_json(json.dumps(record["matrix"]))
    reached = [
        (matrix.need("identity", matrix.learned_at(name), name) - floor) / (ceiling - floor)
        for name, (ceiling, floor) in record["bounds"].items()
    ]
    later = {"forgetting": forgetting(matrix, "identity")} if len(matrix.tasks) > 1 else {}
    return later | {
        "after": mean_right_after(matrix, "identity"),
        "final": accuracy_final(matrix, "identity"),
        "reach": statistics.fmean(reached),
        "text": accuracy_final(matrix, "text_alignment"),
        "drift": accuracy_final(matrix, "base_drift"),
        "seconds": sum(record["seconds"]) / len(matrix.concepts),
        "parameters": record["parameters"],
    }


def table_of(folder: Path) -> str:
    """Markdown: one row a method (and choice of options), mean and spread over the seeds."""
    rows: dict[str, dict[str, list[float]]] = {}
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        name = ", ".join([record["method"], *(f"{k} {v}" for k, v in record["chosen"].items())])
        row = rows.setdefault(name, {})
        for key, value in numbers(record).items():
            row.setdefault(key, []).append(value)
    return markdown_table(rows, COLUMNS) if rows else "no records yet"
