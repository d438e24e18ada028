"""The cells of a grid: methods x choices of settings x orders x seeds over one stream."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from perdure.benchmarks.concepts import DRAWING
from perdure.benchmarks.records import check_record
from perdure.benchmarks.runs import Run
from perdure.benchmarks.streams import Stream
from perdure.errors import PerdureError
from perdure.methods import METHODS

__all__ = ["cell_name", "cells_of", "check_methods", "check_records", "choices", "parted"]

_OWN = "method."


def check_methods(names: Sequence[str], known: Collection[str] = METHODS) -> None:
    """PerdureError for a method that does not exist."""
    for name in names:
        if name not in known:
            raise PerdureError(
                f"There is no method {name!r}: choose from {', '.join(sorted(known))}, or 'all'."
            )


def choices(vary: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """All combinations of the values; one empty choice where nothing varies."""
    pairs = ([(key, value) for value in values] for key, values in vary.items())
    return [dict(choice) for choice in itertools.product(*pairs)]


def parted(chosen: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A choice's settings, and the method's own options without their `method.`."""
    return (
        {k: v for k, v in chosen.items() if not k.startswith(_OWN)},
        {k.removeprefix(_OWN): v for k, v in chosen.items() if k.startswith(_OWN)},
    )


def cell_name(method: str, chosen: Mapping[str, Any], seed: int, order: int = 0) -> str:
    """What a run's record and folder of work are called."""
    parts = [method, *(f"{key}={value}" for key, value in chosen.items()), f"seed{seed}"]
    return "-".join([*parts, f"order{order}"] if order else parts)


def cells_of(
    stream: Stream,
    *,
    methods: Sequence[str],
    out: Path,
    work: Path,
    seeds: int = 1,
    orders: int = 1,
    vary: Mapping[str, Sequence[Any]] | None = None,
    pictures: int = 8,
    moments: Literal["all", "milestones"] = "all",
    pairs: int = 0,
    base: str = "smallworld",
    encoder: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    config: str | None = None,
) -> list[Run]:
    """One `Run` a method, choice, order and seed; records below ``out``, banks below ``work``.

    Args:
        stream: what is taught.
        methods: by name; PerdureError for one that does not exist.
        out, work: folders.
        seeds: 0, 1, ... of everything random in learning and drawing.
        orders: the order as listed, and further permutations.
        vary: `lr` and the like, or `method.rank` and the like -> values, all combined.
        pictures, moments, pairs, base, encoder, device, dtype, config: as in `Run`.
    """
    check_methods(methods)
    cells = []
    for method, chosen, order, seed in itertools.product(
        methods, choices(vary or {}), range(orders), range(seeds)
    ):
        name = cell_name(method, chosen, seed, order)
        settings, options = parted(chosen)
        cells.append(
            Run(
                record=out / f"{name}.json",
                work=work / name,
                stream=stream.ordered(order),
                method=method,
                options=options,
                settings=settings,
                seed=seed,
                base=base,
                encoder=encoder,
                device=device,
                dtype=dtype,
                config=config,
                pictures=pictures,
                moments=moments,
                pairs=pairs,
            )
        )
    return cells


def check_records(cells: Sequence[Run]) -> None:
    """PerdureError where a record that is there already is of a run with something else."""
    for cell in cells:
        if cell.record.exists():
            asked = {"asked": cell.asked, "stream": cell.stream.to_json()}
            check_record(cell.record, DRAWING.asked(asked))
