"""A linear probe: the backbone stays as it is, and the head alone learns.

No method of continual learning, but what any has to be compared with: where the backbone tells the
classes apart already, training it can only lose.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from perdure.methods.apart import Apart
from perdure.methods.protocol import Deltas, Kept, Learner, Moments, Shapes

__all__ = ["LinearProbe"]


class LinearProbe(Apart):
    name = "probe"
    title = "Linear probe: the backbone stays as it is, the head alone learns"
    paper = "a reference, as in Alain and Bengio, 2016, arXiv 1610.01644"
    trains_weights: ClassVar[bool] = False

    def start(
        self,
        shapes: Shapes,
        past: Sequence[Kept],
        rows: Mapping[str, Tensor],
        generator: torch.Generator,
        *,
        moments: Moments | None = None,
    ) -> Learner:
        return Learner({}, {})

    def mix(
        self, kept: Sequence[Kept], spoken: Sequence[str], states: Tensor | None = None
    ) -> Deltas:
        return {}
