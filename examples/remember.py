"""Measure what a bank remembers of two people: likeness to their pictures, task after task."""

import argparse

import perdure
from perdure.smallworld.samples import write_pictures

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--base", default="smallworld", help="smallworld, a folder or a hub id")
parser.add_argument("--method", default="lora", help="see `perdure methods`")
parser.add_argument("--steps", type=int, default=100, help="optimiser steps a person")
parser.add_argument("--pictures", type=int, default=4, help="drawn of each at each moment")
asked = parser.parse_args()

base = perdure.Base.open(asked.base)
folders = {}
for k, name in enumerate(("ada", "ben")):
    write_pictures(f"photos/{name}", domain="person", identity=2_000_000 + k)
    folders[name] = f"photos/{name}"
    perdure.learn(base, "bank", {name: folders[name]}, method=asked.method, steps=asked.steps)

encoder = perdure.MetricEncoder.of(base)
result = perdure.evaluate(base, "bank", encoder, references=folders, pictures=asked.pictures)
for task, of in ((0, "ada"), (1, "ada"), (1, "ben")):
    likeness = result.matrix.at("identity", task=task, concept=of)
    print(f"after task {task}, <{of}>: likeness {likeness:.3f}")
