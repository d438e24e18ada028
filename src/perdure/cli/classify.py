"""`perdure classify`: a grid of runs over a stream of classes, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perdure.benchmarks.settings import ClassBenchSettings
from perdure.classification.settings import FitSettings
from perdure.cli.console import console, note
from perdure.cli.fields import Given, with_options
from perdure.cli.options import (
    MethodOptions,
    RayOption,
    RecordsOption,
    ReportOption,
    RunsOption,
    VaryOption,
    WorkOption,
    method_options,
    varied,
)

__all__ = ["classify"]


@with_options(settings=ClassBenchSettings, fit=FitSettings, without=["seed"])
def classify(
    stream: Annotated[
        str,
        typer.Argument(
            help="smallworld-classes-100, tiny-imagenet-100 (both also ...-40-tuning), "
            "cifar-100, imagenet-r or folders."
        ),
    ],
    *,
    settings: Given,
    fit: Given,
    option: MethodOptions = None,
    vary: VaryOption = None,
    out: RecordsOption = Path("classified"),
    work: WorkOption = Path("runs"),
    processes: RunsOption = None,
    ray: RayOption = "",
    report: ReportOption = False,
) -> None:
    """Teach classifiers class after class, with seeds, and report on what they kept.

    The same command goes on with runs that were cut short, and repeats none that is finished.
    """
    from perdure.benchmarks.class_grid import check_records, class_cells
    from perdure.benchmarks.report import write_results
    from perdure.benchmarks.runner import run_grid
    from perdure.classification import run_classification
    from perdure.outputs import output_folder
    from perdure.processes import cores

    asked = ClassBenchSettings.of(settings)
    label = f"{stream}-{asked.tasks}-tasks"
    if not report:
        cells = class_cells(
            stream,
            out=out / label,
            work=work / label,
            options=method_options(option or []),
            fit=fit,
            vary=varied(vary or []),
            **settings,
        )
        check_records(cells)
        output_folder(work / label)
        run_grid(
            cells,
            run_classification,
            processes=processes or (cores() if asked.device == "cpu" else 1),
            ray=ray or None,
            say=note,
        )
    written = write_results(out / label)
    console.print(written[0].read_text(encoding="utf-8"), markup=False)
    for path in written:
        console.print(f"wrote {path}")
