"""What sequential methods share: one set of deltas is trained on and on, and the last holds all."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from perdure.adapters.delta import FullRank
from perdure.methods.protocol import (
    Deltas,
    Kept,
    Learner,
    Method,
    Moments,
    Shapes,
    full_rank_deltas,
    keep_factors,
    task_of,
)


class Sequential(Method):
    """Every task goes on from the deltas that the task before it left."""

    def past(self, kept: Sequence[Kept]) -> Deltas:
        return {}  # the past is inside the deltas that train on

    def keep(self, learner: Learner) -> dict[str, Tensor]:
        return keep_factors(learner)

    def check_removable(self, kept: Sequence[Kept], concept: str) -> None:
        if task_of(kept, concept) != len(kept) - 1:
            last = ", ".join(f"<{name}>" for name in kept[-1].concepts)
            raise ValueError(
                f"<{concept}> cannot be removed: {self.name} trains one set of deltas on and on, "
                f"so every later task has built on it, and only the last task ({last}) can go"
            )
        super().check_removable(kept, concept)


class SequentialFull(Sequential):
    """`W_t = W_init + dW`, where a dense `dW` continues from task to task."""

    def start(
        self,
        shapes: Shapes,
        past: Sequence[Kept],
        rows: Mapping[str, Tensor],
        generator: torch.Generator,
        *,
        moments: Moments | None = None,
    ) -> Learner:
        return Learner(self.continued(shapes, past), rows)

    def continued(self, shapes: Shapes, past: Sequence[Kept]) -> dict[str, FullRank]:
        """A `FullRank` a layer that starts at the last task's `dW`, at zero for the first task."""
        deltas = full_rank_deltas(shapes)
        for layer, factors in continuing(deltas, past).items():
            deltas[layer].continue_from(factors["dW"])
        return deltas

    def mix(
        self, kept: Sequence[Kept], spoken: Sequence[str], states: Tensor | None = None
    ) -> Deltas:
        return {layer: f["dW"] for task in kept[-1:] for layer, f in task.factors().items()}


def continuing(layers: Mapping[str, object], past: Sequence[Kept]) -> dict[str, dict[str, Tensor]]:
    """The last task's factors by layer; ValueError where one belongs to no layer of `layers`."""
    last = past[-1].factors() if past else {}
    for layer in last:
        if layer not in layers:
            raise ValueError(f"the adapter to continue has a layer {layer!r} that is no target")
    return last
