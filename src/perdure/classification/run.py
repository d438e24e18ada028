"""One run: one method over one stream, measured after every task; it goes on after a kill."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from perdure.classification.classifier import ContinualClassifier
from perdure.classification.labelled import Split
from perdure.classification.loop import Progress
from perdure.classification.registry import CLASSIFIERS, build_classifier, check_rate
from perdure.classification.saving import INDEX
from perdure.classification.settings import FitSettings
from perdure.classification.streams import open_stream
from perdure.durable import replace_file
from perdure.errors import PerdureError
from perdure.machine import environment, peak_memory
from perdure.measuring.matrix import (
    TaskMatrix,
    accuracy_final,
    forgetting_coda,
    forgetting_max,
)
from perdure.outputs import output_folder
from perdure.untrusted import read_json

__all__ = ["ACCURACY", "FORMAT", "ClassificationRun", "derived", "run_classification"]

FORMAT = 2
ACCURACY = "accuracy"
_ROWS, _TOLD = "rows.json", "run.json"


@dataclass(frozen=True, kw_only=True)
class ClassificationRun:
    """What to run, and where its record is to lie and its work to be done."""

    record: Path
    """JSON file that whoever called writes the record to; it is the sign that it is finished."""
    work: Path
    """Folder for the classifier and checkpoints; a run that finds its own there goes on."""
    stream: str = "smallworld-classes-100"
    data: str | None = None
    """Folder or zip file of the stream's pictures."""
    method: str = "c-lora"
    options: Mapping[str, Any] = field(default_factory=dict)
    tasks: int = 10
    settings: FitSettings = FitSettings()
    """The seed in it decides the order of the classes too."""
    backbone: str = "smallworld"
    preprocessing: str = "backbone"
    device: str = "cpu"
    chosen: Mapping[str, Any] = field(default_factory=dict)
    """What a grid varied, which is in options and settings already: the record says it too."""
    threads: int | None = None
    """Of the processor; None leaves them as they are."""

    def __post_init__(self) -> None:
        if self.tasks < 1:
            raise ValueError(f"tasks is {self.tasks}, but must be at least 1")
        check_rate(build_classifier(self.method, self.options, self.tasks), self.settings.lr)

    @property
    def asked(self) -> dict[str, Any]:
        """With what and on what, in the caller's words; the record has them too."""
        return {
            "data": self.data,
            "backbone": self.backbone,
            "preprocessing": self.preprocessing,
            "device": self.device,
        }


def run_classification(
    run: ClassificationRun,
    *,
    report: Callable[[int, Progress], None] = lambda task, progress: None,
) -> dict[str, Any]:
    """Run it and return a JSON-ready record; the same to the bit, save for seconds, after a kill.

    Args:
        run: what to run.
        report: called with the task's number and what a step tells, after every step.

    Accuracies are shares of the test pictures of each task, all classes seen competing. A method
    that learns all at once has one moment, with all tasks in it. PerdureError where the stream
    cannot be opened or shared out among the tasks.
    """
    if run.threads is not None:
        torch.set_num_threads(run.threads)
    stream = open_stream(run.stream, run.data)
    try:
        order = stream.tasks(run.tasks, run.settings.seed)
    except ValueError as error:
        raise PerdureError(f"{error}.") from error
    if min(len(task) for task in order) < 2:
        raise PerdureError(
            f"{run.tasks} tasks of {stream.name} have one class each, and one class alone teaches "
            "nothing: choose fewer tasks."
        )
    lessons = (tuple(c for task in order for c in task),) if _at_once(run) else order
    class_order = [[stream.classes[c] for c in task] for task in order]
    model, rows = _begun(run, class_order)
    for number in range(len(rows), len(lessons)):
        if len(model.tasks) == number:
            _learn(run, model, number, stream.train.of(lessons[number]), report)
        seen = order if _at_once(run) else order[: number + 1]
        rows.append([_accuracy(model, stream.test.of(task)) for task in seen])
        _replace(run.work / _ROWS, rows)
    names = [f"task {k + 1}" for k in range(len(order))]
    by_moment = [tuple(names)] if _at_once(run) else [(name,) for name in names]
    matrix = TaskMatrix(
        tasks=tuple(by_moment),
        scores={ACCURACY: tuple((*row, *(None,) * (len(names) - len(row))) for row in rows)},
        higher_is_better={ACCURACY: True},
    )
    return {
        "format": FORMAT,
        "kind": "classification",
        "method": run.method,
        "options": dict(run.options),
        "chosen": dict(run.chosen),
        "asked": run.asked,
        "config": model.method.describe()["config"],
        "settings": run.settings.to_json(),
        "seed": run.settings.seed,
        "backbone": {"name": model.backbone.name, "hash": model.backbone.hash},
        "preprocessing": model.backbone.preprocessing.to_json(),
        "stream": {
            "name": stream.name,
            "classes": len(stream.classes),
            "train": len(stream.train.pictures),
            "test": len(stream.test.pictures),
        },
        "class_order": class_order,
        "matrix": json.loads(matrix.to_json()),
        **derived(matrix),
        "seconds": [facts["seconds"] for facts in model.facts],
        "losses": [facts["loss"] for facts in model.facts],
        "norms": [facts["norm"] for facts in model.facts],
        "trained": int(model.facts[-1]["trained"]),
        "stored": model.stored(),
        "rehearsal_free": not len(model.memory),
        "peak_memory": peak_memory(model.backbone.device),
        "versions": environment(model.backbone.device),
    }


def derived(matrix: TaskMatrix) -> dict[str, float | None]:
    """A_N, F_N as CODA-Prompt has it and as best minus last, and the mean accuracy over time."""
    rows = [[v for v in row if v is not None] for row in matrix.scores[ACCURACY]]
    several = len(matrix.tasks) > 1
    return {
        "A_N": accuracy_final(matrix, ACCURACY),
        "F_N": forgetting_coda(matrix, ACCURACY) if several else None,
        "F_N_max": forgetting_max(matrix, ACCURACY) if several else None,
        "A_mean": sum(sum(row) / len(row) for row in rows) / len(rows),
    }


def _at_once(run: ClassificationRun) -> bool:
    return CLASSIFIERS[run.method].all_at_once


def _begun(
    run: ClassificationRun, class_order: list[list[str]]
) -> tuple[ContinualClassifier, list[list[float]]]:
    """What an earlier start of this run has saved, with its rows, else a new one and no rows.

    PerdureError where the folder of work is another run's.
    """
    fresh = ContinualClassifier(
        backbone=run.backbone,
        method=run.method,
        options=run.options,
        expected=run.tasks,
        settings=run.settings,
        preprocessing=run.preprocessing,
        device=run.device,
    )
    told = {
        "method": fresh.method.describe(),
        "settings": run.settings.to_json(),
        "backbone": fresh.backbone.hash,
        "preprocessing": fresh.backbone.preprocessing.to_json(),
        "data": run.data,
        "class_order": class_order,
    }
    other = PerdureError(f"{run.work} holds another run: choose another folder, or remove it.")
    if not (run.work / _TOLD).exists():
        if (run.work / INDEX).exists():
            raise other
        output_folder(run.work)
        _replace(run.work / _TOLD, told)
    if _read(run.work / _TOLD) != told:
        raise other
    if not (run.work / INDEX).exists():
        return fresh, []
    saved = ContinualClassifier.load(run.work, backbone=fresh.backbone)
    rows = _read(run.work / _ROWS) if (run.work / _ROWS).exists() else []
    if len(saved.tasks) - len(rows) not in (0, 1):
        raise PerdureError(f"{run.work} lacks the scores of earlier tasks: remove it to run anew.")
    return saved, rows


def _learn(
    run: ClassificationRun,
    model: ContinualClassifier,
    number: int,
    lesson: Split,
    report: Callable[[int, Progress], None],
) -> None:
    checkpoint = run.work / f"checkpoint-{number:02d}.safetensors"
    model.fit_task(
        lesson.pictures,
        lesson.labels,
        checkpoint=checkpoint,
        report=lambda progress: report(number, progress),
    )
    model.save(run.work)
    checkpoint.unlink()


def _accuracy(model: ContinualClassifier, test: Split) -> float:
    return model.score(test.pictures, test.labels)


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise PerdureError(
            f"{path} cannot be read ({error}): remove its folder to run anew."
        ) from error


def _replace(path: Path, values: Any) -> None:
    replace_file(path, json.dumps(values).encode())
