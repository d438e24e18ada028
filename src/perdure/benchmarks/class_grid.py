"""The cells of a grid of classification: methods x choices of settings x seeds over one stream."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perdure.benchmarks.classes import asked_of
from perdure.benchmarks.grid import cell_name, check_methods, choices, parted
from perdure.benchmarks.records import check_record
from perdure.classification.registry import CLASSIFIERS, build_classifier
from perdure.classification.run import ClassificationRun
from perdure.classification.settings import settings_from
from perdure.classification.streams import check_stream
from perdure.errors import PerdureError
from perdure.limits import check_whole

__all__ = ["check_records", "class_cells"]


def class_cells(
    stream: str,
    *,
    data: str | None = None,
    methods: Sequence[str],
    out: Path,
    work: Path,
    tasks: int = 10,
    seeds: int = 1,
    options: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    vary: Mapping[str, Sequence[Any]] | None = None,
    backbone: str = "smallworld",
    preprocessing: str = "backbone",
    device: str = "cpu",
) -> list[ClassificationRun]:
    """One `ClassificationRun` a method, choice and seed; records below ``out``.

    Args:
        stream, data, tasks, backbone, preprocessing, device: as in `ClassificationRun`.
        methods: by name.
        out, work: folders.
        seeds: 0, 1, ... of everything random, the order of the classes too.
        options: of every method.
        settings: what `FitSettings` has, but for the seed.
        vary: `lr` and the like, or `method.rank` and the like -> values, all combined.

    Raises PerdureError where a method, an option or the stream does not exist, or does not fit.
    """
    check_methods(methods, CLASSIFIERS)
    check_stream(stream, data)
    check_whole("seeds", seeds, 1)
    check_whole("tasks", tasks, 1)
    fixed = {"seed", *(settings or {}), *(f"method.{key}" for key in options or {})}
    if twice := sorted(fixed & set(vary or {})):
        raise PerdureError(f"{twice[0]} is varied, and given beside that: leave one of them out.")
    cells = []
    for method, chosen, seed in itertools.product(methods, choices(vary or {}), range(seeds)):
        name = cell_name(method, chosen, seed)
        fit, own = parted(chosen)
        fixed_fit = dict(settings or {})
        if len(methods) > 1 and not CLASSIFIERS[method].trains_weights:
            fixed_fit.pop("lr", None)  # it is that of the methods beside it
        try:
            cells.append(
                ClassificationRun(
                    record=out / f"{name}.json",
                    work=work / name,
                    stream=stream,
                    data=data,
                    method=method,
                    options={**(options or {}), **own},
                    tasks=tasks,
                    settings=settings_from({**fixed_fit, **fit, "seed": seed}),
                    backbone=backbone,
                    preprocessing=preprocessing,
                    device=device,
                    chosen=chosen,
                    threads=1 if device == "cpu" else None,
                )
            )
        except (TypeError, ValueError) as error:
            raise PerdureError(f"{error}.") from error
    return cells


def check_records(cells: Sequence[ClassificationRun]) -> None:
    """PerdureError where a record that is there already is of a run with other options."""
    for cell in cells:
        if not cell.record.exists():
            continue
        config = build_classifier(cell.method, cell.options, cell.tasks).describe()["config"]
        facts = {"asked": cell.asked, "settings": cell.settings.to_json(), "config": config}
        check_record(cell.record, asked_of(facts))
