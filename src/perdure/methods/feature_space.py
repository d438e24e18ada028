"""Feature-space: keep the delta silent on the features of everything learned before. Ours.

L = L_diff + lambda * sum_layers trace(dW_t C dW_t^T),   C = mean of c c^T,   dW_t = A_t B_t

Keys and values are linear in the text features c, so `dW_t c` is the interference itself, and
`trace(dW_t C dW_t^T)` is the mean of its square. It needs prompts, never pictures. Where the layers
read different features, as in a vision transformer, each has a C of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from perdure.adapters.delta import LowRank, without_autocast
from perdure.methods.protocol import (
    Kept,
    Learner,
    Method,
    Moments,
    Shapes,
    checked_moments,
    low_rank_deltas,
)
from perdure.methods.summed import Summed
from perdure.settings import Count, NotNegative


class Complement(nn.Module):
    """`B (I - Q Q^T)`: the rows of B off the span of the orthonormal columns Q (d_in, m)."""

    def __init__(self, Q: Tensor) -> None:
        super().__init__()
        self.Q: Tensor
        self.register_buffer("Q", Q, persistent=False)

    def forward(self, B: Tensor) -> Tensor:
        with without_autocast(B):
            return B - (B @ self.Q) @ self.Q.T


class FeatureSpaceLearner(Learner):
    """A fresh `A_t B_t` a layer, and the C (d_in, d_in) that it reads, held once if shared."""

    def __init__(
        self,
        deltas: Mapping[str, LowRank],
        rows: Mapping[str, Tensor],
        moments: Mapping[str, Tensor],
        weight: float,
    ) -> None:
        super().__init__(deltas, rows)
        self.weight = weight
        held: dict[int, int] = {}
        self.reads = tuple(held.setdefault(id(moments[layer]), len(held)) for layer in self.layers)
        for index, layer in zip(self.reads, self.layers, strict=True):
            self.register_buffer(f"C_{index}", moments[layer], persistent=False)

    def interference(self) -> Tensor:
        """`trace(dW C dW^T)` added up over the layers, without lambda.

        Computed as the sum of the entries of `(A^T A) (.) (B C B^T)`, r x r: no dense `dW`.
        """
        total = super().penalty()
        for index, delta in zip(self.reads, self.layer_deltas().values(), strict=True):
            assert isinstance(delta, LowRank)
            C = getattr(self, f"C_{index}")
            with without_autocast(C):
                A, B = delta.A, delta.B
                total = total + ((A.T @ A) * (B @ C @ B.T)).sum()
        return total

    def penalty(self) -> Tensor:
        """`lambda * sum_layers trace(dW C dW^T)`, at the first task too."""
        return self.weight * self.interference() if self.weight else super().penalty()


class FeatureSpace(Summed):
    name = "feature-space"
    title = "Feature-space: a low-rank delta a task, kept silent on the features of other prompts"
    paper = "this project's own; see docs/methods/feature-space.md"
    needs_moments = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        rank: Count = 16
        """Rank of every `A_t B_t`."""
        penalty: NotNegative = 1e-3
        """lambda, which multiplies the sum over layers of the mean squared `dW c`. Its value
        depends on the scale of the features: sweep it over decades. 0 switches it off."""
        projection: NotNegative = 0.0
        """Hard projection: the B of every layer stays off the leading eigenvectors of C that
        together hold this share of its trace, from 0 (off) to below 1."""
        gather: Literal["mean", "sum"] = "sum"
        """How C gathers concepts (in classification: tasks): their sum, in which each keeps the
        weight that it began with, or their mean, in which each weighs less the more there are."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.projection >= 1:
                raise ValueError(
                    f"projection is {self.projection!r}, but must be below 1, because the whole "
                    "space leaves nothing to learn in"
                )

    config: Config

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        self.moments_are = self.config.gather

    def start(
        self,
        shapes: Shapes,
        past: Sequence[Kept],
        rows: Mapping[str, Tensor],
        generator: torch.Generator,
        *,
        moments: Moments | None = None,
    ) -> Learner:
        """As `Method.start`. A layer whose C is zero, because nothing was learned yet, is free."""
        by_layer = checked_moments(self.name, shapes, moments)
        deltas = low_rank_deltas(shapes, self.config.rank, generator)
        if self.config.projection:
            complements: dict[int, Complement] = {}
            for layer, delta in deltas.items():
                C = by_layer[layer]
                if not C.any():
                    continue
                if id(C) not in complements:
                    complements[id(C)] = Complement(self._protected(C))
                parametrize.register_parametrization(delta, "B", complements[id(C)])
        return FeatureSpaceLearner(deltas, rows, by_layer, self.config.penalty)

    def _protected(self, C: Tensor) -> Tensor:
        """The directions that B stays off; ValueError where none is left."""
        Q = leading(C, self.config.projection)
        if Q.shape[1] == Q.shape[0]:
            raise ValueError(
                f"feature-space: the features that hold {self.config.projection} of C's trace "
                f"fill all {Q.shape[0]} dimensions: lower the projection"
            )
        return Q


def leading(C: Tensor, share: float) -> Tensor:
    """Orthonormal columns (d, m), fp32: the fewest eigenvectors of C that hold `share` of its
    trace, largest first."""
    values, vectors = torch.linalg.eigh(C.double())
    held = values.clamp(min=0).flip(0).cumsum(0)
    m = int((held < share * held[-1]).sum()) + 1
    return vectors.flip(1)[:, :m].float().contiguous()
