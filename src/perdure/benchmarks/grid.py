"""The cells of a grid: methods x choices of settings x orders x seeds over one stream."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from perdure.benchmarks.concepts import DRAWING
from perdure.benchmarks.records import check_record
from perdure.benchmarks.runs import Run
from perdure.benchmarks.settings import BenchSettings
from perdure.benchmarks.streams import Stream
from perdure.errors import PerdureError
from perdure.methods import METHODS

__all__ = ["cell_name", "cells_of", "check_records", "choices", "named", "parted"]

_OWN = "method."
_LONG = 20
"""Concepts of the longest stream that is measured whole after every task."""


def named(names: Sequence[str], known: Collection[str]) -> list[str]:
    """The methods, of which `all` is one word for every one; PerdureError for one that is none."""
    for name in names:
        if name not in known and name != "all":
            raise PerdureError(
                f"There is no method {name!r}: choose from {', '.join(sorted(known))}, or 'all'."
            )
    return list(known) if "all" in names else list(names)


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
    out: Path,
    work: Path,
    vary: Mapping[str, Sequence[Any]] | None = None,
    base: str = "smallworld",
    encoder: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    config: str | None = None,
    **settings: Any,
) -> list[Run]:
    """One `Run` a method, choice, order and seed; records below ``out``, banks below ``work``.

    Args:
        stream: what is taught.
        out, work: folders.
        vary: `lr` and the like, or `method.rank` and the like -> values, all combined.
        base, encoder, device, dtype, config: as in `Run`.
        **settings: fields of `BenchSettings`.

    Raises PerdureError for an option or a method that does not exist, or does not fit.
    """
    asked = BenchSettings.of(settings)
    methods = named(asked.method, METHODS)
    moments = asked.moments or ("milestones" if len(stream.concepts) > _LONG else "all")
    cells = []
    for method, chosen, order, seed in itertools.product(
        methods, choices(vary or {}), range(asked.orders), range(asked.seeds)
    ):
        name = cell_name(method, chosen, seed, order)
        taught = stream.anew(seed) if asked.concepts == "fresh" else stream
        loop, own = parted(chosen)
        cells.append(
            Run(
                record=out / f"{name}.json",
                work=work / name,
                stream=taught.ordered(order),
                method=method,
                options=own,
                settings=loop,
                seed=seed,
                base=base,
                encoder=encoder,
                device=device,
                dtype=dtype,
                config=config,
                pictures=asked.pictures,
                moments=moments,
                pairs=asked.pairs,
                held_out=asked.held_out,
            )
        )
    return cells


def check_records(cells: Sequence[Run]) -> None:
    """PerdureError where a record that is there already is of a run with something else."""
    for cell in cells:
        if cell.record.exists():
            asked = {"asked": cell.asked, "stream": cell.stream.to_json()}
            check_record(cell.record, DRAWING.asked(asked))
