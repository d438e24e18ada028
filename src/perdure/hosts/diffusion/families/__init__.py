"""The families of pipelines: one file is one of them."""

from typing import Any

import diffusers

from perdure.errors import PerdureError
from perdure.hosts.diffusion.families.chroma import Chroma
from perdure.hosts.diffusion.families.flux import Flux
from perdure.hosts.diffusion.families.flux2 import Flux2
from perdure.hosts.diffusion.families.flux2_dev import Flux2Dev
from perdure.hosts.diffusion.families.krea2 import Krea2
from perdure.hosts.diffusion.families.lumina2 import Lumina2
from perdure.hosts.diffusion.families.pixart import PixArtSigma
from perdure.hosts.diffusion.families.qwen_image import QwenImage
from perdure.hosts.diffusion.families.sana import Sana
from perdure.hosts.diffusion.families.sd import StableDiffusion
from perdure.hosts.diffusion.families.sd3 import StableDiffusion3
from perdure.hosts.diffusion.families.sdxl import StableDiffusionXL
from perdure.hosts.diffusion.families.z_image import ZImage
from perdure.hosts.diffusion.family import Family

__all__ = ["FAMILIES", "family_by_parts", "family_of", "plain"]

FAMILIES: tuple[Family, ...] = (
    StableDiffusion(),
    StableDiffusionXL(),
    Sana(),
    PixArtSigma(),
    StableDiffusion3(),
    Flux(),
    Flux2(),
    Flux2Dev(),
    ZImage(),
    QwenImage(),
    Chroma(),
    Lumina2(),
    Krea2(),
)


_EDITS = ("Inpaint", "Img2Img", "Edit", "Kontext", "Fill", "Control", "Pix2Pix")
"""Parts of the names of pipelines that are given pictures beside the prompt."""


def family_of(pipeline: str, where: str) -> Family:
    """The family of a pipeline class; PerdureError where there is none."""
    for family in FAMILIES:
        if pipeline in family.pipelines:
            return family
    known = ", ".join(f"{family.title} ({family.pipelines[0]})" for family in FAMILIES)
    edits = any(word in pipeline for word in _EDITS)
    why = "fills or edits pictures, and perdure teaches those that draw from text alone"
    raise PerdureError(
        f"The base {where} is a {pipeline}, which {why if edits else 'perdure cannot teach yet'}: "
        f"choose one of {known}."
    )


def family_by_parts(pipeline: Any) -> Family:
    """The family of a pipeline that is made of its parts, whatever it draws from beside text;
    PerdureError where there is none."""
    for family in FAMILIES:
        if _has_parts(pipeline, family):
            return family
    known = ", ".join(family.title for family in FAMILIES)
    raise PerdureError(
        f"A bank cannot be attached to a {type(pipeline).__name__} of these parts: attach to a "
        f"pipeline of {known}."
    )


def _has_parts(pipeline: Any, family: Family) -> bool:
    kinds = getattr(diffusers, family.pipelines[0])._get_signature_types()
    encoders = {name: part for name, part in pipeline.components.items() if "encoder" in name}
    held = [name for name, part in encoders.items() if hasattr(plain(part), "get_input_embeddings")]
    wanted = [name for name in family.encoders if name in held or name not in family.optional]
    return set(held) == set(wanted) and all(
        isinstance(plain(getattr(pipeline, part, None)), kinds[part])
        for part in (family.component, *wanted)
    )


def plain(module: Any) -> Any:
    """A module as it is without `torch.compile`."""
    return getattr(module, "_orig_mod", module)
