"""Textual Inversion: one new token embedding a concept, no weight of the model changes.

v* = argmin_v L_diff(x, prompt with v)
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from perdure.methods.apart import Apart
from perdure.methods.protocol import Deltas, Kept, Learner, Moments, Shapes


class TextualInversion(Apart):
    name = "textual-inversion"
    title = "Textual Inversion: a token a concept, the weights stay the base's"
    trains_weights = False
    paper = "Gal et al., ICLR 2023, arXiv 2208.01618"

    def start(
        self,
        shapes: Shapes,
        past: Sequence[Kept],
        rows: Mapping[str, Tensor],
        generator: torch.Generator,
        *,
        moments: Moments | None = None,
    ) -> Learner:
        if not rows:
            raise ValueError("textual-inversion trains tokens alone, and this task has no token")
        return Learner({}, rows)

    def keep(self, learner: Learner) -> dict[str, Tensor]:
        return {}  # the token row, which the loop keeps, is all there is

    def mix(
        self, kept: Sequence[Kept], spoken: Sequence[str], states: Tensor | None = None
    ) -> Deltas:
        return {}
