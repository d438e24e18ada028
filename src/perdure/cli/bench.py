"""`perdure bench`: a grid of runs over a stream, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from perdure.cli.console import console, note
from perdure.cli.options import (
    BaseOption,
    ConfigOption,
    DeviceOption,
    DtypeOption,
    EncoderOption,
    RayOption,
    ReportOption,
    varied,
)
from perdure.errors import PerdureError

__all__ = ["bench"]

_LONG = 20


def bench(
    stream: Annotated[str, typer.Argument(help="Name of a stream; --list shows them.")] = "",
    list_streams: Annotated[bool, typer.Option("--list", help="List the streams.")] = False,
    methods: Annotated[
        str, typer.Option(help="Names with commas between, or all.")
    ] = "lora,c-lora,lora-independent",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds: 0, 1, ...")] = 1,
    orders: Annotated[int, typer.Option(min=1, help="How many orders of the stream.")] = 1,
    vary: Annotated[
        list[str] | None,
        typer.Option(help="Values to try, such as lr=0.003,0.01 or method.penalty=30,300."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the records, tables and report.")] = Path(
        "bench"
    ),
    work: Annotated[Path, typer.Option(help="Folder of the banks and drawn pictures.")] = Path(
        "runs"
    ),
    photos: Annotated[
        Path | None, typer.Option(help="Folder of a photographic stream's pictures.")
    ] = None,
    base: BaseOption = "smallworld",
    config: ConfigOption = "",
    device: DeviceOption = "",
    dtype: DtypeOption = "",
    encoder: EncoderOption = "",
    pictures: Annotated[int, typer.Option(min=2, help="Drawn of a concept at a moment.")] = 8,
    pairs: Annotated[int, typer.Option(min=0, help="Pairs of concepts drawn together.")] = 4,
    processes: Annotated[
        int, typer.Option(min=0, help="Runs at a time; 0: one for each core.")
    ] = 0,
    ray: RayOption = "",
    report: ReportOption = False,
) -> None:
    """Run methods over a stream of concepts, with seeds and orders, and report on all of them.

    The same command goes on with runs that were cut short, and repeats none that is finished.
    """
    if list_streams:
        _list()
        return

    from perdure.benchmarks.grid import cells_of, check_records
    from perdure.benchmarks.report import write_results
    from perdure.benchmarks.runner import run_grid
    from perdure.benchmarks.runs import run
    from perdure.methods import METHODS
    from perdure.processes import cores

    chosen = _stream(stream, photos)
    folder = out / chosen.name
    if not report:
        cells = cells_of(
            chosen,
            methods=list(METHODS) if methods == "all" else methods.split(","),
            out=folder,
            work=work / chosen.name,
            seeds=seeds,
            orders=orders,
            vary=varied(vary or []),
            pictures=pictures,
            moments="milestones" if len(chosen.concepts) > _LONG else "all",
            pairs=pairs,
            base=base,
            encoder=encoder or None,
            device=device or None,
            dtype=dtype or None,
            config=config or None,
        )
        check_records(cells)
        run_grid(cells, run, processes=processes or cores(), ray_address=ray or None, say=note)
    for path in write_results(folder):
        console.print(f"wrote {path}")


def _list() -> None:
    from perdure.benchmarks.photos import LAYOUTS
    from perdure.benchmarks.streams import STREAMS

    for name, one in STREAMS.items():
        console.print(f"{name:<28}{len(one.concepts):>4} concepts, {one.pictures} pictures each")
    for name, layout in LAYOUTS.items():
        console.print(f"{name:<28}{layout.what} (needs --photos)")


def _stream(name: str, photos: Path | None) -> Any:
    from perdure.benchmarks.photos import LAYOUTS, photographed
    from perdure.benchmarks.streams import stream

    if not name:
        raise PerdureError("Which stream? `perdure bench --list` shows them.")
    if name in LAYOUTS:
        if photos is None:
            raise PerdureError(f"The stream {name} is of photographs: give their folder, --photos.")
        return photographed(name, photos)
    if photos is not None:
        raise PerdureError(
            f"--photos has no effect on {name!r}, which is no stream of photographs: leave it out,"
            f" or choose from {', '.join(LAYOUTS)}."
        )
    return stream(name, known=list(LAYOUTS))
