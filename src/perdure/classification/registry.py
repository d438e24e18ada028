"""Methods of classification by name: those of drawing that need no prompt, and its own."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from perdure.classification.coda_prompt import CodaPrompt
from perdure.classification.finetuning import FineTuning, MaskedFineTuning, Replay
from perdure.classification.lwf import LwF
from perdure.methods.c_lora import CLoRA
from perdure.methods.ewc import EWC
from perdure.methods.feature_space import FeatureSpace
from perdure.methods.inflora import InfLoRA
from perdure.methods.joint import Joint
from perdure.methods.lora import LoRA
from perdure.methods.protocol import Method
from perdure.methods.registry import build_from
from perdure.methods.sequential import SequentialFull
from perdure.methods.stamina import Stamina

__all__ = ["CLASSIFIERS", "build_classifier", "rates_of"]

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
            LoRA,
            LwF,
            MaskedFineTuning,
            Replay,
            Stamina,
        )
    }
)


PENALTIES: Mapping[str, float] = MappingProxyType(
    {"c-lora": 1e4, "ewc": 1e4, "feature-space": 0.1, "stamina": 1e4}
)
"""The weight of a penalty where none is given, chosen on `smallworld-classes-40-tuning`: those of
the classes themselves are for drawing, where the loss and the layers are others."""


def build_classifier(name: str, options: Mapping[str, Any]) -> Method:
    """The method with these options; ValueError names what exists where one does not."""
    own = {"penalty": PENALTIES[name]} if name in PENALTIES else {}
    return build_from(CLASSIFIERS, name, {**own, **options})


def rates_of(method: Method) -> tuple[float, float]:
    """Learning rates of what the method trains and of the head, where the user gave none."""
    if isinstance(method, CodaPrompt):
        return 1e-3, 1e-3
    return (5e-5 if isinstance(method, SequentialFull) else 5e-4), 5e-4
