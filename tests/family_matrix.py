"""The matrix of families and methods in docs/families.md, made from what the tests run.

`python tests/family_matrix.py --write` puts it there; a test of `test_hosts.py` compares the two.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
BEGIN, END = "<!-- matrix: tests/family_matrix.py -->", "<!-- end of matrix -->"


def matrix(
    cells: list[tuple[str, str, str]],
    refused: Mapping[tuple[str, str], str],
    freed: Mapping[str, Mapping[str, Any]],
    streams: set[str],
) -> str:
    """A row a method, a column a family; ``cells`` are (family, method, kind of token) that ran."""
    families = list(dict.fromkeys(family for family, _, _ in cells))
    methods = sorted({method for _, method, _ in cells} | {method for _, method in refused})
    lines = ["| | " + " | ".join(families) + " |", "|---" * (len(families) + 1) + "|"]
    for method in methods:
        row = []
        for family in families:
            kinds = [kind for of, one, kind in cells if (of, one) == (family, method)]
            if family in streams and method in freed:
                asked = ", ".join(f"{k}={str(v).lower()}" for k, v in freed[method].items())
                row.append(f"`{asked}`")
            elif (family, method) in refused:
                row.append("refused")
            else:
                row.append(" ".join(kinds) or "-")
        lines.append(f"| {method} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def on_page() -> str:
    """The matrix as the page has it."""
    text = PAGE.read_text()
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()


def main() -> None:
    """Print the matrix, or write it into the page."""
    import test_hosts

    made = test_hosts.made_matrix()
    if "--write" in sys.argv:
        text = PAGE.read_text()
        head, tail = text[: text.index(BEGIN)], text[text.index(END) :]
        PAGE.write_text(f"{head}{BEGIN}\n\n{made}\n\n{tail}")
    else:
        print(made)


if __name__ == "__main__":
    main()
