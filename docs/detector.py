"""Does the detector see who is in a picture? On renders, where that is known.

    python docs/detector.py people-10
    python docs/detector.py mixed-10

Subjects stand where smallworld puts two of them, or anywhere, at half to nine tenths of their size.
Of each kind of picture it says in how many the detector sees the concepts that are there and no
others, and in how many it sees two (three) different concepts of the stream, whoever is there: for
pictures of strangers and of one subject twice that is a false alarm.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from perdure.benchmarks.streams import stream
from perdure.measuring.detector import likeness_in, shown, standing
from perdure.measuring.features import MetricEncoder
from perdure.smallworld.world import (
    BACKGROUNDS,
    SIZE,
    Context,
    Identity,
    identity,
    references,
    render,
)

OWN = Path(__file__).parents[1] / "src" / "perdure" / "smallworld" / "weights" / "encoder"
STRANGERS = 500
"""From which identity of the split on nobody is in a stream."""


def scene(who: list[Identity], rng: np.random.Generator, spots: bool) -> Image.Image:
    """The subjects side by side as smallworld's pairs are, or anywhere."""
    background = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    context = Context(background=background, accessory="none", expression="neutral", style="photo")
    where = None
    if spots:
        count = len(who)
        least, most = (0.5, 0.9) if count == 2 else (0.42, 0.56)
        xs = SIZE * (np.arange(count) + 0.5) / count
        xs = rng.permutation(xs) + rng.uniform(-4, 4, count) / count
        where = [
            (float(x), float(rng.uniform(26, 38)), float(rng.uniform(least, most))) for x in xs
        ]
    return Image.fromarray(render(who, context, int(rng.integers(1 << 30)), spots=where))


def scenes(
    known: list[Identity], strangers: list[Identity], count: int
) -> Iterator[tuple[str, list[int], int, Image.Image]]:
    """Kind of picture, who of the known is there, how many subjects are asked for, the picture."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        a, b, c = rng.choice(len(known), 3, replace=False).tolist()
        s, t = (strangers[int(k)] for k in rng.choice(len(strangers), 2, replace=False))
        one, two, three = known[a], known[b], known[c]
        yield "two, side by side", [a, b], 2, scene([one, two], rng, False)
        yield "two, anywhere", [a, b], 2, scene([one, two], rng, True)
        yield "three, anywhere", [a, b, c], 3, scene([one, two, three], rng, True)
        yield "one, twice", [a], 2, scene([one, one], rng, False)
        yield "one, alone", [a], 2, scene([one], rng, False)
        yield "one and a stranger", [a], 2, scene([one, s], rng, False)
        yield "two strangers", [], 2, scene([s, t], rng, False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stream", nargs="?", default="people-10")
    parser.add_argument("--pictures", type=int, default=16, help="of each kind of picture")
    parser.add_argument("--encoder", default=str(OWN), help="as of `perdure evaluate`")
    chosen = parser.parse_args()
    encoder = MetricEncoder.open(chosen.encoder)
    concepts = [
        one for one in stream(chosen.stream).concepts if one.domain in ("person", "pet", "object")
    ]
    known = [identity(one.domain, one.seed) for one in concepts]
    real = {
        one.name: encoder.identities(
            [Image.fromarray(p) for p, _ in references(who.domain, who.seed, 8)]
        )
        for one, who in zip(concepts, known, strict=True)
    }
    first = min(one.seed for one in known) // 1000 * 1000
    strangers = [identity(one.domain, first + STRANGERS + k) for k, one in enumerate(known * 3)]
    names, found = list(real), {}
    for kind, there, count, picture in scenes(known, strangers, chosen.pictures):
        (each,) = likeness_in(encoder, [picture], real)
        seen = [names.index(one.concept) for one in shown(each, names, count)]
        row = found.setdefault(kind, ([], [], []))
        row[0].append(sorted(seen) == sorted(there) if len(there) == count else np.nan)
        row[1].append(len(set(seen)) == count)
        row[2].extend(standing(each, there))
    print(f"{chosen.stream}, {chosen.pictures} pictures of each kind")
    print("| pictures of | all seen, no others | so many different seen | likeness |")
    print("|---|---|---|---|")
    for kind, (hits, alarms, likeness) in found.items():
        hit = "" if np.isnan(hits).any() else f"{np.mean(hits):.2f}"
        told = f"{np.mean(likeness):.2f} ± {np.std(likeness, ddof=1):.2f}" if likeness else ""
        print(f"| {kind} | {hit} | {np.mean(alarms):.2f} | {told} |")


if __name__ == "__main__":
    main()
