"""What methods share whose tasks add up: what is drawn is what the next task trains on."""

from collections.abc import Sequence

from torch import Tensor

from perdure.methods.protocol import Deltas, Kept, Learner, Method, keep_factors, sum_low_rank


class Summed(Method):
    """`W = W_init + sum_t dW_t`, by default of `dW_t = A_t B_t`."""

    def past(self, kept: Sequence[Kept]) -> Deltas:
        return sum_low_rank(kept)

    def keep(self, learner: Learner) -> dict[str, Tensor]:
        return keep_factors(learner)

    def mix(
        self, kept: Sequence[Kept], spoken: Sequence[str], states: Tensor | None = None
    ) -> Deltas:
        return self.past(kept)
