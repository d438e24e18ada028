"""What a metric encoder sees of identities: shape, or only where colours lie?

    python -m perdure.smallworld.sees --encoder FOLDER

For each kind, identities of the benchmark split in eight pictures each: how far pictures that are
spoiled as drawings fail keep their identity, from the floor (0) to the ceiling (1); of blocks the
worst offset.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from perdure.measuring.features import MetricEncoder
from perdure.measuring.shape import shuffled_in_blocks, spoiled_reach
from perdure.smallworld.failures import FAILURES, mixed
from perdure.smallworld.world import DOMAINS, SPLITS, references

__all__ = ["seen"]

BLOCKS = (8, 16)


def seen(
    features: Callable[[Tensor], Tensor], domain: str, *, identities: int = 12, seed: int = 0
) -> dict[str, float]:
    """Way of spoiling -> what is kept of an identity, for one kind of subject."""
    first = SPLITS["benchmark"].start
    pictures = np.stack(
        [
            np.stack([picture for picture, _ in references(domain, first + k, 8, seed)])
            for k in range(identities)
        ]
    )
    rng = np.random.default_rng(seed)
    found = {
        f"blocks of {block}": max(
            spoiled_reach(
                features,
                pictures,
                partial(shuffled_in_blocks, block=block, rng=rng, offset=(y, x)),
            )
            for y in range(1, block, block // 2)
            for x in range(1, block, block // 2)
        )
        for block in BLOCKS
    }
    for way, spoil in FAILURES.items():
        if way != "shuffled":
            found[way] = spoiled_reach(features, pictures, each(spoil, rng))

    def two(whole: np.ndarray) -> np.ndarray:
        pairs = zip(whole, whole[::-1], strict=True)
        return np.stack([mixed(one, other, rng) for one, other in pairs])

    found["mixed"] = spoiled_reach(features, pictures, two)
    return found


def each(
    spoil: Callable[[np.ndarray, np.random.Generator], np.ndarray], rng: np.random.Generator
) -> Callable[[np.ndarray], np.ndarray]:
    """The same for all pictures of a batch."""
    return lambda whole: np.stack([spoil(picture, rng) for picture in whole])


def main() -> None:
    """Print a line a kind."""
    parser = argparse.ArgumentParser(prog="python -m perdure.smallworld.sees")
    own = Path(__file__).parent / "weights" / "encoder"
    parser.add_argument("--encoder", default=str(own), help="as of `perdure evaluate`")
    parser.add_argument("--identities", type=int, default=12)
    options = parser.parse_args()
    encoder = MetricEncoder.open(options.encoder)
    for domain in DOMAINS:
        found = seen(encoder.identities, domain, identities=options.identities)
        print(json.dumps({"kind": domain, **{way: round(v, 3) for way, v in found.items()}}))


if __name__ == "__main__":
    main()
