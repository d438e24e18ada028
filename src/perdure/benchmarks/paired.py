"""Methods against each other: differences paired over seeds and concepts, with their intervals."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perdure.benchmarks.records import OF_THE_MACHINE, Record
from perdure.benchmarks.results import MethodRuns, Results
from perdure.measuring.intervals import bootstrap_interval
from perdure.measuring.tables import Column, number

__all__ = ["Difference", "Paired", "best_of", "concepts_each", "difference", "paired_tables"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One method's number less another's."""

    mean: float
    low: float
    high: float
    """Ends of the interval that `bootstrap_interval` gives."""
    seeds: int

    @property
    def told(self) -> bool:
        """Does the interval exclude zero?"""
        return self.low > 0 or self.high < 0

    def words(self, scale: float = 1.0, digits: int = 3) -> str:
        """`-0.09 [-0.16, -0.02]`, with true minus signs."""
        mean, low, high = (
            number(value * scale, digits) for value in (self.mean, self.low, self.high)
        )
        return f"{mean} [{low}, {high}]"


def difference(one: Sequence[Record], other: Sequence[Record], key: str) -> Difference | None:
    """The mean of ``key`` in ``one`` less that in ``other``, over seeds and concepts of both.

    A number that concepts do not have one by one is one value a seed; of seconds and memory only
    runs on one machine are paired. None where no seed is in both, or one value is all there is.
    """
    theirs = {record.seed: record for record in other}
    rows: list[dict[str, float]] = []
    told: list[list[str]] = []
    for mine in one:
        if (their := theirs.get(mine.seed)) is None:
            continue
        if key in OF_THE_MACHINE and mine.machine != their.machine:
            continue
        ours, yours = mine.parts.get(key, {}), their.parts.get(key, {})
        if both := [name for name in ours if name in yours]:
            rows.append({name: ours[name] - yours[name] for name in both})
            told.append(_taught(mine))
    if not rows:
        return None
    crossed = all(names == told[0] for names in told)
    shared = [name for name in rows[0] if all(name in row for row in rows)] if crossed else []
    values = [[row[name] for name in shared] if shared else list(row.values()) for row in rows]
    interval = bootstrap_interval(values, crossed=bool(shared))
    if interval is None:
        return None
    mean = statistics.fmean(statistics.fmean(row) for row in values)
    return Difference(mean=mean, low=interval[0], high=interval[1], seeds=len(rows))


def _taught(record: Record) -> list[str]:
    """What the run was taught: an identity is more than a name."""
    concepts = record.data["stream"].get("concepts", [])
    return sorted(json.dumps(one, sort_keys=True) for one in concepts)


def concepts_each(results: Results) -> str:
    """Whether the seeds were taught the same concepts, in a sentence; empty of one seed."""
    runs = {record.seed: _taught(record) for method in results.methods for record in method.first}
    if len(runs) < 2 or not any(runs.values()):
        return ""
    same = len({json.dumps(names) for names in runs.values()}) == 1
    return f"Every seed teaches {'the same concepts' if same else 'concepts of its own'}."


def best_of(results: Results, columns: Sequence[Column]) -> dict[str, set[str]]:
    """Column -> titles of the best method and of all that are not told from it.

    Empty where some method has one run, and where nothing at all is told from the best.
    """
    return {column.key: _best(results.methods, column) for column in columns}


def _best(methods: Sequence[MethodRuns], column: Column) -> set[str]:
    means: dict[str, float] = {}
    runs: dict[str, Sequence[Record]] = {}
    for method in methods:
        own = [record.parts[column.key] for record in method.first if column.key in record.parts]
        if own:
            means[method.title] = statistics.fmean(statistics.fmean(one.values()) for one in own)
            runs[method.title] = method.first
    if len(means) < 2 or any(len(own) < 2 for own in runs.values()):
        return set()
    top = (max if column.higher_is_better else min)(means, key=lambda title: means[title])
    ties = {
        title
        for title in means
        if title == top
        or (apart := difference(runs[title], runs[top], column.key)) is None
        or not apart.told
    }
    return ties if len(ties) < len(means) else set()


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Every method set against one of them."""

    name: str
    """The title of that one."""
    rows: Mapping[str, Sequence[Difference | None]]
    """Title -> a difference a column."""
    columns: Sequence[Column]

    @property
    def heading(self) -> str:
        """Of the table."""
        return f"Less {self.name}"

    @property
    def cells(self) -> dict[str, list[tuple[str, bool]]]:
        """Title -> the differences in words, and whether the interval excludes zero."""
        return {
            title: [
                (one.words(column.scale, column.digits), one.told) if one else (number(None), False)
                for one, column in zip(row, self.columns, strict=True)
            ]
            for title, row in self.rows.items()
        }

    def markdown(self) -> str:
        """A table; bold where the interval excludes zero."""
        heads = " | ".join(column.title for column in self.columns)
        lines = [f"| Method | {heads} |", "|---|" + "---:|" * len(self.columns)]
        for title, row in self.cells.items():
            texts = (f"**{text}**" if told else text for text, told in row)
            lines.append(f"| {title} | {' | '.join(texts)} |")
        return "\n".join(lines) + "\n"


def paired_tables(results: Results, columns: Sequence[Column]) -> list[Paired]:
    """A table for each method that the kind of record names, where it was run."""
    tables = []
    for name, keys in results.kind.paired:
        base = next((one for one in results.methods if one.first[0].method == name), None)
        if base is None:
            continue
        shown = [column for column in columns if column.key in keys]
        rows = {
            method.title: [difference(method.first, base.first, column.key) for column in shown]
            for method in results.methods
            if method is not base
        }
        rows = {title: row for title, row in rows.items() if any(row)}
        if rows:
            title = results.kind.methods[name].title.partition(":")[0]
            tables.append(Paired(name=title, rows=rows, columns=shown))
    return tables
