"""Everything that a folder of records says: tables, and a page of figures and pictures."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from perdure.benchmarks.page import page
from perdure.benchmarks.records import COLUMNS, grouped, numbers
from perdure.benchmarks.results import Results, read_results
from perdure.benchmarks.words import table_note
from perdure.measuring.latex import latex_table
from perdure.measuring.report import render, write_page
from perdure.measuring.tables import Column, markdown_table

__all__ = ["columns_of", "csv_table", "write_results"]


def write_results(folder: Path) -> list[Path]:
    """Write `results.md`, `.tex`, `.csv` and `report.html` beside the records; returns the paths.

    Raises PerdureError where there is no record, or where records do not belong together.
    """
    results = read_results(folder)
    columns = columns_of(results)
    rows = {method.title: next(iter(grouped(method.first).values())) for method in results.methods}
    note = " ".join([*results.warnings(), table_note(results)])
    texts = {
        "results.md": f"# {results.stream}\n\n{markdown_table(rows, columns)}\n{note}\n",
        "results.tex": latex_table(
            rows, columns, caption=f"{results.stream}. {note}", label=f"tab:{results.stream}"
        ),
        "results.csv": csv_table(results, columns),
        "report.html": render("bench.html.j2", page(results, rows, columns), Path(__file__).parent),
    }
    for name, text in texts.items():
        write_page(folder / name, text)
    return [folder / name for name in texts]


def columns_of(results: Results) -> list[Column]:
    """`COLUMNS`, those left out of which no run has a value."""
    known = {key for record in results.records for key in numbers(record)}
    return [column for column in COLUMNS if column.key in known]


def csv_table(results: Results, columns: list[Column]) -> str:
    """One row a run of any order: what it was, and its raw numbers, unrounded."""
    text = io.StringIO()
    facts = ["method", "stream", "order", "seed", "base", "base_hash", "encoder", "pictures"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*facts, *(column.key for column in columns)])
    for record in results.records:
        data, found = record.data, numbers(record)
        writer.writerow(
            [
                record.method,
                results.stream,
                record.order,
                record.seed,
                data["base"]["name"],
                data["base"]["hash"],
                data["encoder"],
                data["pictures"],
                *(found.get(column.key, "") for column in columns),
            ]
        )
    return text.getvalue()
