"""C-LoRA: continual customisation with self-regularised low-rank adaptation (arXiv 2304.06027).

W_t      = W_init + sum_{t'<t} A_t' B_t' + A_t B_t
L_forget = sum_layers || |sum_{t'<t} A_t' B_t'| (.) A_t B_t ||_F^2
L        = L_diff + lambda * L_forget
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perdure.adapters.delta import Delta
from perdure.methods.protocol import (
    Deltas,
    Kept,
    Learner,
    Method,
    Moments,
    Shapes,
    low_rank_deltas,
)
from perdure.methods.summed import Summed
from perdure.settings import Count, NotNegative


class CLoRALearner(Learner):
    """A fresh `A_t B_t` a layer, and `| sum_{t'<t} A_t' B_t' |` of the layers that have a past."""

    def __init__(
        self,
        deltas: Mapping[str, Delta],
        rows: Mapping[str, Tensor],
        past: Deltas,
        weight: float,
    ) -> None:
        super().__init__(deltas, rows)
        self.weight = weight
        for index, layer in enumerate(self.layers):
            P = past[layer].abs() if layer in past else None
            self.register_buffer(f"past_{index}", P, persistent=False)

    def forgetting(self) -> Tensor:
        """L_forget: the squared Frobenius norms added up over the layers, without lambda."""
        total = super().penalty()
        for index, delta in enumerate(self.layer_deltas().values()):
            P = getattr(self, f"past_{index}")
            if P is not None:
                total = total + delta.weighed_square(P)
        return total

    def penalty(self) -> Tensor:
        """`lambda * L_forget`; exactly 0 while the first task trains."""
        return self.weight * self.forgetting() if self.weight else super().penalty()


class CLoRA(Summed):
    name = "c-lora"
    title = "C-LoRA: a low-rank delta a task, kept off the weights that earlier tasks changed"
    paper = "Smith et al., TMLR 2024, arXiv 2304.06027"

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        rank: Count = 16
        """Rank of every `A_t B_t`; 16 for diffusion, 64 for image classification [paper]."""
        penalty: NotNegative = 1e8
        """lambda, which multiplies L_forget as the paper writes it: the *sum* over layers and
        entries of the squared product, no mean and no square root. About 1e8 there, because the
        square of a product of two small deltas is tiny. 0 switches the penalty off."""

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
        deltas = low_rank_deltas(shapes, self.config.rank, generator)
        summed = self.past(past) if self.config.penalty else {}
        return CLoRALearner(deltas, rows, summed, self.config.penalty)
