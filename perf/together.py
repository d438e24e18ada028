"""Several concepts in one picture, by one plain sentence: are all there, and what does it cost?

    python perf/together.py bank photos --count 2
    python perf/together.py bank photos --count 2 --layout none
    python perf/together.py bank photos --count 2 --closeup 0
    python perf/together.py bank photos --count 2 --encoder smallworld-eyes
    python perf/together.py bank photos --count 2 --closeup 0 --since 0.33 --pull 1
    python perf/together.py bank photos --many 3 --size 96x64
    python perf/together.py bank photos --rounds 5

Draws every pair of the bank's concepts on smallworld, or every three, and looks which concept each
part of the picture comes closest to: `photos` has a folder of reference pictures for each. A
picture counts if all are there, in the order of mention; two in either order. With `--rounds` it
times instead, in seconds of the CPU: one concept and two in turn.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path

import torch
from PIL import Image

import perdure.drawing.layout
import perdure.drawing.painter
from perdure.bank import Bank
from perdure.drawing.painter import Painter
from perdure.hosts.diffusion.host import Base
from perdure.learning.photos import read_picture
from perdure.measuring.features import MetricEncoder
from perdure.measuring.pairs import halves, recognise
from perdure.sheet import grid


def cut(picture: Image.Image, many: int) -> list[Image.Image]:
    """So many subjects side by side, each as if it stood alone; 30 of 64 pixels lie between two."""
    if many == 2:
        return list(halves(picture))
    side = picture.height
    square = round(0.78 * side)
    parts = []
    for k in range(many):
        centre = picture.width / 2 + (k - (many - 1) / 2) * side * 30 / 64
        left, top = round(centre - square / 2), round((side - square) / 2)
        part = picture.convert("RGB").crop((left, top, left + square, top + square))
        parts.append(part.resize((side, side), Image.Resampling.BICUBIC))
    return parts


def seconds(painter: Painter, prompt: str, seed: int, closeup: float | None) -> float:
    began = time.process_time()
    painter.draw(prompt, seeds=seed, closeup=closeup)
    return time.process_time() - began


def cost(painter: Painter, names: list[str], rounds: int, closeup: float | None) -> None:
    one, two = f"a photo of <{names[0]}>", f"a photo of <{names[0]}> next to <{names[1]}>"
    times = [
        [seconds(painter, prompt, k, closeup) for prompt in (one, two)] for k in range(rounds + 1)
    ]
    ratios = sorted(both / alone for alone, both in times[1:])
    print(
        f"two concepts take {statistics.median(ratios):.2f} of the time of one "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}, {rounds} rounds)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=1, help="pictures of each pair")
    parser.add_argument("--first", type=int, default=None, help="so many of the concepts")
    parser.add_argument("--many", type=int, default=2, help="subjects of a picture")
    parser.add_argument("--size", default=None, help="of the pictures, such as 96x64")
    parser.add_argument("--layout", default="sentence")
    parser.add_argument("--closeup", type=float, default=None)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--encoder", default=None, help="another judge, such as smallworld-eyes")
    parser.add_argument("--since", type=float, default=perdure.drawing.layout.SINCE)
    parser.add_argument("--pull", type=float, default=perdure.drawing.layout.PULL)
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--sheet", type=Path, default=None, help="all pictures as one")
    options = parser.parse_args()
    perdure.drawing.layout.SINCE = options.since
    perdure.drawing.painter.PULL = options.pull

    base = Base.open("smallworld", device="cpu")
    encoder = MetricEncoder.open(options.encoder) if options.encoder else MetricEncoder.of(base)
    painter = Painter(base, Bank.open(options.bank))
    names = list(painter.tokens)[: options.first]
    if options.rounds:
        return cost(painter, names, options.rounds, options.closeup)
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
    for group in itertools.combinations(range(len(names)), options.many):
        prompt = "a photo of " + " next to ".join(f"<{names[k]}>" for k in group)
        drawn = painter.draw(
            prompt,
            seed=5000,
            count=options.count,
            layout=options.layout,
            closeup=options.closeup,
            steps=options.steps,
            size=options.size,
        )
        for picture in drawn:
            who = encoder.identities(cut(picture, options.many))
            means = torch.stack([(who @ references[n].T).mean(dim=1) for n in names], dim=1)
            if options.many == 2:
                found, value = recognise(means, group, ordered=False)
            else:
                found = means.argmax(dim=1).tolist() == list(group)
                value = float(means[range(options.many), group].mean())
            both.append(found)
            likeness.append(value)
        pictures += drawn
    print(
        f"all recognised {statistics.mean(both):.2f}, likeness {statistics.mean(likeness):.3f}, "
        f"{len(both)} pictures; alone {statistics.mean(alone):.3f}"
    )
    if options.sheet:
        grid(pictures, options.count).save(options.sheet)


if __name__ == "__main__":
    main()
