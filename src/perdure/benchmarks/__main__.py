"""`python -m perdure.benchmarks`: methods x seeds over a stream of people, and the table."""

from __future__ import annotations

import argparse
import itertools
import json
import os
from concurrent.futures import ProcessPoolExecutor
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
    parser.add_argument("--methods", nargs="+", default=["lora", "c-lora", "lora-independent"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", default="benchmark", choices=["tuning", "benchmark"])
    parser.add_argument("--count", type=int, default=5, help="people")
    parser.add_argument("--grid", type=json.loads, default={}, help="JSON: option -> values to try")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--table", action="store_true", help="only print the table")
    options = parser.parse_args()
    if not options.table:
        jobs = [
            (options.out, options.split, options.count, method, seed, dict(chosen))
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


def _job(job: tuple[Path, str, int, str, int, dict[str, Any]]) -> str:
    """One run; its record is the sign that it is finished."""
    out, split, count, method, seed, chosen = job
    torch.set_num_threads(1)
    name = "-".join([method, *(f"{k}={v}" for k, v in chosen.items()), f"seed{seed}"])
    record = out / f"{name}.json"
    if record.exists():
        return f"{name}: done before"
    own = {key.removeprefix("method."): v for key, v in chosen.items() if key.startswith("method.")}
    settings = {key: value for key, value in chosen.items() if not key.startswith("method.")}
    stream = PeopleStream(split=split, count=count)
    folders = stream.write(out / "work" / name / "photos")
    _, _, facts = run_stream(
        Base.open(),
        folders,
        out / "work" / name / "bank",
        method=method,
        options=own,
        seed=seed,
        **settings,
    )
    facts |= {"split": split, "count": count, "chosen": chosen}
    partial = record.with_suffix(".partial")
    partial.write_text(json.dumps(facts))
    partial.replace(record)
    return f"{name}: done"


if __name__ == "__main__":
    main()
