"""Sequential LoRA: one adapter, trained on and on. The baseline that forgets.

W_t = W_init + A B,   A and B continue from the task before
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perdure.methods.protocol import (
    Deltas,
    Kept,
    Learner,
    LowRankPairs,
    Method,
    Moments,
    Shapes,
    low_rank_deltas,
    low_rank_pairs,
    sum_low_rank,
)
from perdure.methods.sequential import Sequential, continuing
from perdure.settings import Count


class LoRA(Sequential):
    name = "lora"
    title = "LoRA, sequential: one adapter trained on and on"
    paper = "Hu et al., ICLR 2022, arXiv 2106.09685; as a baseline in arXiv 2304.06027"

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        rank: Count = 16
        """Rank of the one adapter that all tasks share."""

    config: Config

    def start(
        self,
        shapes: Shapes,
        past: Sequence[Kept],
        rows: Mapping[str, Tensor],
        generator: torch.Generator,
        *,
        moments: Moments | None = None,
    ) -> Learner:
        deltas = low_rank_deltas(shapes, self.config.rank, generator)
        for layer, factors in continuing(deltas, past).items():
            deltas[layer].continue_from(factors["A"], factors["B"])
        return Learner(deltas, rows)

    def mix(
        self, kept: Sequence[Kept], spoken: Sequence[str], states: Tensor | None = None
    ) -> Deltas:
        return sum_low_rank(kept[-1:])

    def low_rank(self, kept: Sequence[Kept], spoken: Sequence[str]) -> LowRankPairs:
        return low_rank_pairs(kept[-1:])
