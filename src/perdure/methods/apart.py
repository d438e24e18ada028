"""What methods share whose tasks train apart, each on the untouched base."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from perdure.methods.protocol import (
    Deltas,
    Kept,
    Learner,
    Method,
    Moments,
    Shapes,
    keep_factors,
    low_rank_deltas,
)
from perdure.settings import Count


class Apart(Method):
    """No task knows of another, so they can be learned in any order, or at once."""

    independent = True

    def past(self, kept: Sequence[Kept]) -> Deltas:
        return {}  # every task trains on the untouched base

    def keep(self, learner: Learner) -> dict[str, Tensor]:
        return keep_factors(learner)


class LowRankApart(Apart):
    """A fresh `A_t B_t` a task."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        rank: Count = 16
        """Rank of every task's adapter."""
        targets: Literal["keys-values", "cross-attention", "all"] = "keys-values"
        """Which layers have an adapter: those that make keys and values of the text, all that the
        text goes through in attention, or every linear layer and convolution."""

    config: Config

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        self.targets = self.config.targets

    def start(
        self,
        shapes: Shapes,
        past: Sequence[Kept],
        rows: Mapping[str, Tensor],
        generator: torch.Generator,
        *,
        moments: Moments | None = None,
    ) -> Learner:
        return Learner(low_rank_deltas(shapes, self.config.rank, generator), rows)
