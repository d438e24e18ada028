"""Teach a vision transformer drawn people, pets, places and objects, two classes after two."""

import argparse

import numpy as np

from perdure.classification import ContinualClassifier, FitSettings
from perdure.classification.drawn import drawn_identities

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--method", default="c-lora", help="see docs/classification.md")
parser.add_argument("--epochs", type=int, default=20, help="passes over a task's pictures")
parser.add_argument("--pictures", type=int, default=20, help="of each class")
asked = parser.parse_args()

names, train, test = drawn_identities(2, split="tuning", train=asked.pictures, test=10)
settings = FitSettings(epochs=asked.epochs, batch_size=20, head_lr=5e-3)
model = ContinualClassifier(method=asked.method, settings=settings)


def of(split, classes):
    places = np.flatnonzero(np.isin(split.labels, classes))
    return [split.pictures[place] for place in places], [names[split.labels[p]] for p in places]


for first in range(0, len(names), 2):
    model.fit_task(*of(train, range(first, first + 2)))
    seen = range(first + 2)
    print(
        f"{first + 2} classes: {model.score(*of(test, seen)):.0%} of new pictures are named right"
    )
model.save("classifier")
