"""Does a training step, or a picture, cost more when the bank is full?

    python perf/step_time.py --concepts 50

Fills a bank with that many concepts (one step each), then times training steps and drawing with 1
and with all of them in turn, A B B A, in one process, and prints the ratio of the rounds' medians:
its median over the rounds, a 95 % interval of that median (bootstrap), the least and the largest.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path

from perdure.bank import Bank
from perdure.drawing.painter import Painter
from perdure.hosts.diffusion.host import Base
from perdure.learning.learn import learn
from perdure.smallworld.samples import write_pictures


def interval(ratios: list[float]) -> tuple[float, float]:
    """Where 95 % of the medians of resampled rounds lie."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(10_000))
    return medians[250], medians[-251]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--concepts", type=int, default=50)
    parser.add_argument("--method", default="c-lora")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    base = Base.open()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        photos = work / "photos"
        write_pictures(photos, domain="person", identity=1_000_000)
        banks = {1: work / "one", options.concepts: work / "many"}
        for count, bank in banks.items():
            for k in range(count):
                learn(base, bank, {f"c{k}": photos}, method=options.method, steps=1, seed=k)
        sizes = [p.stat().st_size for p in (banks[options.concepts] / "concepts").rglob("*.*")]
        print(f"a concept's file: {min(sizes)} to {max(sizes)} bytes")
        step: dict[int, list[float]] = {count: [] for count in banks}
        draw: dict[int, list[float]] = {count: [] for count in banks}
        for turn in range(options.rounds):
            for count, bank in list(banks.items())[:: 1 if turn % 2 else -1]:
                marks: list[float] = []
                name = f"x{turn}"
                learn(
                    base,
                    bank,
                    {name: photos},
                    steps=options.steps,
                    report=lambda progress, marks=marks: marks.append(time.perf_counter()),
                )
                gaps = [b - a for a, b in zip(marks[2:], marks[3:], strict=False)]
                step[count].append(statistics.median(gaps))
                Bank.open(bank).remove(name)
                painter = Painter(base, bank)
                began = time.perf_counter()
                painter.draw(["a photo of <c0>"] * 4, seeds=range(4))
                draw[count].append(time.perf_counter() - began)
        for what, seconds in (("training step", step), ("drawing four pictures", draw)):
            ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
            row = {
                "what": what,
                "concepts": list(seconds),
                "median_seconds": [round(statistics.median(s), 4) for s in seconds.values()],
                "ratio_median": round(statistics.median(ratios), 3),
                "ratio_median_95": [round(end, 3) for end in interval(ratios)],
                "ratio_min_max": [round(min(ratios), 3), round(max(ratios), 3)],
            }
            print(json.dumps(row))


if __name__ == "__main__":
    main()
