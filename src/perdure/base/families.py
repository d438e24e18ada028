"""What differs between base families, as data: one table entry each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from perdure.errors import PerdureError

__all__ = ["FAMILIES", "Family", "family_of"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """One architecture of pipeline."""

    title: str
    pipeline: str
    """Class name in `model_index.json`."""
    denoiser: str
    """The pipeline's component that holds the target layers."""
    targets: tuple[str, ...]
    """How the names of the target layers end."""


FAMILIES = (
    Family(
        title="Stable Diffusion 1.x / 2.x",
        pipeline="StableDiffusionPipeline",
        denoiser="unet",
        targets=("attn2.to_k", "attn2.to_v"),
    ),
)


def family_of(pipeline: str, where: str) -> Family:
    """The family of a pipeline class; PerdureError where there is none."""
    for family in FAMILIES:
        if family.pipeline == pipeline:
            return family
    known = ", ".join(f"{family.title} ({family.pipeline})" for family in FAMILIES)
    raise PerdureError(
        f"The base {where} is a {pipeline}, which perdure cannot teach yet: choose one of {known}."
    )


def target_layers(denoiser: nn.Module, family: Family) -> Mapping[str, nn.Linear]:
    """Name -> layer, in the denoiser's own order."""
    layers: dict[str, nn.Linear] = {}
    for name, module in denoiser.named_modules():
        if name.endswith(family.targets):
            assert isinstance(module, nn.Linear), name
            layers[name] = module
    return layers
