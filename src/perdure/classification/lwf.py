"""LwF: learning without forgetting (arXiv 1606.09282), of a backbone that is trained on and on.

L = L_new + lambda_o * sum over old tasks of  -sum_i y'_i log yhat'_i

y' are the old model's answers to the new pictures, softened with T; nothing of the past is needed
but the model itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from perdure.classification.finetuning import MaskedFineTuning
from perdure.classification.objective import distillation
from perdure.methods.checks import check_number
from perdure.methods.protocol import Method

__all__ = ["LwF"]


class LwF(MaskedFineTuning):
    name = "lwf"
    title = "LwF: the whole backbone trained on, held to its old answers to the new pictures"
    paper = "Li and Hoiem, ECCV 2016, arXiv 1606.09282"

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        weight: float = 1.0
        """lambda_o [paper]."""
        temperature: float = 2.0
        """T [paper]."""

        def __post_init__(self) -> None:
            check_number("lwf", "weight", self.weight, 0)
            check_number("lwf", "temperature", self.temperature, 1e-3)

    config: Config

    def held(self, now: Tensor, before: Tensor, sizes: Sequence[int]) -> Tensor:
        """`lambda_o` times the distillation; see `distillation` for the shapes."""
        return self.config.weight * distillation(now, before, sizes, self.config.temperature)
