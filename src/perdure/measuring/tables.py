"""Methods beside each other in numbers: for the docs in Markdown, and for the report's page."""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perdure.measuring.contents import MethodResult, Report
from perdure.measuring.matrix import DERIVED, TaskMatrix

__all__ = [
    "MISSING",
    "WORDS",
    "Best",
    "Column",
    "cells",
    "markdown_table",
    "method_table",
    "number",
]

MINUS = "\N{MINUS SIGN}"
MISSING = "\N{EN DASH}"

WORDS = {  # how the page calls the derived numbers
    "mean_right_after": "right after learning",
    "accuracy_final": "at the end",
    "final_earlier": "at the end, all but the last",
    "forgetting": "forgetting",
    "forgetting_max": "forgetting from the best earlier time",
    "forgetting_coda": "forgetting by one further task",
}


Best = Mapping[str, Collection[str]]
"""Column -> the rows that are marked in it."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of `markdown_table`: which number, its heading and its format."""

    key: str
    title: str
    higher_is_better: bool = True
    scale: float = 1.0
    digits: int = 2


def cells(
    rows: Mapping[str, Mapping[str, Sequence[float]]],
    columns: Sequence[Column],
    best: Best | None = None,
) -> dict[str, list[tuple[str, bool]]]:
    """Mean ± sample standard deviation, and whether it is among the ``best``; a cell a column.

    `rows[method][key]`: one value a seed. A number that no seed changes has no spread. Which are
    best a spread cannot say: that takes pairs (`benchmarks/paired.py`).
    """
    known = best or {}
    return {
        name: [
            (_spread(values.get(c.key, ()), c.scale, c.digits), name in known.get(c.key, ()))
            for c in columns
        ]
        for name, values in rows.items()
    }


def markdown_table(
    rows: Mapping[str, Mapping[str, Sequence[float]]],
    columns: Sequence[Column],
    *,
    first: str = "Method",
    best: Best | None = None,
) -> str:
    """`cells` as a Markdown table, the best of a column bold."""
    lines = [
        f"| {first} | " + " | ".join(c.title for c in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for name, row in cells(rows, columns, best).items():
        texts = [f"**{text}**" if marked else text for text, marked in row]
        lines.append(f"| {name.replace('|', chr(92) + '|')} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def number(value: float | None, digits: int = 2) -> str:
    """A value with a true minus sign and never "-0"; a dash where there is none."""
    if value is None or math.isnan(value):
        return MISSING
    text = f"{value:,.{digits}f}"
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def _spread(values: Sequence[float], scale: float = 1.0, digits: int = 2) -> str:
    if not len(values):
        return MISSING
    mean = number(statistics.fmean(values) * scale, digits)
    if math.isclose(min(values), max(values)):
        return mean
    return f"{mean} ± {number(statistics.stdev(values) * scale, digits)}"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _derived(name: str, matrices: Sequence[TaskMatrix], score: str) -> list[float]:
    """The named number of every run in which all that it needs was measured."""
    values = []
    for matrix in matrices:
        try:
            values.append(DERIVED[name](matrix, score))
        except ValueError:
            continue
    return values


def method_table(data: Report) -> dict[str, Any]:
    """The page's table: a column a method, a row a number of `DERIVED`, then a row a cost."""
    wanted = [(data.score, name) for name in WORDS if name != "final_earlier"]
    others = dict.fromkeys(s for m in data.methods for s in m.matrix.scores if s != data.score)
    for score in others:
        names = ("final_earlier",) if score == "mmd_change" else ("accuracy_final", "forgetting")
        wanted += [(score, name) for name in names]
    groups: list[dict[str, Any]] = []
    for score, name in wanted:
        about = data.describe(score)
        texts = []
        for method in data.methods:
            runs = [m for m in (method.matrix, *method.repeats) if score in m.scores]
            texts.append(_spread(_derived(name, runs, score), about.scale, about.digits))
        if set(texts) == {MISSING}:
            continue
        if not groups or groups[-1]["score"] != score:
            better = data.methods[0].matrix.higher_is_better.get(score, about.higher_is_better)
            groups.append({"score": score, "title": about.title, "better": better, "rows": []})
        groups[-1]["rows"].append({"words": WORDS[name], "cells": texts})
    seeds = max(1 + len(m.repeats) for m in data.methods)
    return {"groups": groups, "costs": _costs(data.methods), "seeds": seeds}


def _costs(methods: Sequence[MethodResult]) -> list[dict[str, Any]]:
    seconds = [f"{statistics.fmean(m.seconds):.1f} s" if m.seconds else MISSING for m in methods]
    kept = [_size(statistics.fmean(m.kept_bytes)) if m.kept_bytes else MISSING for m in methods]
    rows = {"learning time of a task, mean": seconds, "kept on disk of a task, mean": kept}
    costs = [{"words": w, "cells": texts} for w, texts in rows.items() if set(texts) != {MISSING}]
    for fact in dict.fromkeys(key for m in methods for key in m.facts):
        costs.append({"words": fact, "cells": [m.facts.get(fact, MISSING) for m in methods]})
    return costs
