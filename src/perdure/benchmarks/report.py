"""Everything that a folder of records says: tables, and a page of figures and pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from perdure.benchmarks import class_page, class_words, page, words
from perdure.benchmarks.classes import CLASSIFICATION
from perdure.benchmarks.further import further_tables
from perdure.benchmarks.paired import best_of
from perdure.benchmarks.records import grouped, numbers
from perdure.benchmarks.results import Results, read_results
from perdure.measuring.latex import latex_table
from perdure.measuring.report import render, write_page
from perdure.measuring.tables import Column, markdown_table

__all__ = ["columns_of", "csv_table", "in_markdown", "rows_of", "write_results"]


def write_results(folder: Path) -> list[Path]:
    """Write `results.md`, `.tex`, `.csv` and `report.html` beside the records; returns the paths.

    Raises PerdureError where there is no record, or where records do not belong together.
    """
    results = read_results(folder)
    columns = columns_of(results, results.kind.columns)
    beside = columns_of(results, results.kind.further)
    rows = rows_of(results)
    best = best_of(results, [*columns, *beside])
    classes = results.kind is CLASSIFICATION
    shown, template = (class_page, "classes.html.j2") if classes else (page, "bench.html.j2")
    note = note_of(results)
    texts = {
        "results.md": in_markdown(results),
        "results.tex": latex_table(
            rows,
            columns,
            caption=f"{results.stream}. {note}",
            label=f"tab:{results.stream.replace(' ', '-')}",
            best=best,
        ),
        "results.csv": csv_table(results, [*columns, *beside]),
        "report.html": render(
            template, shown.page(results, rows, [*columns, *beside], best), Path(__file__).parent
        ),
    }
    for name, text in texts.items():
        write_page(folder / name, text)
    return [folder / name for name in texts]


def rows_of(results: Results) -> dict[str, dict[str, list[float]]]:
    """A method's title -> number -> one value a seed, of the stream's first order."""
    return {method.title: next(iter(grouped(method.first).values())) for method in results.methods}


def note_of(results: Results) -> str:
    """What has to be known to read the main table."""
    about = class_words if results.kind is CLASSIFICATION else words
    return " ".join([*results.warnings(), about.table_note(results)])


def in_markdown(results: Results) -> str:
    """The main table, its note, and the further ones under a heading each."""
    columns = columns_of(results, results.kind.columns)
    beside = columns_of(results, results.kind.further)
    rows = rows_of(results)
    main = markdown_table(rows, columns, best=best_of(results, columns))
    further = "".join(
        f"\n## {heading}\n\n{table}"
        for heading, table in further_tables(results, rows, columns, beside)
    )
    return f"# {results.stream}\n\n{main}\n{note_of(results)}\n{further}"


def columns_of(results: Results, columns: Sequence[Column]) -> list[Column]:
    """Those of the columns of which some run has a value."""
    known = {key for record in results.records for key in numbers(record)}
    return [column for column in columns if column.key in known]


def csv_table(results: Results, columns: list[Column]) -> str:
    """One row a run of any order: what it was, and its raw numbers, unrounded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    facts = results.kind.facts
    writer.writerow(["method", "stream", *facts(results.data), *(column.key for column in columns)])
    for record in results.records:
        found = numbers(record)
        writer.writerow(
            [
                record.method,
                record.data["stream"]["name"],
                *facts(record.data).values(),
                *(found.get(column.key, "") for column in columns),
            ]
        )
    return text.getvalue()
