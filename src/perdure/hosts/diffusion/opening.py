"""Open a base by name: the embedded one, a diffusers folder, one file, or a hub id."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from safetensors import SafetensorError
from torch import Tensor

from perdure.errors import PerdureError
from perdure.hosts.diffusion.encoders import Source
from perdure.hosts.diffusion.families import family_of
from perdure.hosts.diffusion.family import Family
from perdure.hosts.diffusion.files import (
    SUFFIX,
    pipeline_of,
    read_index,
    single_kind,
    stored_dtype,
    stored_weight,
    variant_of,
)
from perdure.hosts.diffusion.quantised import configuration
from perdure.hub import spelt
from perdure.quiet import quietly
from perdure.untrusted import read_json

__all__ = ["Opened", "opened"]

SMALLWORLD = "smallworld"
_WEIGHTS = Path(__file__).parents[2] / "smallworld" / "weights"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_CLIP = "openai/clip-vit-large-patch14"


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A pipeline as it is stored, and what its folder says of itself."""

    pipeline: Any
    family: Family
    name: str
    encoder: str
    own_encoder: bool
    """Does the folder name the metric encoder itself?"""
    hints: Mapping[str, Any]
    sources: Mapping[str, Source]
    """Encoders that are not read yet."""
    stored: Callable[[str], Tensor] | None
    """Of a denoiser with quantised weights: a weight as its files have it, by its name."""
    device: torch.device
    """Where it is to go."""
    dtype: torch.dtype
    """What it is to compute in; the pipeline holds the values that are stored, on the CPU."""


def default_device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    if torch.accelerator.is_available():
        return torch.device(str(torch.accelerator.current_accelerator()))
    return torch.device("cpu")


def opened(
    name: str | Path,
    device: str | torch.device | None = None,
    *,
    dtype: str | torch.dtype | None = None,
    config: str | Path | None = None,
    quantize: str | None = None,
) -> Opened:
    """Open `smallworld`, a diffusers folder, one file, or a hub id; PerdureError as `Base.open`."""
    hub = spelt(name)  # never a folder of the same name
    text, asked = hub.repository if hub else str(name), _dtype(dtype)
    place = _device(device)
    path = _WEIGHTS / "base" if text == SMALLWORLD else Path(text).expanduser()
    if text == SMALLWORLD and not path.is_dir():
        raise PerdureError(
            "The weights of smallworld are not installed: reinstall perdure, or make them with "
            "`python -m perdure.smallworld.train`."
        )
    if config is not None and (hub or not path.is_file()):
        raise PerdureError(f"--config has no effect on {text}, which is no single file: leave it.")
    if path.is_file() and not hub:
        if quantize is not None:
            raise PerdureError(f"{text} is a single file: quantize takes a diffusers folder.")
        family, pipeline, own = _of_file(path, config)
        sources: Mapping[str, Source] = {}
        folder = None
    else:
        revision = hub.revision if hub else None
        folder = path if path.is_dir() and not hub else _fetched(text, revision)
        family, pipeline, own, sources = _of_folder(folder, text, quantize, asked)
    hints = {} if hub else _hints(path)
    pipeline.set_progress_bar_config(disable=True)
    family.check(pipeline, sources)
    advised = hints.get("dtype")
    if asked is None and advised is not None:
        asked = _dtype(str(advised))
    encoder = "encoder" in hints
    known = path.exists() and text != SMALLWORLD and not hub
    return Opened(
        pipeline=pipeline,
        family=family,
        name=(path.name if path.is_dir() else path.stem) if known else text,
        encoder=str((path / str(hints["encoder"])).resolve()) if encoder else _CLIP,
        own_encoder=encoder,
        hints=hints,
        sources=sources,
        stored=_stored(folder, family, pipeline),
        device=place,
        dtype=_fast(asked or own, place),
    )


def _stored(folder: Path | None, family: Family, pipeline: Any) -> Callable[[str], Tensor] | None:
    denoiser = family.denoiser(pipeline)
    if folder is None or getattr(denoiser, "hf_quantizer", None) is None:
        return None
    part = folder / family.component
    return partial(stored_weight, part, variant_of(folder, [family.component]))


def _of_folder(
    folder: Path, text: str, quantize: str | None = None, asked: torch.dtype | None = None
) -> tuple[Family, Any, torch.dtype, Mapping[str, Source]]:
    """Family, pipeline with the values that are stored, the denoiser's stored dtype, and encoders
    that the pipeline is opened without."""
    index = read_index(folder)
    kind = pipeline_of(index)
    family = family_of(kind, text)
    given = family.arguments(index)
    encoders = [part for part in family.encoders if part not in given]
    parts = (family.component, family.autoencoder, *encoders)
    variant = variant_of(folder, parts)
    stored = {part: stored_dtype(folder, part, variant) for part in parts}
    own = stored[family.component]
    sources = {
        part: Source(folder=folder / part, kind=str(index[part][1]), variant=variant)
        for part in encoders
        if family.large_encoders and index.get(part, ("",))[0] == "transformers"
    }
    given |= dict.fromkeys(sources)
    if quantize is not None:
        own = asked or torch.bfloat16
        stored[family.component] = own
        given["quantization_config"] = configuration(quantize, family.component, own)
    with _refusing(text):
        pipeline = family.pipeline_class(kind).from_pretrained(
            folder,
            dtype={**stored, "default": own},
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            **given,
        )
    return family, pipeline, own, sources


def _of_file(file: Path, config: str | Path | None) -> tuple[Family, Any, torch.dtype]:
    """As `_of_folder`, of one file with all weights."""
    kind, own = single_kind(file)
    family = family_of(kind, str(file))
    if config is None or not Path(config).expanduser().is_dir():
        raise PerdureError(
            f"{file} holds weights alone: give with --config a diffusers folder of the same model "
            "(model_index.json, configurations and tokenizers; weights are not needed)."
        )
    folder = Path(config).expanduser()
    index = read_index(folder)
    said = pipeline_of(index)
    if said != kind:
        raise PerdureError(f"{file} is a {kind}, but {folder} of --config is of a {said}.")
    with _refusing(str(file)):
        pipeline = family.pipeline_class(kind).from_single_file(
            str(file),
            config=str(folder),
            dtype=own,
            local_files_only=True,
            **family.arguments(index),
        )
    return family, pipeline, own


def _fetched(text: str, revision: str | None = None) -> Path:
    """The folder of a hub id in the hub's cache, downloaded once its family is known."""
    if text.startswith((".", "/", "~")) or text.count("/") != 1 or text.endswith(SUFFIX):
        raise PerdureError(
            f"There is no base {text!r}: give 'smallworld', a diffusers folder, a .safetensors "
            "file, or a hub id such as 'stable-diffusion-v1-5/stable-diffusion-v1-5'."
        )
    with _refusing(text):
        index = DiffusionPipeline.load_config(text, revision=revision)
        family_of(str(index["_class_name"]), text)
    for variant in (None, "fp16", "bf16"):
        try:
            with quietly():
                folder = DiffusionPipeline.download(
                    text, variant=variant, revision=revision, use_safetensors=True
                )
                return Path(folder)
        except (OSError, ValueError) as error:
            last = error
    raise PerdureError(f"The base {text!r} cannot be downloaded: {_first_line(last)}") from last


@contextmanager
def _refusing(text: str) -> Iterator[None]:
    """What diffusers says against a base, in one sentence."""
    try:
        with quietly():
            yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise PerdureError(f"The base {text!r} cannot be opened: {_first_line(error)}") from error


def _dtype(given: str | torch.dtype | None) -> torch.dtype | None:
    if given is None or given in DTYPES.values():
        return given  # type: ignore[return-value]
    if given not in DTYPES:
        raise PerdureError(f"dtype is {given!r}, but must be one of {', '.join(DTYPES)}.")
    return DTYPES[str(given)]


def _device(given: str | torch.device | None) -> torch.device:
    if given is None:
        return default_device()
    try:
        device = torch.device(given)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise PerdureError(f"This machine has no device {given!r}: leave it out.") from error
    return device


def _fast(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """A CPU has no fast arithmetic in fp16, so such a base is opened there in fp32."""
    return torch.float32 if dtype == torch.float16 and device.type == "cpu" else dtype


def _hints(folder: Path) -> dict[str, Any]:
    """What a base's folder says of itself in `perdure.json`: encoder, settings, reconstruction."""
    path = folder / "perdure.json"
    if not path.is_file():
        return {}
    try:
        hints: dict[str, Any] = dict(read_json(path))
    except (ValueError, TypeError) as error:
        raise PerdureError(f"{path} is broken ({error}): mend it or take it away.") from error
    return hints


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
