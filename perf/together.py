"""Two concepts in one picture, by one plain sentence: are both there, and what does it cost?

    python perf/together.py bank photos --count 2
    python perf/together.py bank photos --count 2 --layout none
    python perf/together.py bank photos --count 2 --since 0.33 --pull 1
    python perf/together.py bank photos --rounds 5

Draws every pair of the bank's concepts on smallworld, and looks which concept each half comes
closest to: `photos` has a folder of reference pictures for each. With `--rounds` it times instead,
in seconds of the CPU: one concept and two in turn.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path

import torch

import perdure.drawing.layout
import perdure.drawing.painter
from perdure.bank import Bank
from perdure.drawing.painter import Painter
from perdure.drawing.sheet import grid
from perdure.hosts.diffusion.host import Base
from perdure.learning.photos import read_picture
from perdure.measuring.features import MetricEncoder
from perdure.measuring.pairs import halves, recognise


def seconds(painter: Painter, prompt: str, seed: int) -> float:
    began = time.process_time()
    painter.draw(prompt, seeds=seed)
    return time.process_time() - began


def cost(painter: Painter, names: list[str], rounds: int) -> None:
    one, two = f"a photo of <{names[0]}>", f"a photo of <{names[0]}> next to <{names[1]}>"
    seconds(painter, one, 0), seconds(painter, two, 0)
    times = [(seconds(painter, one, k), seconds(painter, two, k)) for k in range(rounds)]
    alone, both = (statistics.median(of) for of in zip(*times, strict=True))
    print(f"one {alone:.2f} s, two {both:.2f} s, ratio {both / alone:.2f}, {rounds} rounds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=1, help="pictures of each pair")
    parser.add_argument("--first", type=int, default=None, help="so many of the concepts")
    parser.add_argument("--layout", default="sentence")
    parser.add_argument("--since", type=float, default=perdure.drawing.layout.SINCE)
    parser.add_argument("--pull", type=float, default=perdure.drawing.layout.PULL)
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--sheet", type=Path, default=None, help="all pictures as one")
    options = parser.parse_args()
    perdure.drawing.layout.SINCE = options.since
    perdure.drawing.painter.PULL = options.pull

    base = Base.open("smallworld", device="cpu")
    encoder, painter = MetricEncoder.of(base), Painter(base, Bank.open(options.bank))
    names = list(painter.tokens)[: options.first]
    if options.rounds:
        return cost(painter, names, options.rounds)
    references = {
        name: encoder.identities(
            [
                read_picture(path, size=(64, 64))
                for path in sorted((options.photos / name).iterdir())
            ]
        )
        for name in names
    }
    alone = [
        float((encoder.identities(drawn) @ references[name].T).mean())
        for name in names
        for drawn in [painter.draw(f"a photo of <{name}>", seed=5000, count=options.count)]
    ]
    both, likeness, pictures = [], [], []
    for pair in itertools.combinations(range(len(names)), 2):
        prompt = f"a photo of <{names[pair[0]]}> next to <{names[pair[1]]}>"
        drawn = painter.draw(prompt, seed=5000, count=options.count, layout=options.layout)
        for picture in drawn:
            who = encoder.identities(halves(picture))
            means = [(who @ references[name].T).mean(dim=1) for name in names]
            found, value = recognise(torch.stack(means, dim=1), pair, ordered=False)
            both.append(found)
            likeness.append(value)
        pictures += drawn
    print(
        f"both recognised {statistics.mean(both):.2f}, likeness {statistics.mean(likeness):.3f}, "
        f"{len(both)} pictures; alone {statistics.mean(alone):.3f}"
    )
    if options.sheet:
        grid(pictures, options.count).save(options.sheet)


if __name__ == "__main__":
    main()
