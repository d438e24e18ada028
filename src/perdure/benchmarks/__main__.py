"""`python -m perdure.benchmarks`: methods x seeds over a stream of people, and the table."""

from __future__ import annotations

import argparse
import itertools
import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from perdure.benchmarks.grid import Job, name_of, run_job
from perdure.benchmarks.people import PeopleStream
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
                record=options.out / f"{name_of(method, dict(chosen), seed)}.json",
                work=options.work / options.out.name / name_of(method, dict(chosen), seed),
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
            for line in pool.map(run_job, jobs):
                print(line, flush=True)
    print(table_of(options.out))


if __name__ == "__main__":
    main()
