"""Teach two people in turn, draw them, and draw one of the pictures again."""

import argparse

import perdure
from perdure.smallworld.samples import write_pictures

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, help="optimiser steps a person; by default the base's own")
steps = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}

base = perdure.Base.open("smallworld")
for k, name in enumerate(("ada", "ben")):
    write_pictures(f"photos/{name}", domain="person", identity=2_000_000 + k)
    perdure.learn(base, "bank", {name: f"photos/{name}"}, **steps)

prompts = ["a photo of <ada> in the snow", "a photo of <ben> wearing a hat"]
for k, picture in enumerate(perdure.draw(base, "bank", prompts, seed=3)):
    perdure.save_picture(picture, f"{k}.png", scale=4)

facts = perdure.read_facts("1.png")
print(facts.parameters)
(again,) = perdure.draw_like(base, "bank", facts)
(night,) = perdure.draw_like(base, "bank", facts, "a photo of <ben> at night")
perdure.save_picture(again, "again.png", scale=4)
perdure.save_picture(night, "night.png", scale=4)
