"""Methods with a second step: one small module that the tasks of a whole bank share."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from perdure.adapters.prompts import Prompts
from perdure.methods.protocol import Deltas, Kept, Learner, Method, Shapes


class Composed(Method):
    """A method that trains on after a task, with all tasks' tensors frozen.

    What comes of it, `composition`, belongs to no task: the bank keeps it in a file of its own and
    replaces it whole, so the tasks' own files stay what they are in whatever order they came.
    """

    @abstractmethod
    def composition_settings(self) -> dict[str, Any] | None:
        """Options of the loop that differ in the second step; None where it is switched off."""

    @abstractmethod
    def start_composition(
        self,
        shapes: Shapes,
        kept: Sequence[Kept],
        composition: Mapping[str, Tensor],
        prompts: Prompts,
        generator: torch.Generator,
    ) -> Learner:
        """What the second step trains, going on from `composition` (empty at first).

        `prompts`, encoded, are of one concept of `kept` each: those that it was taught with, and
        others. The learner has no tokens: they are frozen too.
        """

    @abstractmethod
    def keep_composition(self, learner: Learner) -> dict[str, Tensor]:
        """What replaces `composition`: name -> detached copy on the CPU."""

    @abstractmethod
    def without(self, composition: Mapping[str, Tensor], concept: str) -> dict[str, Tensor]:
        """`composition` after a concept was removed."""

    @abstractmethod
    def mix_composed(
        self,
        kept: Sequence[Kept],
        composition: Mapping[str, Tensor],
        spoken: Sequence[str],
        states: Tensor | None = None,
    ) -> Deltas:
        """`mix` with the composition; `mix` itself is the same with none of it."""

    def mix(
        self, kept: Sequence[Kept], spoken: Sequence[str], states: Tensor | None = None
    ) -> Deltas:
        return self.mix_composed(kept, {}, spoken, states)
