"""Tables beside the main one: differences within a seed, further scores, orders, parts, kinds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perdure.benchmarks.concepts import DRAWING
from perdure.benchmarks.records import Record, grouped, numbers
from perdure.benchmarks.results import Results
from perdure.benchmarks.series import by_place
from perdure.measuring.matrix import final, right_after
from perdure.measuring.tables import Column, markdown_table

__all__ = ["LONG", "Paired", "further_tables", "paired_table"]

MAIN = "identity"
LONG = 20
"""Concepts from which on a stream is shown part by part."""
PARTS = 5


def further_tables(
    results: Results,
    methods: Mapping[str, Mapping[str, Sequence[float]]],
    columns: Sequence[Column],
    beside: Sequence[Column],
) -> list[tuple[str, str]]:
    """(heading, Markdown table).

    ``methods`` are the main table's rows; ``beside`` are the columns that the main one leaves out.
    Where rows are of several orders, parts or kinds there is no best: those are not equally hard.
    """
    tables: list[tuple[str, str]] = []
    if against := paired_table(results, columns):
        table = markdown_table(against.rows, against.columns, mark_best=False)
        tables.append((against.heading, table))
    if results.kind is not DRAWING:
        return tables
    tables.append(("Further scores", markdown_table(methods, beside)))
    if rows := _orders(results):
        shown = [column for column in columns if column.key not in ("parameters", "stored")]
        table = markdown_table(rows, shown, first="Method, order", mark_best=False)
        tables.append(("Each order by itself", table))
    if rows := _places(results):
        about = {column.key: column for column in columns}
        shown = [about[key] for key in ("after", "final", "forgetting")]
        table = markdown_table(rows, shown, first="Method, concepts", mark_best=False)
        tables.append(("By place in the stream", table))
    if rows := _by_kind(results):
        about = {column.key: column for column in columns}
        shown = [about[key] for key in ("after", "final", "alignment", "text") if key in about]
        table = markdown_table(rows, shown, first="Method, kind", mark_best=False)
        tables.append(("By kind of concept", table))
    return tables


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Every method set against one of them, seed by seed."""

    name: str
    """The title of that one."""
    rows: Mapping[str, Mapping[str, Sequence[float]]]
    """Row -> number -> its difference to that method's, one value a seed that both have."""
    columns: Sequence[Column]

    @property
    def heading(self) -> str:
        """Of the table."""
        return f"Less {self.name}, seed by seed"


def paired_table(results: Results, columns: Sequence[Column]) -> Paired | None:
    """Differences to the method that the kind of record names; None without one, or its runs.

    A seed decides the order of classes too, which moves all methods alike: differences within a
    seed do not have that spread.
    """
    if results.kind.paired is None:
        return None
    name, keys = results.kind.paired
    base = {
        record.seed: numbers(record)
        for method in results.methods
        for record in method.first
        if record.method == name
    }
    rows: dict[str, dict[str, list[float]]] = {}
    for method in results.methods:
        pairs = [(numbers(one), base[one.seed]) for one in method.first if one.seed in base]
        if method.first[0].method != name and len(pairs) > 1:
            rows[method.title] = {
                key: [own[key] - other[key] for own, other in pairs]
                for key in keys
                if all(key in one for pair in pairs for one in pair)
            }
    if not rows:
        return None
    return Paired(
        name=results.kind.methods[name].title.partition(":")[0],
        rows=rows,
        columns=[column for column in columns if column.key in keys],
    )


def _orders(results: Results) -> dict[str, dict[str, list[float]]]:
    return {
        f"{method.title}, {order}": _rows(records)
        for method in results.methods
        for order, records in method.orders.items()
        if len(method.orders) > 1
    }


def _by_kind(results: Results) -> dict[str, dict[str, list[float]]]:
    """Of streams with several kinds of concepts: styles have no identity, and ask for less."""
    rows: dict[str, dict[str, list[float]]] = {}
    for method in results.methods:
        for record in method.first:
            kinds = _kinds(record)
            if len(kinds) < 2:
                continue
            scores = {
                "after": right_after(record.matrix, MAIN),
                "final": final(record.matrix, MAIN),
                "alignment": final(record.matrix, "image_alignment"),
            }
            if "text_alignment" in record.matrix.scores:
                scores["text"] = final(record.matrix, "text_alignment")
            for kind, names in kinds.items():
                row = rows.setdefault(f"{method.title}, {kind}", {})
                for key, known in scores.items():
                    if own := [known[name] for name in names if name in known]:
                        row.setdefault(key, []).append(statistics.fmean(own))
    return rows


def _kinds(record: Record) -> dict[str, list[str]]:
    """Kind -> its concepts, in the stream's order; photographs are subjects or styles."""
    kinds: dict[str, list[str]] = {}
    for one in record.data["stream"]["concepts"]:
        photographed = "style" if one["name"] in record.data["styles"] else "subject"
        kinds.setdefault(one.get("domain", photographed), []).append(one["name"])
    return kinds


def _rows(records: Sequence[Record]) -> dict[str, list[float]]:
    return next(iter(grouped(records).values()))


def _places(results: Results) -> dict[str, dict[str, list[float]]]:
    rows: dict[str, dict[str, list[float]]] = {}
    for method in results.methods:
        for record in method.first:
            if len(record.matrix.concepts) < LONG or len(record.matrix.tasks) < 2:
                continue
            for place, (after, ended) in by_place(record.matrix, MAIN, PARTS).items():
                row = rows.setdefault(f"{method.title}, {place[0]} to {place[1]}", {})
                for key, value in zip(
                    ("after", "final", "forgetting"), (after, ended, after - ended), strict=True
                ):
                    row.setdefault(key, []).append(value)
    return rows
