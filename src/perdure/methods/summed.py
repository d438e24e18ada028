"""What methods share whose tasks add up: what is drawn is what the next task trains on."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from perdure.adapters.delta import low_rank_sum
from perdure.methods.protocol import (
    Deltas,
    Kept,
    Learner,
    LowRankPairs,
    Method,
    keep_factors,
    low_rank_pairs,
)


class Summed(Method):
    """`W = W_init + sum_t dW_t`, by default of `dW_t = A_t B_t`."""

    def delta(self, factors: Mapping[str, Tensor]) -> Tensor:
        """`dW_t` (d_out, d_in) of one layer, fp32, from what was kept of it."""
        return low_rank_sum([(factors["A"], factors["B"])])

    def past(self, kept: Sequence[Kept]) -> Deltas:
        """`sum_t dW_t` by layer, fp32: one dense matrix a layer, however many tasks.

        Added up task by task, so a sum that goes on from `as_one` of the first tasks ends in the
        same bits.
        """
        total: Deltas = {}
        for task in kept:
            for layer, factors in task.factors().items():
                dW = factors["dW"] if "dW" in factors else self.delta(factors)
                total[layer] = total[layer] + dW if layer in total else dW
        return total

    def keep(self, learner: Learner) -> dict[str, Tensor]:
        return keep_factors(learner)

    def mix(
        self, kept: Sequence[Kept], spoken: Sequence[str], states: Tensor | None = None
    ) -> Deltas:
        return self.past(kept)

    def low_rank(self, kept: Sequence[Kept], spoken: Sequence[str]) -> LowRankPairs | None:
        plain = type(self).delta is Summed.delta
        return low_rank_pairs(kept) if plain else None


def as_one(concepts: Sequence[str], total: Deltas) -> Kept:
    """One `Kept` that stands for tasks that add up, by what `past` made of them."""
    return Kept(tuple(concepts), {f"{layer}/dW": dW for layer, dW in total.items()})
