"""Write the tables in docs/results.md anew, from the records under docs/data.

    python docs/tables.py

Between `<!-- table STREAM -->` and `<!-- end -->` goes the main table of that stream's `results.md`
and its note; `<!-- table STREAM: HEADING -->` takes what stands there under a further heading.
"""

import re
from pathlib import Path

from perdure.benchmarks.report import write_results

DOCS = Path(__file__).parent
MARKED = re.compile(r"(<!-- table ([^\s:]+)(?:: ([^>]+))? -->\n).*?(<!-- end -->)", re.DOTALL)


def table(stream: str, heading: str | None) -> str:
    """What the records of a stream say, under one heading of their `results.md`."""
    text = write_results(DOCS / "data" / stream)[0].read_text(encoding="utf-8")
    parts = dict(part.split("\n", 1) for part in re.split(r"^#+ ", text, flags=re.MULTILINE)[1:])
    title = next(iter(parts)) if heading is None else heading
    return parts[title].strip()


def main() -> None:
    page = DOCS / "results.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(
        MARKED.sub(lambda m: f"{m[1]}\n{table(m[2], m[3])}\n\n{m[4]}", text), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
