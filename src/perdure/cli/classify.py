"""`perdure classify`: one method over a stream of classes, for several seeds, and its table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.console import console
from perdure.cli.options import method_options
from perdure.errors import PerdureError

if TYPE_CHECKING:
    from perdure.classification.loop import Progress

__all__ = ["classify"]


def classify(
    stream: Annotated[
        str,
        typer.Argument(
            help="smallworld-classes-100, tiny-imagenet-100, cifar-100, imagenet-r or folders."
        ),
    ],
    data: Annotated[
        str | None, typer.Option(help="Folder or zip file of the stream's pictures.")
    ] = None,
    method: Annotated[str, typer.Option(help="A method of classification.")] = "c-lora",
    option: Annotated[
        list[str] | None, typer.Option("--option", help="An option of it, such as rank=64.")
    ] = None,
    tasks: Annotated[int, typer.Option(help="How many tasks the classes are shared among.")] = 10,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from 0 on.")] = 3,
    backbone: Annotated[
        str, typer.Option(help="smallworld, or a folder or hub id of a ViT or CLIP.")
    ] = "smallworld",
    preprocessing: Annotated[
        str, typer.Option(help="backbone (its own configuration) or coda-prompt.")
    ] = "backbone",
    device: Annotated[str, typer.Option(help="cpu, cuda and the like.")] = "cpu",
    epochs: Annotated[int | None, typer.Option(help="Passes over a task's pictures.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures in one step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of the method's.")] = None,
    head_lr: Annotated[float | None, typer.Option(help="Learning rate of the head.")] = None,
    schedule: Annotated[str | None, typer.Option(help="constant or cosine.")] = None,
    crop: Annotated[float | None, typer.Option(help="Least area of a training crop.")] = None,
    flip: Annotated[bool | None, typer.Option(help="Learn mirrored pictures as well.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the records and the work.")] = Path(
        "classified"
    ),
) -> None:
    """Teach a classifier class after class and print what it kept; finished seeds are skipped."""
    from perdure.classification import ClassificationRun, run_classification
    from perdure.classification.settings import settings_from
    from perdure.classification.streams import open_stream

    given: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "head_lr": head_lr,
        "schedule": schedule,
        "crop": crop,
        "flip": flip,
    }
    given = {key: value for key, value in given.items() if value is not None}
    options = method_options(option or [])
    written = {"data": data, "backbone": backbone, "preprocessing": preprocessing} | given
    opened = None
    records = []
    for seed in range(seeds):
        label = f"{stream}-{method}-{tasks}-tasks-seed{seed}"
        record = out / f"{label}.json"
        if not record.exists():
            try:
                run = ClassificationRun(
                    record=record,
                    work=out / "work" / label,
                    stream=stream,
                    data=data,
                    method=method,
                    options=options,
                    tasks=tasks,
                    settings=settings_from({**given, "seed": seed}),
                    backbone=backbone,
                    preprocessing=preprocessing,
                    device=device,
                )
                opened = opened or open_stream(stream, data)
                facts = run_classification(run, stream=opened, report=_teller(label))
            except ValueError as error:
                raise PerdureError(f"{error}.") from error
            _write(record, facts | {"chosen": written, "options": options})
        records.append(_same(record, written, options))
    console.print(_table(method, records), markup=False)


def _teller(label: str) -> Any:
    def tell(task: int, progress: Progress) -> None:
        if progress.step == progress.steps:
            console.print(f"{label}: task {task + 1}, loss {progress.loss:.3f}")

    return tell


def _write(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def _same(path: Path, written: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """The record; PerdureError where it is of a run with other options."""
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if record["chosen"] != written or record["options"] != options:
        raise PerdureError(
            f"{path} is of a run with {record['chosen']} and {record['options']}: choose another "
            "--out, or remove it."
        )
    return record


def _table(method: str, records: Sequence[dict[str, Any]]) -> str:
    """A_N, both F_N in per cent, numbers trained and stored, seconds: mean and spread."""
    from perdure.measuring.tables import Column, markdown_table

    columns = [
        Column(key="A_N", title="A_N %", scale=100),
        Column(key="F_N", title="F_N %", scale=100, higher_is_better=False),
        Column(key="F_N_max", title="best - last %", scale=100, higher_is_better=False),
        Column(key="trained", title="trained", digits=0, higher_is_better=False),
        Column(key="stored", title="stored", digits=0, higher_is_better=False),
        Column(key="seconds", title="s", digits=0, higher_is_better=False),
    ]
    values = {
        c.key: [
            sum(v) if isinstance(v, list) else v for r in records if (v := r[c.key]) is not None
        ]
        for c in columns
    }
    return markdown_table({method: values}, columns)
