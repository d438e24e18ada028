"""Independent LoRA: every task its own adapter on the untouched base. The upper bound.

W = W_init + sum_{t spoken of} A_t B_t
"""

from collections.abc import Sequence

from torch import Tensor

from perdure.methods.apart import LowRankApart
from perdure.methods.protocol import (
    Deltas,
    Kept,
    LowRankPairs,
    low_rank_pairs,
    sum_low_rank,
    tasks_of,
)


class LoRAIndependent(LowRankApart):
    name = "lora-independent"
    title = "LoRA, independent: an adapter a task, drawn only where its concept is spoken of"
    paper = "Hu et al., ICLR 2022, arXiv 2106.09685; the upper bound of the tables"
    mixes_by = "concepts"
    takes_adapters = True

    def mix(
        self, kept: Sequence[Kept], spoken: Sequence[str], states: Tensor | None = None
    ) -> Deltas:
        return sum_low_rank(tasks_of(kept, spoken))

    def low_rank(self, kept: Sequence[Kept], spoken: Sequence[str]) -> LowRankPairs:
        return low_rank_pairs(tasks_of(kept, spoken))
