"""Methods beside each other in numbers: for the docs in Markdown, and for the report's page."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perdure.measuring.contents import MethodResult, Report
from perdure.measuring.matrix import DERIVED, TaskMatrix

__all__ = ["MISSING", "WORDS", "Column", "cells", "markdown_table", "method_table", "number"]

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


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of `markdown_table`: which number, its heading and its format."""

    key: str
    title: str
    higher_is_better: bool = True
    scale: float = 1.0
    digits: int = 2


def cells(
    rows: Mapping[str, Mapping[str, Sequence[float]]], columns: Sequence[Column]
) -> dict[str, list[tuple[str, bool]]]:
    """Mean ± sample standard deviation, and whether it is among the best; a cell a column.

    `rows[method][key]`: one value a seed. The best mean of a column is marked, and so is every mean
    within the larger of the two spreads of it (a tie). One seed decides nothing: no cell is marked
    in a column where a method has fewer than two. A number that no seed changes has no spread.
    """
    best = {column.key: _winners(rows, column) for column in columns}
    return {
        name: [
            (_spread(values.get(c.key, ()), c.scale, c.digits), name in best[c.key])
            for c in columns
        ]
        for name, values in rows.items()
    }


def markdown_table(
    rows: Mapping[str, Mapping[str, Sequence[float]]],
    columns: Sequence[Column],
    *,
    first: str = "Method",
    mark_best: bool = True,
) -> str:
    """`cells` as a Markdown table, the best of a column and its ties bold."""
    lines = [
        f"| {first} | " + " | ".join(c.title for c in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for name, row in cells(rows, columns).items():
        texts = [f"**{text}**" if best and mark_best else text for text, best in row]
        lines.append(f"| {name.replace('|', chr(92) + '|')} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def _winners(rows: Mapping[str, Mapping[str, Sequence[float]]], column: Column) -> set[str]:
    seen = {name: values.get(column.key, ()) for name, values in rows.items()}
    seen = {name: values for name, values in seen.items() if len(values)}
    if len(seen) < 2 or any(len(values) < 2 for values in seen.values()):
        return set()
    mean = {name: statistics.fmean(values) for name, values in seen.items()}
    width = {name: statistics.stdev(values) for name, values in seen.items()}
    top = (max if column.higher_is_better else min)(mean, key=lambda name: mean[name])
    return {n for n in mean if abs(mean[n] - mean[top]) <= max(width[n], width[top])}


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
