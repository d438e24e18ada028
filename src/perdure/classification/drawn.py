"""`smallworld-classes-100`: a hundred drawn identities as classes, 25 of each domain. Its twin to
choose settings on, `smallworld-classes-40-tuning`, has ten of each, which are others.

All four domains, because published streams mix kinds that are far apart with kinds that are alike;
a hundred people would be a test of faces. No identity is one that smallworld was trained on.
"""

from __future__ import annotations

import numpy as np

from perdure.classification.labelled import Split
from perdure.smallworld.vocabulary import DOMAINS
from perdure.smallworld.world import SPLITS, references

__all__ = ["TEST", "TRAIN", "drawn_identities"]

TRAIN, TEST = 40, 20
"""Pictures of each class."""


def drawn_identities(
    each: int, *, split: str = "benchmark", train: int = TRAIN, test: int = TEST
) -> tuple[tuple[str, ...], Split, Split]:
    """Names of the classes, ``each`` of a domain, and uint8 (64, 64, 3) pictures of them.

    The pictures are photographs as an owner has them (`references`): another place, expression and
    chance in each. Those to test are drawn from another seed, so none is among those to train.
    """
    start = SPLITS[split].start
    classes = [(domain, start + k) for domain in DOMAINS for k in range(each)]

    def drawn(count: int, seed: int) -> Split:
        pictures = [
            picture
            for domain, identity in classes
            for picture, _ in references(domain, identity, count, seed)
        ]
        return Split(pictures=pictures, labels=np.repeat(np.arange(len(classes)), count))

    names = tuple(f"{domain} {identity}" for domain, identity in classes)
    return names, drawn(train, 1), drawn(test, 2)
