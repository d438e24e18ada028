"""Methods by name."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from perdure.methods.c_lora import CLoRA
from perdure.methods.cidm import CIDM
from perdure.methods.custom_diffusion import CustomDiffusion
from perdure.methods.custom_diffusion_merged import CustomDiffusionMerged
from perdure.methods.dreambooth import DreamBooth
from perdure.methods.ewc import EWC
from perdure.methods.feature_space import FeatureSpace
from perdure.methods.fl2t import FL2T
from perdure.methods.gated import Gated
from perdure.methods.generative_replay import GenerativeReplay
from perdure.methods.joint import Joint
from perdure.methods.lora import LoRA
from perdure.methods.lora_independent import LoRAIndependent
from perdure.methods.lora_merged import LoRAMerged
from perdure.methods.protocol import Method
from perdure.methods.stamina import Stamina
from perdure.methods.textual_inversion import TextualInversion

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        CLoRA,
        CIDM,
        CustomDiffusion,
        CustomDiffusionMerged,
        DreamBooth,
        EWC,
        FeatureSpace,
        FL2T,
        Gated,
        GenerativeReplay,
        Joint,
        LoRA,
        LoRAIndependent,
        LoRAMerged,
        Stamina,
        TextualInversion,
    )
}

DEFAULT = Gated.name
"""What a new bank learns with where no method is asked for: see docs/results.md."""


def build(name: str, **config: Any) -> Method:
    """The method `name` with these options; ValueError names what exists where one does not."""
    return build_from(METHODS, name, config)


def build_from(methods: Mapping[str, type[Method]], name: str, config: Mapping[str, Any]) -> Method:
    """As `build`, of the methods that another domain offers."""
    if name not in methods:
        raise ValueError(f"there is no method {name!r}: there are {', '.join(sorted(methods))}")
    method = methods[name]
    options = [field.name for field in fields(method.Config)]
    unknown = sorted(set(config) - set(options))
    if unknown:
        has = f"its options are {', '.join(options)}" if options else "it has none"
        raise ValueError(f"{name} has no option {', '.join(map(repr, unknown))}: {has}")
    try:
        return method(method.Config(**config))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
