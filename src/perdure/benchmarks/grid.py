"""One run of a grid of runs, and its record."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from perdure.base.base import Base
from perdure.benchmarks.people import PeopleStream, run_stream

__all__ = ["Job", "name_of", "run_job"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of the grid; its record is the sign that it is finished."""

    record: Path
    work: Path
    stream: PeopleStream
    method: str
    chosen: dict[str, Any]
    seed: int
    pictures: int


def name_of(method: str, chosen: dict[str, Any], seed: int) -> str:
    """Name of a run, and of its record."""
    return "-".join([method, *(f"{k}={v}" for k, v in chosen.items()), f"seed{seed}"])


def run_job(job: Job) -> str:
    """Run it on one thread, unless its record is there; returns a line about it."""
    torch.set_num_threads(1)
    if job.record.exists():
        return f"{job.record.stem}: done before"
    mark = "method."
    own = {key.removeprefix(mark): v for key, v in job.chosen.items() if key.startswith(mark)}
    settings = {key: value for key, value in job.chosen.items() if not key.startswith(mark)}
    folders = job.stream.write(job.work / "photos")
    _, _, facts = run_stream(
        Base.open(),
        folders,
        job.work / "bank",
        method=job.method,
        options=own,
        seed=job.seed,
        pictures=job.pictures,
        **settings,
    )
    facts |= {"stream": asdict(job.stream), "chosen": job.chosen}
    job.record.parent.mkdir(parents=True, exist_ok=True)
    partial = job.record.with_suffix(".partial")
    partial.write_text(json.dumps(facts) + "\n")
    partial.replace(job.record)
    return f"{job.record.stem}: done"
