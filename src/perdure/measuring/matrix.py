"""The task-by-time matrix of raw scores, and the numbers derived from it, each by a named function.

Only raw scores are stored. Rows are moments (after task i), columns are concepts (j).
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from perdure.durable import replace_file, writing
from perdure.measuring.scores import SCORES
from perdure.untrusted import parse_json

Row = tuple[float | None, ...]
FORMAT = 2
"""1 wrote whole rows, mostly nulls; it is still read."""


def _number(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where} must be a number or null, got {value!r}")
    return None if math.isnan(value) else float(value)


def _cut(row: Row) -> Row:
    """Up to the last measured cell."""
    return row[: 1 + max((j for j, value in enumerate(row) if value is not None), default=-1)]


@dataclass(frozen=True, kw_only=True)
class TaskMatrix:
    """`scores[name][i][j]`: concept j measured after task i; None where it was not measured.

    `tasks` holds each task's concepts, in order; a column's index is a concept's place in
    `concepts`. Cells from before a concept was learned must be None. `higher_is_better` has an
    entry for every score, from `SCORES` where it is not given. Raises ValueError on a bad shape.
    """

    tasks: tuple[tuple[str, ...], ...]
    scores: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)
    higher_is_better: Mapping[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tasks = tuple(tuple(task) for task in self.tasks)
        names = [name for task in tasks for name in task]
        if any(not task for task in tasks):
            raise ValueError(f"tasks must each hold a concept, got {tasks}")
        if len(set(names)) != len(names):
            raise ValueError(f"tasks must hold each concept once, got {names}")
        learned = [i for i, task in enumerate(tasks) for _ in task]
        scores: dict[str, tuple[Row, ...]] = {}
        for score, rows in self.scores.items():
            if len(rows) != len(tasks) or any(len(row) != len(names) for row in rows):
                raise ValueError(
                    f"scores[{score!r}] must be {len(tasks)} rows (tasks) "
                    f"of {len(names)} values (concepts)"
                )
            scores[score] = tuple(
                tuple(_number(v, f"scores[{score!r}][{i}][{j}]") for j, v in enumerate(row))
                for i, row in enumerate(rows)
            )
            for i, row in enumerate(scores[score]):
                for j, value in enumerate(row):
                    if value is not None and i < learned[j]:
                        raise ValueError(
                            f"scores[{score!r}][{i}][{j}] measures {names[j]!r} before it was "
                            "learned; leave it None"
                        )
        direction = {name: SCORES[name].higher_is_better for name in scores if name in SCORES}
        direction.update(self.higher_is_better)
        if set(direction) != set(scores):
            odd = sorted(set(direction) ^ set(scores))
            raise ValueError(f"higher_is_better must name exactly the scores; look at {odd}")
        object.__setattr__(self, "tasks", tasks)
        object.__setattr__(self, "scores", MappingProxyType(scores))
        object.__setattr__(self, "higher_is_better", MappingProxyType(direction))

    @property
    def concepts(self) -> tuple[str, ...]:
        """All concepts in the order of learning, one a column."""
        return tuple(name for task in self.tasks for name in task)

    def learned_at(self, concept: str) -> int:
        """The index of the task that taught `concept`."""
        for i, task in enumerate(self.tasks):
            if concept in task:
                return i
        raise ValueError(f"no concept {concept!r}; there are {', '.join(self.concepts)}")

    def at(self, score: str, task: int, concept: str) -> float | None:
        """The raw score of `concept` after task number `task` (from 0; -1 is the last)."""
        return self._rows(score)[task][self.concepts.index(concept)]

    def after_task(
        self, concepts: Sequence[str], measured: Mapping[str, Mapping[str, float | None]]
    ) -> "TaskMatrix":
        """One task more: it taught `concepts`; `measured[score][concept]` was found after it."""
        tasks = (*self.tasks, tuple(concepts))
        names = [name for task in tasks for name in task]
        for score, values in measured.items():
            if unknown := sorted(set(values) - set(names)):
                raise ValueError(f"measured[{score!r}] names unknown concepts {unknown}")
        gap = (None,) * len(concepts)
        scores = {}
        for score in [*self.scores, *(s for s in measured if s not in self.scores)]:
            blank: Row = (None,) * len(self.concepts)
            old = self.scores.get(score, (blank,) * len(self.tasks))
            new = tuple(measured.get(score, {}).get(name) for name in names)
            scores[score] = (*((*row, *gap) for row in old), new)
        return replace(self, tasks=tasks, scores=scores)

    def __reduce__(self) -> tuple[Any, ...]:
        return TaskMatrix.from_json, (self.to_json(),)

    def to_json(self) -> str:
        """The matrix as JSON text; unmeasured cells are null, and left out at the end of a row."""
        return json.dumps(
            {
                "format": FORMAT,
                "tasks": self.tasks,
                "scores": {name: [_cut(row) for row in rows] for name, rows in self.scores.items()},
                "higher_is_better": dict(self.higher_is_better),
            },
            indent=1,
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str) -> "TaskMatrix":
        """Read what `to_json` wrote. Raises ValueError on anything else."""
        data = parse_json(text)
        if not isinstance(data, dict) or data.get("format") not in (1, FORMAT):
            raise ValueError(f"this is not a perdure task matrix of format {FORMAT}")
        width = sum(len(task) for task in data["tasks"])
        scores = {
            name: tuple((*row, *(None,) * (width - len(row))) for row in rows)
            for name, rows in data["scores"].items()
        }
        return cls(tasks=data["tasks"], scores=scores, higher_is_better=data["higher_is_better"])

    def save(self, path: str | Path) -> None:
        """Write `to_json` to a file, replacing it whole."""
        with writing(path):
            replace_file(Path(path), (self.to_json() + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> "TaskMatrix":
        """Read a file written by `save`."""
        return cls.from_json(Path(path).read_text(encoding="utf-8"))

    def _rows(self, score: str) -> tuple[Row, ...]:
        if score not in self.scores:
            raise ValueError(f"no score {score!r}; there are {', '.join(self.scores) or 'none'}")
        return self.scores[score]

    def need(self, score: str, task: int, concept: str) -> float:
        """As `at`, but an unmeasured cell raises ValueError."""
        value = self.at(score, task, concept)
        if value is None:
            moment = task % len(self.tasks) + 1
            raise ValueError(f"{score} of {concept!r} after task {moment} was not measured")
        return value

    def scored(self, score: str) -> tuple[str, ...]:
        """The concepts that `score` applies to: those with a value of it at some moment."""
        columns = zip(*self._rows(score), strict=True) if self.tasks else ()
        return tuple(
            name
            for name, column in zip(self.concepts, columns, strict=True)
            if any(value is not None for value in column)
        )

    def earlier(self, score: str) -> tuple[str, ...]:
        """Of `scored`, those learned before the last task: those that could be forgotten."""
        last = self.tasks[-1] if self.tasks else ()
        return tuple(name for name in self.scored(score) if name not in last)


def _mean(values: Sequence[float], what: str) -> float:
    if not values:
        raise ValueError(f"{what} needs at least two tasks")
    return math.fsum(values) / len(values)


def _sign(matrix: TaskMatrix, score: str) -> float:
    matrix._rows(score)
    return 1.0 if matrix.higher_is_better[score] else -1.0


def right_after(matrix: TaskMatrix, score: str) -> dict[str, float]:
    """S[j, j] of every concept: its score right after its own task, nothing taught since."""
    return {c: matrix.need(score, matrix.learned_at(c), c) for c in matrix.scored(score)}


def final(matrix: TaskMatrix, score: str) -> dict[str, float]:
    """S[N, j] of every concept: its score after the last task."""
    return {c: matrix.need(score, -1, c) for c in matrix.scored(score)}


def mean_right_after(matrix: TaskMatrix, score: str) -> float:
    """1/N sum_j S[j, j]: how well concepts are learned, before anything is taught after them."""
    return _mean(list(right_after(matrix, score).values()), "mean_right_after")


def accuracy_final(matrix: TaskMatrix, score: str) -> float:
    """1/N sum_j S[N, j]: the mean over all concepts at the end (A_N; A_mmd for the score mmd)."""
    return _mean(list(final(matrix, score).values()), "accuracy_final")


def final_earlier(matrix: TaskMatrix, score: str) -> float:
    """1/(N-1) sum_{j<N} S[N, j]: the mean at the end over all but the last task's concepts.

    Of the score `mmd_change` this is F_mmd.
    """
    return _mean([matrix.need(score, -1, c) for c in matrix.earlier(score)], "final_earlier")


def forgetting(matrix: TaskMatrix, score: str) -> float:
    """1/(N-1) sum_{j<N} (S[j, j] - S[N, j]): the mean loss from right after learning to the end.

    Positive is worse: the sign is turned for scores where lower is better.
    """
    sign = _sign(matrix, score)
    losses = [
        sign * (matrix.need(score, matrix.learned_at(c), c) - matrix.need(score, -1, c))
        for c in matrix.earlier(score)
    ]
    return _mean(losses, "forgetting")


def forgetting_max(matrix: TaskMatrix, score: str) -> float:
    """1/(N-1) sum_{j<N} (max_{j<=i<N} S[i, j] - S[N, j]): the mean loss from the best earlier time.

    As Chaudhry et al. 2018 define forgetting: the end itself is not among the times, so a concept
    that gained counts as negative. Where lower is better the best is the least, the sign turned.
    Over the times that were measured; right after learning always is.
    """
    sign, last = _sign(matrix, score), len(matrix.tasks) - 1
    losses = []
    for c in matrix.earlier(score):
        past = [matrix.at(score, i, c) for i in range(matrix.learned_at(c), last)]
        best = max(sign * value for value in past if value is not None)
        losses.append(best - sign * matrix.need(score, last, c))
    return _mean(losses, "forgetting_max")


def forgetting_coda(matrix: TaskMatrix, score: str) -> float:
    """1/(T-1) sum_{t=1}^{T-1} 1/t sum_{i<t} (S[t-1, i] - S[t, i]), t and i counted from 0.

    CODA-Prompt's F_N (utils/calc_forgetting.py of its public code): the mean loss by one further
    task. With several concepts a task, 1/t is one over the number of concepts learned before t,
    which for tasks of equal size is the mean over tasks. Positive is worse.
    """
    sign = _sign(matrix, score)
    steps = []
    for t in range(1, len(matrix.tasks)):
        old = [c for task in matrix.tasks[:t] for c in task if c in matrix.scored(score)]
        loss = [sign * (matrix.need(score, t - 1, c) - matrix.need(score, t, c)) for c in old]
        if loss:
            steps.append(math.fsum(loss) / len(loss))
    return _mean(steps, "forgetting_coda")


DERIVED: Mapping[str, Callable[[TaskMatrix, str], float]] = MappingProxyType(
    {
        f.__name__: f
        for f in (
            mean_right_after,
            accuracy_final,
            final_earlier,
            forgetting,
            forgetting_max,
            forgetting_coda,
        )
    }
)

DEFINITIONS: Mapping[str, str] = MappingProxyType(
    {name: " ".join((f.__doc__ or "").split()) for name, f in DERIVED.items()}
)
