"""What differs between base families, as data: one table entry each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from perdure.errors import PerdureError

__all__ = ["FAMILIES", "KEYS_VALUES", "Family", "Layer", "family_of", "target_layers"]

KEYS_VALUES = "keys-values"
"""The default set, a part of every other one."""

Layer = nn.Linear | nn.Conv2d


@dataclass(frozen=True, kw_only=True)
class Family:
    """One architecture of pipeline."""

    title: str
    pipeline: str
    """Class name in `model_index.json`."""
    denoiser: str
    """The pipeline's component that holds the target layers."""
    targets: Mapping[str, tuple[str, ...]]
    """Set of target layers -> how their names end; every linear and convolution where empty."""
    cross_attention: str
    """How the names of the modules end that read the prompt."""


FAMILIES = (
    Family(
        title="Stable Diffusion 1.x / 2.x",
        pipeline="StableDiffusionPipeline",
        denoiser="unet",
        targets={
            KEYS_VALUES: ("attn2.to_k", "attn2.to_v"),
            "cross-attention": ("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"),
            "all": (),
        },
        cross_attention="attn2",
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


def target_layers(denoiser: nn.Module, family: Family, targets: str) -> Mapping[str, Layer]:
    """Name -> layer of one of the family's sets, in the denoiser's own order."""
    ends = family.targets[targets]
    return {
        name: module
        for name, module in denoiser.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and (not ends or name.endswith(ends))
    }
