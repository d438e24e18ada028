"""What tables and page say of a stream of classes: what was run, and what each number means."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from perdure.benchmarks.records import Record
from perdure.benchmarks.results import Results
from perdure.benchmarks.words import alike, counted, on_what, seeds_each, varied
from perdure.benchmarks.words import table_note as of_cells
from perdure.classification.settings import FitSettings

__all__ = ["MEANINGS", "commands", "lead", "surroundings", "table_note"]

MEANINGS = {
    "A_N": "1/N sum_j S[N, j]: the mean over all tasks at the end.",
    "A_mean": "The mean over all moments of the accuracy then: 1/N sum_i 1/i sum_{j<=i} S[i, j].",
    "F_N": "1/(N-1) sum_{i=2}^N 1/(i-1) sum_{j<i} (S[i-1, j] - S[i, j]): the mean loss by one "
    "further task, as CODA-Prompt's public code has it. Positive is worse.",
    "F_N_max": "1/(N-1) sum_{j<N} (max_{j<=i<N} S[i, j] - S[N, j]): the mean loss from the best "
    "earlier time, as Chaudhry et al. 2018 define forgetting.",
    "trained": "Numbers that were trained in the last task, the head's among them.",
    "stored": "Numbers kept beside the backbone after the last task: what the method keeps, the "
    "head, and pictures where it keeps some (a number for each value of a pixel).",
    "seconds": "Learning time of the whole stream by the number of tasks, on the machine below.",
}


def lead(results: Results) -> str:
    """The page's first sentences."""
    order = results.data["class_order"]
    backbones = ", ".join(dict.fromkeys(one.data["backbone"]["name"] for one in results.records))
    return (
        f"{sum(map(len, order))} classes in {counted([len(order)], 'task')}, taught one after "
        f"another to {backbones}: {counted([len(results.methods)], 'method')}, "
        f"{seeds_each(results)} each. All classes seen compete, and nothing says which task a "
        "picture is of."
    )


def table_note(results: Results) -> str:
    """How the table is to be read, and which of its rows do not compare with the others."""
    told = [of_cells(results, "which decide the order of the classes too")]
    for method in results.methods:
        if not method.records[0].data["rehearsal_free"]:
            told.append(
                f"{_bare(method.title)} keeps pictures of earlier classes: it is not "
                "rehearsal-free, and is here for reference."
            )
        if len(method.records[0].matrix.tasks) < len(results.data["class_order"]):
            told.append(
                f"{_bare(method.title)} learns all classes at once and is the upper bound, not a "
                "continual learner: it has nothing to forget, and A_mean is its only moment."
            )
    return " ".join(told)


def _bare(title: str) -> str:
    return title.removesuffix(" (not rehearsal-free)")


def surroundings(results: Results) -> dict[str, str]:
    """With what, and on what, the runs were made; several values where they differ."""
    records = results.records
    facts: dict[str, Any] = {
        "backbone": (
            f"{one.data['backbone']['name']}, sha256 {one.data['backbone']['hash']}"
            for one in records
        ),
        "preprocessing": (
            ", ".join(f"{key} {value}" for key, value in one.data["preprocessing"].items())
            for one in records
        ),
        "device": (one.data["asked"]["device"] for one in records),
        "seeds": [", ".join(map(str, sorted({one.seed for one in records})))],
        "pictures to train on": (one.data["stream"]["train"] for one in records),
        "pictures to test on": (one.data["stream"]["test"] for one in records),
    }
    for key in results.data["settings"]:
        if key not in ("seed", "checkpoint_every"):
            said = [one.data["settings"][key] for one in records]
            facts[key.replace("_", " ")] = ["the method's own" if v is None else v for v in said]
    return on_what(records, facts)


def commands(results: Results) -> list[str]:
    """What makes these records: a command for the methods that were run alike."""
    name = results.data["stream"]["name"]
    return [
        f"perdure classify {name} --method {','.join(names)} {options}"
        for options, names in alike(results, _options).items()
    ]


def _options(runs: Sequence[Record]) -> str:
    """All that was asked for and is not as it is where nothing is."""
    first = runs[0].data
    parts = [f"--tasks {len(first['class_order'])}", f"--seeds {1 + max(r.seed for r in runs)}"]
    usual = {"data": None, "backbone": "smallworld", "preprocessing": "backbone", "device": "cpu"}
    for key, value in first["asked"].items():
        if value != usual[key]:
            parts.append(f"--{key} {shlex.quote(value)}")
    for field in fields(FitSettings):
        value = first["settings"][field.name]
        if field.name not in ("seed", *first["chosen"]) and value != field.default:
            parts.append(_flag(field.name, value))
    for key, value in first["options"].items():
        if f"method.{key}" not in first["chosen"]:
            parts.append(f"--option {key}={value if isinstance(value, str) else json.dumps(value)}")
    return " ".join([*parts, *varied(runs)])


def _flag(name: str, value: Any) -> str:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag} {value}"
