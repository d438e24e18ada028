"""Merged LoRA: an adapter a task, each trained on the untouched base; their mean is drawn.

W = W_init + 1/N sum_t A_t B_t
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from perdure.methods.protocol import (
    Deltas,
    Kept,
    Learner,
    Method,
    Shapes,
    check_whole,
    keep_factors,
    low_rank_deltas,
    sum_low_rank,
)


class LoRAMerged(Method):
    name = "lora-merged"
    title = "LoRA, merged: an adapter a task on the untouched base, drawn as their mean"
    paper = "Hu et al., ICLR 2022, arXiv 2106.09685; averaged as in common practice"
    independent: ClassVar[bool] = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        rank: int = 16
        """Rank of every task's adapter."""

        def __post_init__(self) -> None:
            check_whole("lora-merged", "rank", self.rank, 1)

    config: Config

    def start(
        self,
        shapes: Shapes,
        past: Sequence[Kept],
        rows: Mapping[str, Tensor],
        generator: torch.Generator,
        *,
        moments: Tensor | None = None,
    ) -> Learner:
        return Learner(low_rank_deltas(shapes, self.config.rank, generator), rows)

    def past(self, kept: Sequence[Kept]) -> Deltas:
        return {}  # every task trains on the untouched base

    def keep(self, learner: Learner) -> dict[str, Tensor]:
        return keep_factors(learner)

    def mix(
        self, kept: Sequence[Kept], spoken: Sequence[str], states: Tensor | None = None
    ) -> Deltas:
        return {layer: dW / len(kept) for layer, dW in sum_low_rank(kept).items()}
