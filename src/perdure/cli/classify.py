"""`perdure classify`: a grid of runs over a stream of classes, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from perdure.cli.console import console, note
from perdure.cli.options import (
    RayOption,
    ReportOption,
    method_options,
    varied,
)

__all__ = ["classify"]


def classify(
    stream: Annotated[
        str,
        typer.Argument(
            help="smallworld-classes-100, tiny-imagenet-100 (both also ...-40-tuning), "
            "cifar-100, imagenet-r or folders."
        ),
    ],
    data: Annotated[
        str | None, typer.Option(help="Folder or zip file of the stream's pictures.")
    ] = None,
    method: Annotated[str, typer.Option(help="Names with commas between, or all.")] = "c-lora",
    option: Annotated[
        list[str] | None, typer.Option("--option", help="An option of the method, such as rank=64.")
    ] = None,
    tasks: Annotated[
        int, typer.Option(min=1, help="How many tasks the classes are shared among.")
    ] = 10,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="How many seeds: 0, 1, ...")] = 3,
    vary: Annotated[
        list[str] | None,
        typer.Option(help="Values to try, such as lr=1e-3,5e-4 or method.penalty=1,10."),
    ] = None,
    backbone: Annotated[
        str,
        typer.Option(help="smallworld, photographs, or a folder or hub id of a ViT or CLIP."),
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
    out: Annotated[Path, typer.Option(help="Folder of the records, tables and report.")] = Path(
        "classified"
    ),
    work: Annotated[Path, typer.Option(help="Folder of the classifiers and checkpoints.")] = Path(
        "runs"
    ),
    processes: Annotated[
        int | None,
        typer.Option(
            min=1, max=1000, help="Runs at a time; by default one for each core, one on a GPU."
        ),
    ] = None,
    ray: RayOption = "",
    report: ReportOption = False,
) -> None:
    """Teach classifiers class after class, with seeds, and report on what they kept.

    The same command goes on with runs that were cut short, and repeats none that is finished.
    """
    from perdure.benchmarks.class_grid import check_records, class_cells
    from perdure.benchmarks.report import write_results
    from perdure.benchmarks.runner import run_grid
    from perdure.classification import CLASSIFIERS, run_classification
    from perdure.outputs import output_folder
    from perdure.processes import cores

    label = f"{stream}-{tasks}-tasks"
    if not report:
        given: dict[str, Any] = {
            "epochs": epochs,
            "batch_size": batch_size,
            "lr": lr,
            "head_lr": head_lr,
            "schedule": schedule,
            "crop": crop,
            "flip": flip,
        }
        cells = class_cells(
            stream,
            data=data,
            methods=list(CLASSIFIERS) if method == "all" else method.split(","),
            out=out / label,
            work=work / label,
            tasks=tasks,
            seeds=seeds,
            options=method_options(option or []),
            settings={key: value for key, value in given.items() if value is not None},
            vary=varied(vary or []),
            backbone=backbone,
            preprocessing=preprocessing,
            device=device,
        )
        check_records(cells)
        output_folder(work / label)
        run_grid(
            cells,
            run_classification,
            processes=processes or (cores() if device == "cpu" else 1),
            ray_address=ray or None,
            say=note,
        )
    written = write_results(out / label)
    console.print(written[0].read_text(encoding="utf-8"), markup=False)
    for path in written:
        console.print(f"wrote {path}")
