"""What a folder of records amounts to: the runs of each method, checked to belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perdure.benchmarks.records import Record, read_records
from perdure.errors import PerdureError
from perdure.methods import METHODS

__all__ = ["MethodRuns", "Results", "read_results"]

_ORDER = (  # what simply goes on, what is merged, the papers' methods, ours, and what bounds them
    "textual-inversion",
    "dreambooth",
    "custom-diffusion",
    "lora",
    "ewc",
    "generative-replay",
    "lora-merged",
    "custom-diffusion-merged",
    "c-lora",
    "stamina",
    "cidm",
    "fl2t",
    "gated",
    "feature-space",
    "lora-independent",
    "joint",
)
_ALIKE = ("base", "encoder", "pictures")
_OF_THE_TASK = ("seed", "templates")


@dataclass(frozen=True, kw_only=True, eq=False)
class MethodRuns:
    """All runs of one method with one choice of settings."""

    title: str
    records: tuple[Record, ...]
    """By order and seed."""

    @property
    def first(self) -> tuple[Record, ...]:
        """The runs of the first order: those that tables compare."""
        return tuple(one for one in self.records if one.order == self.records[0].order)

    @property
    def orders(self) -> dict[int, list[Record]]:
        """The runs by the number of their order."""
        found: dict[int, list[Record]] = {}
        for record in self.records:
            found.setdefault(record.order, []).append(record)
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """All runs over one stream, the methods in a stable order."""

    methods: tuple[MethodRuns, ...]

    @property
    def records(self) -> tuple[Record, ...]:
        """All of them."""
        return tuple(record for method in self.methods for record in method.records)

    @property
    def data(self) -> Mapping[str, Any]:
        """The first record: where all agree, it speaks for all."""
        return self.methods[0].records[0].data

    @property
    def stream(self) -> str:
        """Its name."""
        return str(self.data["stream"]["name"])

    @property
    def styles(self) -> tuple[str, ...]:
        """Concepts that have no identity."""
        return tuple(self.data["styles"])

    def distinct(self, key: str) -> dict[str, list[str]]:
        """What the records say under ``key``, in words -> the titles of the methods that say it."""
        found: dict[str, list[str]] = {}
        for method in self.methods:
            for said in dict.fromkeys(_words(key, record.data[key]) for record in method.records):
                found.setdefault(said, []).append(method.title)
        return found

    def warnings(self) -> list[str]:
        """Where methods were not run alike, so that their rows do not compare."""
        told = []
        for key in _ALIKE:
            if len(kinds := self.distinct(key)) > 1:
                parts = (f"{said} ({', '.join(titles)})" for said, titles in kinds.items())
                told.append(
                    f"The methods differ in their {_NAMES[key]}, so their numbers do not compare: "
                    f"{'; '.join(parts)}."
                )
        orders = {method.records[0].order for method in self.methods}
        if len(orders) > 1:
            told.append(
                "Not every method was run on the stream's first order: where one was not, the "
                "table shows its own first."
            )
        return told


_NAMES = {
    "base": "base",
    "encoder": "metric encoder",
    "pictures": "number of pictures",
    "config": "configuration",
    "settings": "settings",
}


def read_results(folder: Path) -> Results:
    """The records of a folder, by method; PerdureError where they do not belong together.

    They must be of one stream, and within a method of one base, encoder, number of pictures and
    configuration, each seed and order once.
    """
    records = read_records(folder) if folder.is_dir() else []
    if not records:
        raise PerdureError(
            f"There is no record of a run in {folder}: run the stream first (without --report)."
        )
    for record in records[1:]:
        if _stream(record) != _stream(records[0]):
            raise PerdureError(
                f"{records[0].path} and {record.path} are of different streams: keep each stream's "
                "records in a folder of its own."
            )
    methods: dict[str, list[Record]] = {}
    for record in records:
        methods.setdefault(record.method, []).append(record)
    found = []
    for name in sorted(methods, key=_place):
        runs = sorted(methods[name], key=lambda record: (record.order, record.seed))
        for one, other in zip(runs, runs[1:], strict=False):
            _check(one, other)
        found.append(MethodRuns(title=_title(runs[0]), records=tuple(runs)))
    return Results(methods=tuple(found))


def _check(one: Record, other: Record) -> None:
    """That two runs of a method may be averaged."""
    if (one.order, one.seed) == (other.order, other.seed):
        raise PerdureError(
            f"{one.path} and {other.path} are the same run (seed {one.seed}, order {one.order}): "
            "delete one of them."
        )
    for key, name in _NAMES.items():
        mine, theirs = (_comparable(key, record.data[key]) for record in (one, other))
        if mine != theirs:
            raise PerdureError(
                f"{one.path} and {other.path} are runs of one method, but differ in their {name}: "
                "move one of them elsewhere, and run it again."
            )


def _comparable(key: str, value: Any) -> Any:
    if key == "settings":
        return {name: one for name, one in value.items() if name not in _OF_THE_TASK}
    return value


def _stream(record: Record) -> tuple[Any, ...]:
    told = record.data["stream"]
    return told["name"], told["pictures"], sorted(one["name"] for one in told["concepts"])


def _place(name: str) -> tuple[int, str]:
    method = name.partition(",")[0]
    return (_ORDER.index(method) if method in _ORDER else len(_ORDER)), name


def _title(record: Record) -> str:
    """The method's own title, and what was chosen for it."""
    method = record.data["method"]
    name = METHODS[method].title.partition(":")[0] if method in METHODS else method
    chosen = [
        f"{key.removeprefix('method.').replace('_', ' ')} {value}"
        for key, value in record.data["chosen"].items()
    ]
    return f"{name} ({', '.join(chosen)})" if chosen else name


def _words(key: str, value: Any) -> str:
    return f"{value['name']} {value['hash'][:8]}" if key == "base" else str(value)
