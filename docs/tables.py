"""Write the tables and charts of the results pages anew, from the records under docs/data.

    python docs/tables.py            # also each stream's own results.md, .tex, .csv and report.html
    python docs/tables.py --pages    # the pages and charts alone

A page says what it wants in a comment, and gets it up to `<!-- end -->`:

    <!-- table STREAM -->            the main table of that stream and its note
    <!-- table STREAM: HEADING -->   what stands under a further heading of its results.md
    <!-- rows STREAM: METHOD; METHOD | KEY, KEY -->              a part of the main table
    <!-- apart STREAM, STREAM: METHOD - METHOD; ... | KEY, KEY -->   differences with intervals
"""

import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from charts import CHARTS

from perdure.benchmarks.paired import difference
from perdure.benchmarks.records import Record
from perdure.benchmarks.report import in_markdown, rows_of, write_results
from perdure.benchmarks.results import Results, read_results
from perdure.measuring.tables import MISSING, Column, markdown_table

DOCS = Path(__file__).parent
DATA = DOCS / "data"
MARKED = re.compile(r"(<!-- (table|rows|apart) ([^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)


@cache
def results_of(stream: str) -> Results:
    return read_results(DATA / stream)


@cache
def texts_of(stream: str) -> dict[str, str]:
    """Heading -> what stands under it in the stream's `results.md`."""
    parts = re.split(r"^#+ ", in_markdown(results_of(stream)), flags=re.MULTILINE)[1:]
    return dict(part.split("\n", 1) for part in parts)


def table(asked: str) -> str:
    stream, _, heading = asked.partition(": ")
    texts = texts_of(stream)
    return f"\n{texts[heading or next(iter(texts))].strip()}\n"


def columns(results: Results, keys: str) -> list[Column]:
    known = {one.key: one for one in (*results.kind.columns, *results.kind.further)}
    return [known[key.strip()] for key in keys.split(",")]


def rows(asked: str) -> str:
    """Methods of one stream, mean and spread; what is best is for tables of all methods to say."""
    stream, named, keys = re.split(r": | \| ", asked)
    results = results_of(stream)
    every = rows_of(results)
    return markdown_table(
        {name: every[name] for name in named.split("; ")}, columns(results, keys)
    ).strip()


def runs_of(stream: str, title: str) -> tuple[Record, ...]:
    return next((m.first for m in results_of(stream).methods if m.title == title), ())


def apart(asked: str) -> str:
    """Differences of two methods on several streams; bold where the interval excludes zero."""
    streams, pairs, keys = re.split(r": | \| ", asked)
    shown = columns(results_of(streams.split(", ")[0]), keys)
    lines = [
        "| " + " | ".join(["Stream", "less", "seeds", *(one.title for one in shown)]) + " |",
        "|---|---|---:|" + "---:|" * len(shown),
    ]
    for pair in pairs.split("; "):
        one, other = pair.split(" - ")
        for stream in streams.split(", "):
            mine, theirs = runs_of(stream, one), runs_of(stream, other)
            if not mine or not theirs:
                continue
            cells = []
            for column in shown:
                found = difference(mine, theirs, column.key)
                text = found.words(column.scale, column.digits) if found else MISSING
                cells.append(f"**{text}**" if found and found.told else text)
            seeds = len({record.seed for record in mine} & {record.seed for record in theirs})
            lines.append(f"| {stream} | {one} − {other} | {seeds} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


MAKERS: dict[str, Callable[[str], str]] = {"table": table, "rows": rows, "apart": apart}


def pages() -> list[Path]:
    return sorted(DOCS.glob("results*.md"))


def filled(text: str) -> str:
    """A page with all that it asks for."""
    return MARKED.sub(lambda m: f"{m[1]}{MAKERS[m[2]](m[3])}\n{m[4]}", text)


def main() -> None:
    if "--pages" not in sys.argv[1:]:
        for folder in sorted(path for path in DATA.iterdir() if any(path.glob("*-seed0.json"))):
            write_results(folder)
    for page in pages():
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    for name, chart in CHARTS.items():
        (DOCS / "charts").mkdir(exist_ok=True)
        (DOCS / "charts" / f"{name}.svg").write_text(chart(), encoding="utf-8")


if __name__ == "__main__":
    main()
