"""Tables beside the main one: differences, further scores, orders, parts, kinds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from perdure.benchmarks.concepts import DRAWING
from perdure.benchmarks.paired import best_of, paired_tables
from perdure.benchmarks.records import Record, grouped
from perdure.benchmarks.results import Results
from perdure.benchmarks.series import by_place
from perdure.measuring.matrix import final, right_after
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
    """(heading, Markdown table).

    ``methods`` are the main table's rows; ``beside`` are the columns that the main one leaves out.
    Where rows are of several orders, parts or kinds there is no best: those are not equally hard.
    """
    tables: list[tuple[str, str]] = []
    tables += [(one.heading, one.markdown()) for one in paired_tables(results, columns)]
    if results.kind is not DRAWING:
        return tables
    best = best_of(results, beside)
    tables.append(("Further scores", markdown_table(methods, beside, best=best)))
    if rows := _orders(results):
        shown = [column for column in columns if column.key not in ("parameters", "stored")]
        table = markdown_table(rows, shown, first="Method, order")
        tables.append(("Each order by itself", table))
    if rows := _places(results):
        about = {column.key: column for column in columns}
        shown = [about[key] for key in ("after", "final", "forgetting")]
        table = markdown_table(rows, shown, first="Method, concepts")
        tables.append(("By place in the stream", table))
    if rows := _by_kind(results):
        about = {column.key: column for column in columns}
        shown = [about[key] for key in ("after", "final", "alignment", "text") if key in about]
        table = markdown_table(rows, shown, first="Method, kind")
        tables.append(("By kind of concept", table))
    return tables


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
