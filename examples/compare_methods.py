"""Teach the same two people with several methods, and compare what is left of the first."""

import argparse

import perdure
from perdure.smallworld.samples import write_pictures

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--base", default="smallworld", help="smallworld, a folder or a hub id")
parser.add_argument("--methods", default="lora,c-lora,gated", help="names with commas between")
parser.add_argument("--steps", type=int, default=100, help="optimiser steps a person")
parser.add_argument("--pictures", type=int, default=4, help="drawn of each at each moment")
asked = parser.parse_args()

base = perdure.Base.open(asked.base)
encoder = perdure.MetricEncoder.of(base)
folders = {"ada": "photos/ada", "ben": "photos/ben"}
for k, folder in enumerate(folders.values()):
    write_pictures(folder, domain="person", identity=2_000_000 + k)

print(f"{'method':>18}  <ada> right after  at the end  <ben>")
for method in asked.methods.split(","):
    bank = f"bank-{method}"
    for name, folder in folders.items():
        perdure.learn(base, bank, {name: folder}, method=method, steps=asked.steps)
    matrix = perdure.evaluate(
        base, bank, encoder, references=folders, pictures=asked.pictures
    ).matrix
    first, last, other = (
        matrix.at("identity", task=task, concept=name)
        for task, name in ((0, "ada"), (1, "ada"), (1, "ben"))
    )
    print(f"{method:>18}  {first:17.3f}  {last:10.3f}  {other:5.3f}")
