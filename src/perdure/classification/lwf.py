"""LwF: learning without forgetting (arXiv 1606.09282), of a backbone that is trained on and on.

L = L_new + lambda_o * sum over old tasks of  -sum_i y'_i log yhat'_i

y' are the old model's answers to the new pictures, softened with T; nothing of the past is needed
but the model itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from perdure.classification.finetuning import MaskedFineTuning
from perdure.classification.objective import distillation
from perdure.methods.protocol import Method
from perdure.settings import Limits, NotNegative

__all__ = ["LwF"]


class LwF(MaskedFineTuning):
    name = "lwf"
    title = "LwF: the whole backbone trained on, held to its old answers to the new pictures"
    paper = "Li and Hoiem, ECCV 2016, arXiv 1606.09282"

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        weight: NotNegative = 1.0
        """lambda_o [paper]."""
        temperature: Annotated[float, Limits(least=1e-3)] = 2.0
        """T [paper]."""

    config: Config

    def held(self, now: Tensor, before: Tensor, sizes: Sequence[int]) -> Tensor:
        """`lambda_o` times the distillation; see `distillation` for the shapes."""
        return self.config.weight * distillation(now, before, sizes, self.config.temperature)
