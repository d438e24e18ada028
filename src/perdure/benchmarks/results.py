"""What a folder of records amounts to: the runs of each method, checked to belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perdure.benchmarks.kind import Kind
from perdure.benchmarks.records import Record, read_records
from perdure.errors import PerdureError

__all__ = ["MethodRuns", "Results", "read_results"]

_OWN = {"config": "configuration", "settings": "settings"}
"""What must agree within a method, beside what its kind wants alike."""
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
    def kind(self) -> Kind:
        """What all of them are records of."""
        return self.records[0].kind

    @property
    def stream(self) -> str:
        """Its name."""
        return self.kind.title(self.data)

    def distinct(self, key: str) -> dict[str, list[str]]:
        """What the records say under ``key``, in words -> the titles of the methods that say it."""
        found: dict[str, list[str]] = {}
        for method in self.methods:
            for said in dict.fromkeys(_words(record.data[key]) for record in method.records):
                found.setdefault(said, []).append(method.title)
        return found

    def warnings(self) -> list[str]:
        """Where runs were not made alike, and what that means for the table."""
        told = []
        for key, name in self.kind.alike.items():
            if len(kinds := self.distinct(key)) > 1:
                parts = (f"{said} ({', '.join(titles)})" for said, titles in kinds.items())
                told.append(
                    f"The methods differ in their {name}, so their numbers do not compare: "
                    f"{'; '.join(parts)}."
                )
        if any(len({one.machine for one in method.first}) > 1 for method in self.methods):
            told.append(
                "Where a method's runs were made on several machines, its seconds and its memory "
                "are of those on its first run's machine."
            )
        orders = {method.records[0].order for method in self.methods}
        if len(orders) > 1:
            told.append(
                "Not every method was run on the stream's first order: where one was not, the "
                "table shows its own first."
            )
        return told


def read_results(folder: Path) -> Results:
    """The records of a folder, by method; PerdureError where they do not belong together.

    They must be of one kind and one stream, and within a method of one configuration, alike in what
    their kind wants alike, each seed and order once.
    """
    records = read_records(folder) if folder.is_dir() else []
    if not records:
        raise PerdureError(
            f"There is no record of a run in {folder}: run the stream first (without --report)."
        )
    for record in records[1:]:
        for what, of in (("kinds", lambda one: one.data["kind"]), ("streams", _stream)):
            if of(record) != of(records[0]):
                raise PerdureError(
                    f"{records[0].path} and {record.path} are of different {what}: keep each "
                    "stream's records in a folder of its own."
                )
    methods: dict[str, list[Record]] = {}
    for record in records:
        methods.setdefault(record.method, []).append(record)
    found = []
    for name in sorted(methods, key=lambda name: _place(records[0].kind, name)):
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
    for key, name in (*one.kind.alike.items(), *_OWN.items()):
        mine, theirs = (_comparable(key, record) for record in (one, other))
        if mine != theirs:
            raise PerdureError(
                f"{one.path} and {other.path} are runs of one method, but differ in their {name}: "
                "move one of them elsewhere, and run it again."
            )


def _comparable(key: str, record: Record) -> Any:
    value, method = record.data[key], record.kind.methods.get(record.data["method"])
    # An older record lacks newer options, which were as their defaults are.
    if key == "settings":
        value = {**record.kind.settings().to_json(), **value}
        return {name: one for name, one in value.items() if name not in _OF_THE_TASK}
    if key == "config" and method is not None:
        return {**method.Config().to_json(), **value}
    return value


def _stream(record: Record) -> Any:
    return record.kind.stream(record.data)


def _place(kind: Kind, name: str) -> tuple[int, str]:
    method = name.partition(",")[0]
    return (kind.order.index(method) if method in kind.order else len(kind.order)), name


def _title(record: Record) -> str:
    """The method's own title, and what was chosen for it."""
    method = record.data["method"]
    known = record.kind.methods
    name = known[method].title.partition(":")[0] if method in known else method
    chosen = [
        f"{key.removeprefix('method.').replace('_', ' ')} {value}"
        for key, value in record.data["chosen"].items()
    ]
    return f"{name} ({', '.join(chosen)})" if chosen else name


def _words(value: Any) -> str:
    """A model by its name and the start of its hash."""
    if isinstance(value, Mapping):
        if "hash" in value:
            return f"{value['name']} {value['hash'][:8]}"
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return str(value)
