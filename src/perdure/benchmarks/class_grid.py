"""The cells of a grid of classification: methods x choices of settings x seeds over one stream."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perdure.benchmarks.classes import asked_of
from perdure.benchmarks.grid import cell_name, choices, named, parted
from perdure.benchmarks.records import check_record
from perdure.benchmarks.settings import ClassBenchSettings
from perdure.classification.registry import CLASSIFIERS, build_classifier
from perdure.classification.run import ClassificationRun
from perdure.classification.settings import FitSettings
from perdure.classification.streams import check_stream
from perdure.errors import PerdureError

__all__ = ["check_records", "class_cells"]


def class_cells(
    stream: str,
    *,
    out: Path,
    work: Path,
    options: Mapping[str, Any] | None = None,
    fit: Mapping[str, Any] | None = None,
    vary: Mapping[str, Sequence[Any]] | None = None,
    **settings: Any,
) -> list[ClassificationRun]:
    """One `ClassificationRun` a method, choice and seed; records below ``out``.

    Args:
        stream: as in `ClassificationRun`.
        out, work: folders.
        options: of every method.
        fit: fields of `FitSettings`, but for the seed.
        vary: `lr` and the like, or `method.rank` and the like -> values, all combined.
        **settings: fields of `ClassBenchSettings`.

    Raises PerdureError where a method, an option or the stream does not exist, or does not fit.
    """
    asked = ClassBenchSettings.of(settings)
    methods = named(asked.method, CLASSIFIERS)
    check_stream(stream, asked.data)
    fixed = {"seed", *(fit or {}), *(f"method.{key}" for key in options or {})}
    if twice := sorted(fixed & set(vary or {})):
        raise PerdureError(f"{twice[0]} is varied, and given beside that: leave one of them out.")
    cells = []
    for method, chosen, seed in itertools.product(methods, choices(vary or {}), range(asked.seeds)):
        name = cell_name(method, chosen, seed)
        varied, own = parted(chosen)
        given = dict(fit or {})
        if len(methods) > 1 and not CLASSIFIERS[method].trains_weights:
            given.pop("lr", None)  # it is that of the methods beside it
        try:
            cells.append(
                ClassificationRun(
                    record=out / f"{name}.json",
                    work=work / name,
                    stream=stream,
                    data=asked.data,
                    method=method,
                    options={**(options or {}), **own},
                    tasks=asked.tasks,
                    settings=FitSettings.of({**given, **varied, "seed": seed}),
                    backbone=asked.backbone,
                    preprocessing=asked.preprocessing,
                    device=asked.device,
                    chosen=chosen,
                    threads=1 if asked.device == "cpu" else None,
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
