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
    Method,
    Shapes,
    check_whole,
    keep_factors,
    low_rank_deltas,
    sum_low_rank,
    task_of,
)


class LoRA(Method):
    name = "lora"
    title = "LoRA, sequential: one adapter trained on and on"
    paper = "Hu et al., ICLR 2022, arXiv 2106.09685; as a baseline in arXiv 2304.06027"

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        rank: int = 16
        """Rank of the one adapter that all tasks share."""

        def __post_init__(self) -> None:
            check_whole("lora", "rank", self.rank, 1)

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
        deltas = low_rank_deltas(shapes, self.config.rank, generator)
        last = past[-1].factors() if past else {}
        for layer, factors in last.items():
            if layer not in deltas:
                raise ValueError(f"the adapter to continue has a layer {layer!r} that is no target")
            deltas[layer].continue_from(factors["A"], factors["B"])
        return Learner(deltas, rows)

    def past(self, kept: Sequence[Kept]) -> Deltas:
        return {}  # the past is inside the adapter that trains on

    def keep(self, learner: Learner) -> dict[str, Tensor]:
        return keep_factors(learner)

    def mix(
        self, kept: Sequence[Kept], spoken: Sequence[str], states: Tensor | None = None
    ) -> Deltas:
        return sum_low_rank(kept[-1:])

    def check_removable(self, kept: Sequence[Kept], concept: str) -> None:
        if task_of(kept, concept) != len(kept) - 1:
            last = ", ".join(f"<{name}>" for name in kept[-1].concepts)
            raise ValueError(
                f"<{concept}> cannot be removed: sequential LoRA trains one adapter on and on, so "
                f"every later task has built on it, and only the last task ({last}) can go"
            )
        super().check_removable(kept, concept)
