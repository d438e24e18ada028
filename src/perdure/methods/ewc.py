"""EWC: elastic weight consolidation of the keys and values (arXiv 1612.00796).

L   = L_diff + lambda/2 * sum F_{t-1} (.) (dW - dW_{t-1})^2
F_t = F_{t-1} + mean over pictures of (d L_diff / d dW)^2 at dW_t,   F_0 = 0
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perdure.adapters.delta import FullRank
from perdure.methods.protocol import Deltas, Kept, Learner, Method, Moments, Shapes, keep_factors
from perdure.methods.sequential import SequentialFull, continuing
from perdure.settings import NotNegative


class EWCLearner(Learner):
    """A dense `dW` a layer that starts at `dW_{t-1}` and is held there as firmly as `F_{t-1}`."""

    def __init__(
        self,
        deltas: Mapping[str, FullRank],
        rows: Mapping[str, Tensor],
        fisher: Deltas,
        weight: float,
    ) -> None:
        super().__init__(deltas, rows)
        self.weight = weight
        self.looked: list[Tensor] | None = None
        for index, (layer, delta) in enumerate(deltas.items()):
            old = delta.dW.detach().clone() if layer in fisher else None
            self.register_buffer(f"old_{index}", old, persistent=False)
            self.register_buffer(f"fisher_{index}", fisher.get(layer), persistent=False)

    def forgetting(self) -> Tensor:
        """`1/2 sum F (.) (dW - dW_old)^2` added up over the layers, without lambda."""
        total = super().penalty()
        for index, delta in enumerate(self.layer_deltas().values()):
            F = getattr(self, f"fisher_{index}")
            if F is not None:
                moved = delta.dense() - getattr(self, f"old_{index}")
                total = total + (F * moved.square()).sum() / 2
        return total

    def penalty(self) -> Tensor:
        """`lambda/2 sum F (dW - dW_old)^2`; exactly 0 while the first task trains."""
        return self.weight * self.forgetting() if self.weight else super().penalty()

    def look_back(self, losses: Iterable[Tensor]) -> None:
        """The task's own diagonal Fisher: the mean of the squared gradients of the losses."""
        dWs = [delta.dense() for delta in self.layer_deltas().values()]
        squares, count = [torch.zeros_like(dW) for dW in dWs], 0
        for loss in losses:
            slopes = torch.autograd.grad(loss, dWs, allow_unused=True, materialize_grads=True)
            for square, slope in zip(squares, slopes, strict=True):
                square += slope.square()
            count += 1
        self.looked = [square / max(count, 1) for square in squares]

    def information(self) -> Deltas:
        """`F_t` by layer: the earlier tasks' and this one's, on the CPU."""
        if self.looked is None:
            raise ValueError("ewc: the Fisher is not known yet: call look_back after the last step")
        F = {}
        for index, (layer, own) in enumerate(zip(self.layers, self.looked, strict=True)):
            earlier = getattr(self, f"fisher_{index}")
            F[layer] = (own if earlier is None else earlier + own).cpu()
        return F


class EWC(SequentialFull):
    name = "ewc"
    title = "EWC: the keys and values trained on and on, held where the Fisher says they matter"
    paper = "Kirkpatrick et al., PNAS 2017, arXiv 1612.00796; as a baseline in arXiv 2304.06027"

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        penalty: NotNegative = 1e6
        """lambda, which multiplies the *sum* over layers and entries; F is that of the *mean*
        squared error of a picture, so it is tiny and lambda large: sweep it over decades [ours].
        0 switches it off."""

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
        deltas = self.continued(shapes, past)
        fisher = {layer: f["F"].clone() for layer, f in continuing(deltas, past).items()}
        return EWCLearner(deltas, rows, fisher, self.config.penalty)

    def keep(self, learner: Learner) -> dict[str, Tensor]:
        assert isinstance(learner, EWCLearner)
        F = {f"{layer}/F": matrix for layer, matrix in learner.information().items()}
        return {**keep_factors(learner), **F}
