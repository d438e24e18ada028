"""Methods of classification by name: those of drawing that need no prompt, and its own."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from perdure.classification.coda_prompt import CodaPrompt
from perdure.classification.finetuning import FineTuning, MaskedFineTuning, Replay
from perdure.classification.inflora import InfLoRA
from perdure.classification.lwf import LwF
from perdure.classification.probe import LinearProbe
from perdure.classification.recipes import planned
from perdure.methods.c_lora import CLoRA
from perdure.methods.ewc import EWC
from perdure.methods.feature_space import FeatureSpace
from perdure.methods.joint import Joint
from perdure.methods.lora import LoRA
from perdure.methods.protocol import Method
from perdure.methods.registry import build_from
from perdure.methods.stamina import Stamina

__all__ = ["CLASSIFIERS", "build_classifier", "check_rate"]

CLASSIFIERS: Mapping[str, type[Method]] = MappingProxyType(
    {
        method.name: method
        for method in (
            CLoRA,
            CodaPrompt,
            EWC,
            FeatureSpace,
            FineTuning,
            InfLoRA,
            Joint,
            LinearProbe,
            LoRA,
            LwF,
            MaskedFineTuning,
            Replay,
            Stamina,
        )
    }
)


PENALTIES: Mapping[str, float] = MappingProxyType(
    {"c-lora": 1e6, "ewc": 1e6, "feature-space": 10.0, "stamina": 1e6}
)
"""The weight of a penalty where none is given, chosen on `smallworld-classes-40-tuning`: those of
the classes themselves are for drawing, where the loss and the layers are others."""


def build_classifier(name: str, options: Mapping[str, Any], tasks: int | None = None) -> Method:
    """The method with these options; ValueError names what exists where one does not.

    Where it is known how many ``tasks`` there will be, some methods plan for it: see `planned`.
    """
    if tasks is not None and tasks < 1:
        raise ValueError(f"the number of tasks expected is {tasks}, but must be at least 1")
    own: dict[str, Any] = {"penalty": PENALTIES[name]} if name in PENALTIES else {}
    if tasks is not None:
        own |= planned(name, tasks)
    return build_from(CLASSIFIERS, name, {**own, **options})


def check_rate(method: Method, lr: float | None) -> None:
    """ValueError where a learning rate was given to a method that trains the head alone."""
    if lr is not None and not method.trains_weights:
        raise ValueError(
            f"lr has no effect: {method.name} trains the head alone, whose rate is head_lr"
        )
