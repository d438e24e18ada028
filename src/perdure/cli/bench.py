"""`perdure bench`: a grid of runs over a stream, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from perdure.benchmarks.settings import BenchSettings
from perdure.cli.console import console, note
from perdure.cli.fields import Given, with_options
from perdure.cli.options import (
    BaseOption,
    ConfigOption,
    DeviceOption,
    DtypeOption,
    EncoderOption,
    RayOption,
    RecordsOption,
    ReportOption,
    RunsOption,
    VaryOption,
    WorkOption,
    opening,
    varied,
)
from perdure.errors import PerdureError

__all__ = ["bench"]


@with_options(settings=BenchSettings)
def bench(
    stream: Annotated[str, typer.Argument(help="Name of a stream; --list shows them.")] = "",
    *,
    list_streams: Annotated[bool, typer.Option("--list", help="List the streams.")] = False,
    settings: Given,
    vary: VaryOption = None,
    out: RecordsOption = Path("bench"),
    work: WorkOption = Path("runs"),
    photos: Annotated[
        Path | None, typer.Option(help="Folder of a photographic stream's pictures.")
    ] = None,
    base: BaseOption = "smallworld",
    config: ConfigOption = "",
    device: DeviceOption = "",
    dtype: DtypeOption = "",
    encoder: EncoderOption = "",
    processes: RunsOption = None,
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
    from perdure.outputs import output_folder
    from perdure.processes import cores

    chosen = _stream(stream, photos)
    folder = out / chosen.name
    if not report:
        cells = cells_of(
            chosen,
            out=folder,
            work=work / chosen.name,
            vary=varied(vary or []),
            base=base,
            encoder=encoder or None,
            **opening(config, device, dtype),
            **settings,
        )
        check_records(cells)
        output_folder(work / chosen.name)
        run_grid(cells, run, processes=processes or cores(), ray=ray or None, say=note)
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
