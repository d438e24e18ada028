"""How a method is run on a tower: what of classification its own contract does not say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from perdure.classification.coda_prompt import CodaPrompt, CodaPromptLearner, prompted
from perdure.classification.finetuning import FineTuning, MaskedFineTuning, Replay
from perdure.classification.inflora import InfLoRA, InfLoRALearner
from perdure.classification.lwf import LwF
from perdure.classification.moments import gathered
from perdure.hosts.vision.backbone import Backbone
from perdure.methods.ewc import EWC
from perdure.methods.feature_space import FeatureSpace
from perdure.methods.joint import Joint
from perdure.methods.lora import LoRA
from perdure.methods.protocol import Kept, Learner, Method, Moments, Shapes

__all__ = ["Recipe", "recipe_of"]

Measure = Callable[[], Moments]
"""What the target layers read of the task's pictures, with what is folded and attached now."""


class Recipe:
    """Any method: low-rank deltas, a cross-entropy over the task's own classes."""

    lr: ClassVar[float] = 5e-4
    """Rate of what the method trains, where the user gave none [paper]."""
    head_lr: ClassVar[float] = 5e-4
    """Rate of the head, likewise [paper]."""
    masks_old_classes: ClassVar[bool] = True
    """Is a task's cross-entropy over its own classes alone?"""
    needs_old_model: ClassVar[bool] = False
    """Does the loss ask what the model before the task says?"""
    last_holds_all: ClassVar[bool] = False
    """Is all that was learned in the last task's tensors?"""

    def __init__(self, method: Method) -> None:
        self.method = method

    @property
    def pictures(self) -> int:
        """Pictures of every class that are kept."""
        return 0

    def start(
        self,
        shapes: Shapes,
        kept: Sequence[Kept],
        generator: torch.Generator,
        moments: Moments,
        measure: Measure,
    ) -> Learner:
        """The learner of a task; ``moments`` are what `finish` returned for the task before."""
        return self.method.start(shapes, kept, {}, generator)

    def finish(self, learner: Learner, moments: Moments, tasks: int, measure: Measure) -> Moments:
        """Called after the last step of task number ``tasks``; the moments to be kept."""
        return moments

    def features(
        self, backbone: Backbone, pixels: Tensor, kept: Sequence[Kept], learner: Learner | None
    ) -> Tensor:
        """(N, width) of pixels: by what was kept or, while it trains, by the learner."""
        return backbone.features(pixels)

    def held(self, now: Tensor, before: Tensor, sizes: Sequence[int]) -> Tensor:
        """What the loss adds where it `needs_old_model`: logits (N, classes) now and before."""
        return now.new_zeros(())


class Overwriting(Recipe):
    """One set of deltas is trained on and on."""

    last_holds_all = True


class FullRank(Overwriting):
    """Whole matrices train; their rate is ours."""

    lr = 5e-5


class Unmasked(FullRank):
    """All classes seen compete in a task's loss."""

    masks_old_classes = False


class Rehearsing(Unmasked):
    """Pictures are kept."""

    @property
    def pictures(self) -> int:
        assert isinstance(self.method, Replay)
        return self.method.config.pictures


class Distilling(FullRank):
    """The old model's answers are held on to."""

    needs_old_model = True

    def held(self, now: Tensor, before: Tensor, sizes: Sequence[int]) -> Tensor:
        assert isinstance(self.method, LwF)
        return self.method.held(now, before, sizes)


class Prompting(Recipe):
    """The tower reads with prompts; rates as in CODA-Prompt's public code."""

    lr, head_lr = 1e-3, 1e-3

    def features(
        self, backbone: Backbone, pixels: Tensor, kept: Sequence[Kept], learner: Learner | None
    ) -> Tensor:
        assert isinstance(self.method, CodaPrompt)
        if learner is None:
            return prompted(backbone, self.method.components(kept), pixels)
        assert isinstance(learner, CodaPromptLearner)
        return prompted(backbone, learner.components(), pixels)


class Remembering(Recipe):
    """The moments of all tasks are gathered, and the next task is kept silent on them."""

    def start(
        self,
        shapes: Shapes,
        kept: Sequence[Kept],
        generator: torch.Generator,
        moments: Moments,
        measure: Measure,
    ) -> Learner:
        nothing = {layer: torch.zeros(d, d) for layer, (_, d) in shapes.items()}
        return self.method.start(shapes, kept, {}, generator, moments=moments or nothing)

    def finish(self, learner: Learner, moments: Moments, tasks: int, measure: Measure) -> Moments:
        return gathered(moments, tasks, measure(), self.method.moments_are)


class Designing(Recipe):
    """The task's own moments design the deltas before it trains, and grow the memory after."""

    def start(
        self,
        shapes: Shapes,
        kept: Sequence[Kept],
        generator: torch.Generator,
        moments: Moments,
        measure: Measure,
    ) -> Learner:
        return self.method.start(shapes, kept, {}, generator, moments=measure())

    def finish(self, learner: Learner, moments: Moments, tasks: int, measure: Measure) -> Moments:
        assert isinstance(learner, InfLoRALearner)
        learner.absorb(measure())
        return moments


_RECIPES: Mapping[type[Method], type[Recipe]] = {
    CodaPrompt: Prompting,
    EWC: FullRank,
    FeatureSpace: Remembering,
    FineTuning: Unmasked,
    InfLoRA: Designing,
    Joint: Overwriting,
    LoRA: Overwriting,
    LwF: Distilling,
    MaskedFineTuning: FullRank,
    Replay: Rehearsing,
}


def recipe_of(method: Method) -> Recipe:
    """The method's recipe."""
    return _RECIPES.get(type(method), Recipe)(method)


def planned(name: str, tasks: int) -> dict[str, Any]:
    """Options that follow from how many tasks there will be, as in the public codes: InfLoRA's T is
    that, and CODA-Prompt shares its 100 components among them."""
    return {
        InfLoRA.name: {"tasks": tasks},
        CodaPrompt.name: {"components": max(1, 100 // tasks)},
    }.get(name, {})
