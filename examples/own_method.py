"""A method of one's own: an adapter a concept, of which only a share is drawn."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

import perdure
from perdure.methods.apart import LowRankApart
from perdure.methods.protocol import Deltas, Kept, sum_low_rank, task_of
from perdure.settings import Share
from perdure.smallworld.samples import write_pictures


class Softened(LowRankApart):
    """W = W_init + share * sum_{t spoken of} A_t B_t; training is `LowRankApart`'s."""

    name = "softened"
    title = "LoRA, softened: an adapter a concept, drawn in part"
    paper = "an example"
    mixes_by = "concepts"

    @dataclass(frozen=True, kw_only=True)
    class Config(LowRankApart.Config):
        share: Share = 0.7
        """Of what an adapter learned, how much is drawn."""

    config: Config

    def mix(
        self, kept: Sequence[Kept], spoken: Sequence[str], states: Tensor | None = None
    ) -> Deltas:
        tasks = sorted({task_of(kept, concept) for concept in spoken})
        whole = sum_low_rank([kept[task] for task in tasks])
        return {layer: self.config.share * delta for layer, delta in whole.items()}


perdure.METHODS[Softened.name] = Softened  # from here on it is a method as any other

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100, help="optimiser steps")
    asked = parser.parse_args()
    base = perdure.Base.open("smallworld")
    write_pictures("photos/ada", domain="person", identity=2_000_000)
    for share in (0.4, 1.0):
        bank = f"bank-{share}"
        perdure.learn(
            base,
            bank,
            {"ada": "photos/ada"},
            method="softened",
            options={"share": share},
            steps=asked.steps,
        )
        (picture,) = perdure.draw(base, bank, "a photo of <ada> in the snow", seed=1)
        perdure.save_picture(picture, f"{share}.png", scale=4)
