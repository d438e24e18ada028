"""What each step tells, told to TensorBoard, W&B or trackio as well, by accelerate's trackers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.tracking import TensorBoardTracker, TrackioTracker, WandBTracker

from perdure.errors import PerdureError
from perdure.hosts.training import Progress
from perdure.quiet import quietly

__all__ = ["EVENTS", "check_tracker", "tracked"]

EVENTS = "tensorboard"
"""Folder of TensorBoard's files, in the workspace and then in the task's folder."""
_PROJECT = "perdure"


def check_tracker(name: str | None) -> None:
    """PerdureError where its package is not installed."""
    if name is not None and find_spec(name) is None:
        raise PerdureError(
            f"track is {name!r}, which needs one more package: pip install 'perdure[{name}]'."
        )


@contextmanager
def tracked(
    name: str | None, concepts: Sequence[str], workspace: Path, report: Callable[[Progress], None]
) -> Iterator[Callable[[Progress], None]]:
    """``report``, within the block told to a tracker too: loss, penalty and norm by step.

    A run that is gone on with tells the steps since its checkpoint again, as they were.
    """
    if name is None:
        yield report
        return
    run = "+".join(concepts)
    with quietly():
        PartialState()  # accelerate's trackers ask it which process this is
        tracker: Any
        if name == "tensorboard":
            tracker = TensorBoardTracker(run, workspace / EVENTS)
        else:
            kind = WandBTracker if name == "wandb" else TrackioTracker
            tracker = kind(_PROJECT, name=run)
        tracker.start()

    def told(progress: Progress) -> None:
        values = {key: getattr(progress, key) for key in ("loss", "penalty", "norm")}
        tracker.log(values, step=progress.step)
        report(progress)

    try:
        yield told
    finally:
        tracker.finish()
