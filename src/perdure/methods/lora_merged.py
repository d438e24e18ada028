"""Merged LoRA: an adapter a task, each trained on the untouched base; their mean is drawn.

W = W_init + 1/N sum_t A_t B_t
"""

from collections.abc import Sequence

from torch import Tensor

from perdure.methods.apart import LowRankApart
from perdure.methods.protocol import Deltas, Kept, LowRankPairs, low_rank_pairs, sum_low_rank


class LoRAMerged(LowRankApart):
    name = "lora-merged"
    title = "LoRA, merged: an adapter a task on the untouched base, drawn as their mean"
    paper = "Hu et al., ICLR 2022, arXiv 2106.09685; averaged as in common practice"
    takes_adapters = True

    def mix(
        self, kept: Sequence[Kept], spoken: Sequence[str], states: Tensor | None = None
    ) -> Deltas:
        return {layer: dW / len(kept) for layer, dW in sum_low_rank(kept).items()}

    def low_rank(self, kept: Sequence[Kept], spoken: Sequence[str]) -> LowRankPairs:
        pairs = low_rank_pairs(kept)
        return {layer: [(A / len(kept), B) for A, B in of] for layer, of in pairs.items()}
