"""Records of runs, read back: what each is of, and the numbers that tables show of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from perdure.benchmarks.classes import CLASSIFICATION
from perdure.benchmarks.concepts import DRAWING
from perdure.benchmarks.kind import Data, Kind
from perdure.errors import PerdureError
from perdure.measuring.matrix import TaskMatrix
from perdure.untrusted import read_json

__all__ = [
    "KINDS",
    "OF_THE_MACHINE",
    "Record",
    "check_record",
    "grouped",
    "numbers",
    "read_record",
    "read_records",
]

_NEEDED = {
    "method", "config", "chosen", "asked", "settings", "seed", "stream", "seconds", "versions",
    "peak_memory",
}  # fmt: skip
OF_THE_MACHINE = ("seconds", "memory")
"""Numbers that runs on two machines do not share."""
KINDS: Mapping[str, Kind] = {"drawing": DRAWING, "classification": CLASSIFICATION}
"""What a record says under `kind`."""


@dataclass(frozen=True, eq=False)
class Record:
    """One finished run, as its file says."""

    path: Path
    data: Data
    matrix: TaskMatrix

    @property
    def kind(self) -> Kind:
        """How it is read."""
        return KINDS[self.data["kind"]]

    @property
    def method(self) -> str:
        """The method's name, and what was chosen for it where a grid varied something."""
        chosen = (f"{key} {value}" for key, value in self.data["chosen"].items())
        return ", ".join([self.data["method"], *chosen])

    @property
    def order(self) -> int:
        """Number of the permutation of the stream; 0 is the order as listed, or the seed's."""
        return int(self.data["stream"].get("order", 0))

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.data["seed"])

    @cached_property
    def parts(self) -> dict[str, dict[str, float]]:
        """Number -> concept -> value; of numbers that concepts do not have, one value under ""."""
        whole = {key: {"": value} for key, value in numbers(self).items()}
        return whole | self.kind.parts(self.data, self.matrix)

    @property
    def machine(self) -> str:
        """The processor's or the GPU's name."""
        return str(self.data["versions"].get("machine", ""))


def read_record(path: Path) -> Record:
    """The record in a file; PerdureError where it holds none."""
    try:
        data = read_json(path)
        if data["kind"] not in KINDS:
            raise ValueError(f"its kind is {data['kind']!r}, none of {', '.join(KINDS)}")
        if data["format"] != (known := KINDS[data["kind"]].format):
            raise ValueError(f"its format is {data['format']}, not {known}")
        if lacking := sorted((_NEEDED | KINDS[data["kind"]].alike.keys()) - data.keys()):
            raise ValueError(f"it says nothing of {', '.join(lacking)}")
        matrix = TaskMatrix.from_json(json.dumps(data["matrix"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PerdureError(
            f"{path} is no record of a run ({error}): move it elsewhere, or delete it and run "
            "the grid again."
        ) from error
    return Record(path, data, matrix)


def check_record(path: Path, wanted: Mapping[str, Any]) -> None:
    """PerdureError where the record in a file is of a run with something else than ``wanted``."""
    record = read_record(path)
    found = record.kind.asked(record.data)
    for key, value in json.loads(json.dumps(wanted)).items():
        if found.get(key) != value:
            plain = not isinstance(value, dict | list)
            told = f"{key} {found.get(key)!r}, not {value!r}" if plain else f"another {key}"
            raise PerdureError(
                f"{path} is of a run with {told}: choose another --out, or remove it."
            )


def read_records(folder: Path) -> list[Record]:
    """All records of a folder, by name; PerdureError for a file that is none."""
    return [read_record(path) for path in sorted(folder.glob("*.json"))]


def numbers(record: Record) -> dict[str, float]:
    """The table's numbers of one record; what was not measured, or has no meaning, is left out."""
    return record.kind.numbers(record.data, record.matrix)


def grouped(records: Sequence[Record]) -> dict[str, dict[str, list[float]]]:
    """Method (and choice) -> number -> one value a run: what `markdown_table` takes.

    Times and memory of two machines have no mean: they are of the machine of a method's first run.
    """
    rows: dict[str, dict[str, list[float]]] = {}
    machines: dict[str, str] = {}
    for record in records:
        row = rows.setdefault(record.method, {})
        alike = record.machine == machines.setdefault(record.method, record.machine)
        for key, value in numbers(record).items():
            if alike or key not in OF_THE_MACHINE:
                row.setdefault(key, []).append(value)
    return rows
