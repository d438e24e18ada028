"""Open a base by name: the embedded one, a diffusers folder, or a hub id."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from perdure.errors import PerdureError
from perdure.hosts.diffusion.families import FAMILIES, family_of
from perdure.hosts.diffusion.family import Family
from perdure.quiet import quietly

__all__ = ["Opened", "model_index", "opened"]

SMALLWORLD = "smallworld"
_WEIGHTS = Path(__file__).parents[2] / "smallworld" / "weights"
_CLIP = "openai/clip-vit-large-patch14"


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A pipeline on its device, and what its folder says of itself."""

    pipeline: Any
    family: Family
    name: str
    encoder: str
    own_encoder: bool
    """Does the folder name the metric encoder itself?"""
    hints: Mapping[str, Any]
    device: torch.device


def default_device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    if torch.accelerator.is_available():
        return torch.device(str(torch.accelerator.current_accelerator()))
    return torch.device("cpu")


def opened(name: str | Path, device: str | torch.device | None = None) -> Opened:
    """Open `smallworld`, a diffusers folder, or a hub id; PerdureError as `Base.open`."""
    text = str(name)
    folder = _WEIGHTS / "base" if text == SMALLWORLD else Path(text).expanduser()
    if text == SMALLWORLD and not folder.is_dir():
        raise PerdureError(
            "The weights of smallworld are not installed: reinstall perdure, or make them with "
            "`python -m perdure.smallworld.train`."
        )
    if folder.is_dir():
        where, index = str(folder), model_index(folder)
    elif text.startswith((".", "/", "~")) or text.count("/") != 1:
        raise PerdureError(
            f"There is no base {text!r}: give 'smallworld', a diffusers folder, or a hub id such "
            "as 'stable-diffusion-v1-5/stable-diffusion-v1-5'."
        )
    else:
        where, index = text, {"_class_name": FAMILIES[0].pipelines[0]}
    kind = str(index["_class_name"])
    family = family_of(kind, text)
    hints = _hints(folder)
    place = torch.device(device) if device is not None else default_device()
    try:
        with quietly():
            pipeline = family.pipeline_class(kind).from_pretrained(
                where, dtype=torch.float32, use_safetensors=True, **family.arguments(index)
            )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise PerdureError(f"The base {text!r} cannot be opened: {_first_line(error)}") from error
    pipeline.set_progress_bar_config(disable=True)
    family.check(pipeline)
    family.prepare(pipeline, place)
    pipeline.to(place)
    own = "encoder" in hints
    return Opened(
        pipeline=pipeline,
        family=family,
        name=folder.name if folder.is_dir() and text != SMALLWORLD else text,
        encoder=str((folder / str(hints["encoder"])).resolve()) if own else _CLIP,
        own_encoder=own,
        hints=hints,
        device=place,
    )


def model_index(folder: Path) -> dict[str, Any]:
    """What `model_index.json` of a diffusers folder says; PerdureError where it is none."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise PerdureError(
            f"{folder} is no diffusers folder: it has no model_index.json. Save the model with "
            "diffusers' save_pretrained first."
        )
    try:
        content: dict[str, Any] = json.loads(index.read_text())
        content["_class_name"]
        return content
    except (ValueError, KeyError) as error:
        raise PerdureError(f"{index} is broken ({error}): download the base again.") from error


def _hints(folder: Path) -> dict[str, Any]:
    """What a base's folder says of itself in `perdure.json`: encoder, settings, reconstruction."""
    path = folder / "perdure.json"
    if not path.is_file():
        return {}
    try:
        hints: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise PerdureError(f"{path} is broken ({error}): mend it or take it away.") from error
    return hints


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
