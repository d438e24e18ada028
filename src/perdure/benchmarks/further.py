"""Tables beside the main one: further scores, every order by itself, a long stream in parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perdure.benchmarks.concepts import DRAWING
from perdure.benchmarks.records import Record, grouped
from perdure.benchmarks.results import Results
from perdure.benchmarks.series import by_place
from perdure.measuring.tables import Column, markdown_table

__all__ = ["LONG", "further_tables"]

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
    """(heading, Markdown table) of runs that draw.

    ``methods`` are the main table's rows; ``beside`` are the columns that the main one leaves out.
    """
    tables: list[tuple[str, str]] = []
    if results.kind is not DRAWING:
        return tables
    tables.append(("Further scores", markdown_table(methods, beside)))
    if rows := _orders(results):
        shown = [column for column in columns if column.key not in ("parameters", "stored")]
        table = markdown_table(rows, shown, first="Method, order")
        tables.append(("Each order by itself", table))
    if rows := _places(results):
        about = {column.key: column for column in columns}
        shown = [about[key] for key in ("after", "final", "forgetting")]
        table = markdown_table(rows, shown, first="Method, concepts")
        tables.append(("By place in the stream", table))
    return tables


def _orders(results: Results) -> dict[str, dict[str, list[float]]]:
    return {
        f"{method.title}, {order}": _rows(records)
        for method in results.methods
        for order, records in method.orders.items()
        if len(method.orders) > 1
    }


def _rows(records: Sequence[Record]) -> dict[str, list[float]]:
    return next(iter(grouped(records).values()))


def _places(results: Results) -> dict[str, dict[str, list[float]]]:
    rows: dict[str, dict[str, list[float]]] = {}
    for method in results.methods:
        for record in method.first:
            if len(record.matrix.concepts) < LONG or len(record.matrix.tasks) < 2:
                continue
            for place, (after, final) in by_place(record.matrix, MAIN, PARTS).items():
                row = rows.setdefault(f"{method.title}, {place[0]} to {place[1]}", {})
                for key, value in zip(
                    ("after", "final", "forgetting"), (after, final, after - final), strict=True
                ):
                    row.setdefault(key, []).append(value)
    return rows
