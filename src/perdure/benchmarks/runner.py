"""A grid of runs: whatever has its record is done; the rest share the processes, or a cluster."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol, TypeVar

from perdure.cluster import cause, on_cluster
from perdure.durable import replace_file, writing
from perdure.errors import PerdureError
from perdure.outputs import output_folder
from perdure.processes import pool_of
from perdure.settings import Count, checked

__all__ = ["Cell", "run_grid"]


class Cell(Protocol):
    """One run to be: all that the grid needs to know of it."""

    @property
    def record(self) -> Path:
        """Where its record goes, as JSON, once it is finished."""


C = TypeVar("C", bound=Cell)
Work = Callable[[C], Mapping[str, Any]]


def run_grid(
    cells: Sequence[C],
    work: Work[C],
    *,
    processes: int = 1,
    ray: str | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> None:
    """Run every cell that has no record yet, and write its record.

    A cell that fails does not stop the others. After a kill, the same call goes on where it was:
    finished cells are not repeated, and ``work`` itself goes on from what it left on disk.

    Args:
        cells: the grid; no two with one record.
        work: a function of a module; runs one cell and returns its record, JSON-ready.
        processes: how many run at a time on this machine.
        ray: a Ray cluster to run on instead (`pip install perdure[ray]`); the records' and
            the work's folders must lie on a file system that all its nodes see.
        say: told a sentence about every cell.

    Raises PerdureError that names every cell that failed, after the others are done.
    """
    checked("processes", processes, Count)
    paths = [cell.record for cell in cells]
    if len(set(paths)) != len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise PerdureError(f"Two runs of the grid have one record, {twice}: name each once.")
    for home in dict.fromkeys(path.parent for path in paths):
        output_folder(home)
    waiting = [cell for cell in cells if not cell.record.exists()]
    if len(waiting) < len(cells):
        say(f"{len(cells) - len(waiting)} of {len(cells)} runs were done before")
    failed: list[str] = []
    if ray:
        jobs = [(cell, work) for cell in waiting]
        spread = _as_done(waiting, on_cluster(finish, jobs, ray))
    else:
        spread = _here(waiting, work, processes)
    for done, (cell, error) in enumerate(spread, 1):
        if error is None:
            say(f"{cell.record.stem}: done ({done} of {len(waiting)})")
        else:
            failed.append(f"{cell.record.stem} ({error})")
            say(f"{cell.record.stem}: failed: {error}")
    if failed:
        raise PerdureError(
            f"{len(failed)} of {len(cells)} runs failed: {'; '.join(failed)}. "
            "What finished is kept: the same command runs the rest."
        )


def finish(cell: C, work: Work[C]) -> None:
    """Run one cell and write its record, atomically."""
    output_folder(cell.record.parent)
    with writing(f"What the run {cell.record.stem} makes"):
        record = work(cell)
        replace_file(cell.record, (json.dumps(record, separators=(",", ":")) + "\n").encode())


def _here(cells: Sequence[C], work: Work[C], processes: int) -> Iterator[tuple[C, str | None]]:
    pool = pool_of(processes)
    try:
        yield from _as_done(cells, [pool.submit(finish, cell, work) for cell in cells])
    finally:
        pool.shutdown(cancel_futures=True)


def _as_done(cells: Sequence[C], futures: Sequence[Future[None]]) -> Iterator[tuple[C, str | None]]:
    running = dict(zip(futures, cells, strict=True))
    for future in as_completed(running):
        yield running[future], _why(future.exception())


def _why(error: BaseException | None) -> str | None:
    if error is None:
        return None
    if isinstance(error, BrokenProcessPool):
        return "its process was killed, perhaps for want of memory"
    error = cause(error)
    first = (str(error).strip().splitlines() or [""])[0]
    return first if isinstance(error, PerdureError) else f"{type(error).__name__}: {first}"
