"""Records of runs, read back: which belong together, and the numbers that tables show of them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perdure.benchmarks.runs import FORMAT
from perdure.errors import PerdureError
from perdure.measuring.matrix import TaskMatrix, accuracy_final, forgetting, mean_right_after
from perdure.measuring.tables import Column

__all__ = ["COLUMNS", "Record", "grouped", "numbers", "read_records"]

COLUMNS = (
    Column(key="after", title="identity, right after", digits=3),
    Column(key="final", title="identity, at the end", digits=3),
    Column(key="forgetting", title="forgetting", higher_is_better=False, digits=3),
    Column(key="reach", title="way from floor to ceiling, right after"),
    Column(key="alignment", title="image alignment, at the end", digits=3),
    Column(key="text", title="text alignment", digits=3),
    Column(key="drift", title="base drift", higher_is_better=False, digits=3),
    Column(key="pair", title="both recognised, plain"),
    Column(key="boxed", title="both recognised, boxes"),
    Column(key="seconds", title="s a concept", higher_is_better=False, digits=1),
    Column(key="parameters", title="trained", higher_is_better=False, digits=0),
    Column(key="stored", title="kB stored a concept", higher_is_better=False, digits=0),
)


@dataclass(frozen=True, eq=False)
class Record:
    """One finished run, as its file says."""

    path: Path
    data: Mapping[str, Any]
    matrix: TaskMatrix

    @property
    def method(self) -> str:
        """The method's name, and what was chosen for it where a grid varied something."""
        chosen = (f"{key} {value}" for key, value in self.data["chosen"].items())
        return ", ".join([self.data["method"], *chosen])

    @property
    def order(self) -> int:
        """Number of the permutation of the stream; 0 is the order as listed."""
        return int(self.data["stream"]["order"])

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.data["seed"])


def read_records(folder: Path) -> list[Record]:
    """All records of a folder, by name; PerdureError for a file that is none."""
    records = []
    for path in sorted(folder.glob("*.json")):
        try:
            data = json.loads(path.read_text())
            if data["format"] != FORMAT:
                raise ValueError(f"its format is {data['format']}, not {FORMAT}")
            matrix = TaskMatrix.from_json(json.dumps(data["matrix"]))
        except (ValueError, KeyError, TypeError) as error:
            raise PerdureError(
                f"{path} is no record of a run ({error}): move it elsewhere, or delete it and run "
                "the grid again."
            ) from error
        records.append(Record(path, data, matrix))
    return records


def numbers(record: Record) -> dict[str, float]:
    """The table's numbers of one record; what was not measured, or has no meaning, is left out."""
    matrix, data = record.matrix, record.data
    reached = [
        (matrix.need("identity", matrix.learned_at(name), name) - floor) / (ceiling - floor)
        for name, (ceiling, floor) in data["bounds"].items()
    ]
    together = data["together"]
    found = {
        "after": mean_right_after(matrix, "identity"),
        "final": accuracy_final(matrix, "identity"),
        "reach": statistics.fmean(reached),
        "alignment": accuracy_final(matrix, "image_alignment"),
        "text": accuracy_final(matrix, "text_alignment"),
        "drift": accuracy_final(matrix, "base_drift"),
        "seconds": sum(data["seconds"]) / len(matrix.concepts),
        "parameters": data["parameters"],
        "stored": data["stored_bytes"] / 1000 / len(matrix.concepts),
    }
    if len(matrix.tasks) > 1:
        found["forgetting"] = forgetting(matrix, "identity")
    if together:
        found |= {"pair": together["plain"]["both"], "boxed": together["boxes"]["both"]}
    return found


def grouped(records: Sequence[Record]) -> dict[str, dict[str, list[float]]]:
    """Method (and choice) -> number -> one value a run: what `markdown_table` takes."""
    rows: dict[str, dict[str, list[float]]] = {}
    for record in records:
        row = rows.setdefault(record.method, {})
        for key, value in numbers(record).items():
            row.setdefault(key, []).append(value)
    return rows
