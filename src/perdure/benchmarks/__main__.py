"""`python -m perdure.benchmarks`: methods x seeds over a stream of people, and the table."""

from __future__ import annotations

import argparse
import itertools
import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from perdure.base.base import Base
from perdure.benchmarks.people import PeopleStream, run_stream
from perdure.benchmarks.results import table_of


def main() -> None:
    """Run the grid that is asked for, or print the table of its records."""
    parser = argparse.ArgumentParser(prog="python -m perdure.benchmarks", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the records")
    parser.add_argument("--work", type=Path, default=Path("runs"), help="folder of banks, photos")
    parser.add_argument("--methods", nargs="+", default=["lora", "c-lora", "lora-independent"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", default="benchmark", choices=["tuning", "benchmark"])
    parser.add_argument("--count", type=int, default=5, help="people")
    parser.add_argument("--pictures", type=int, default=8, help="drawn for each person and moment")
    parser.add_argument("--grid", type=json.loads, default={}, help="JSON: option -> values to try")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--table", action="store_true", help="only print the table")
    options = parser.parse_args()
    if not options.table:
        jobs = [
            Job(
                record=options.out / f"{_name(method, dict(chosen), seed)}.json",
                work=options.work / options.out.name / _name(method, dict(chosen), seed),
                stream=PeopleStream(split=options.split, count=options.count),
                method=method,
                chosen=dict(chosen),
                seed=seed,
                pictures=options.pictures,
            )
            for method in options.methods
            for chosen in itertools.product(
                *([(key, value) for value in values] for key, values in options.grid.items())
            )
            for seed in range(options.seeds)
        ]
        with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
            for line in pool.map(_job, jobs):
                print(line, flush=True)
    print(table_of(options.out))


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


def _name(method: str, chosen: dict[str, Any], seed: int) -> str:
    return "-".join([method, *(f"{k}={v}" for k, v in chosen.items()), f"seed{seed}"])


def _job(job: Job) -> str:
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


if __name__ == "__main__":
    main()
