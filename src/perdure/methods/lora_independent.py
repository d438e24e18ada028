"""Independent LoRA: every task its own adapter on the untouched base. The upper bound.

W = W_init + sum_{t spoken of} A_t B_t
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

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
    task_of,
)


class LoRAIndependent(Method):
    name = "lora-independent"
    title = "LoRA, independent: an adapter a task, drawn only where its concept is spoken of"
    paper = "Hu et al., ICLR 2022, arXiv 2106.09685; the upper bound of the tables"
    mixes_by: ClassVar[Literal["bank", "concepts", "prompt"]] = "concepts"
    independent: ClassVar[bool] = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        rank: int = 16
        """Rank of every task's adapter."""

        def __post_init__(self) -> None:
            check_whole("lora-independent", "rank", self.rank, 1)

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
        tasks = sorted({task_of(kept, concept) for concept in spoken})
        return sum_low_rank([kept[index] for index in tasks])
