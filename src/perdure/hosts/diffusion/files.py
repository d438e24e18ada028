"""What a base's files say before anything is opened: kind, variant, dtypes, what is missing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import infer_diffusers_model_type
from safetensors import SafetensorError, safe_open

from perdure.errors import PerdureError
from perdure.untrusted import read_json

__all__ = [
    "SUFFIX",
    "pipeline_of",
    "read_index",
    "single_kind",
    "stored_dtype",
    "stored_weight",
    "variant_of",
    "weight_files",
]

SUFFIX = ".safetensors"
_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_SINGLE = {
    "v1": "StableDiffusionPipeline",
    "v2": "StableDiffusionPipeline",
    "xl_base": "StableDiffusionXLPipeline",
}
"""What diffusers makes of a file's keys -> the pipeline's class."""
_LORA = ("lora_", ".lora.", "lora_A", "lora_B", "lora_down", "lora_up")
_DENOISER = "model.diffusion_model."
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.safetensors$")


def read_index(folder: Path) -> dict[str, Any]:
    """A folder's `model_index.json`; PerdureError where it is missing or broken."""
    index = folder / "model_index.json"
    adapters = ("adapter_config.json", "pytorch_lora_weights.safetensors")
    if not index.is_file() and any((folder / name).is_file() for name in adapters):
        raise PerdureError(
            f"{folder} is a LoRA and no base: give the base that it was made for, with --base."
        )
    if not index.is_file():
        raise PerdureError(
            f"{folder} is no diffusers folder: it has no model_index.json. Save the model with "
            "diffusers' save_pretrained first."
        )
    try:
        found = read_json(index)
        found["_class_name"] = str(found["_class_name"])
    except (ValueError, KeyError, TypeError) as error:
        raise PerdureError(f"{index} is broken ({error}): download the base again.") from error
    return dict(found)


def pipeline_of(index: Mapping[str, Any]) -> str:
    """The class of a pipeline by its `model_index.json`."""
    return str(index["_class_name"])


def variant_of(folder: Path, parts: Sequence[str]) -> str | None:
    """The variant, such as fp16, in whose files alone the parts' weights lie; None: plain ones.

    Raises PerdureError where a part has no weights at all, none but pickled ones, lacks a shard, or
    has a file that is cut short.
    """
    found: set[str] = set()
    for part in parts:
        files = sorted((folder / part).glob("*" + SUFFIX))
        if not files:
            _refuse_without_weights(folder, part)
        _check_shards(folder / part)
        for file in files:
            _header(file)
        variants = {_variant(file) for file in files}
        if "" not in variants:
            found.add(sorted(variants)[0])
    if len(found) > 1:
        raise PerdureError(
            f"The parts of {folder} are of several variants ({', '.join(sorted(found))}): download "
            "the base again in one of them."
        )
    return found.pop() if found else None


def stored_dtype(folder: Path, part: str, variant: str | None) -> torch.dtype:
    """The dtype of most weights of a part, by its files."""
    count: Counter[torch.dtype] = Counter()
    for file in weight_files(folder / part, variant):
        count.update(_header(file))
    return count.most_common(1)[0][0] if count else torch.float32


def weight_files(folder: Path, variant: str | None) -> list[Path]:
    """The files of a part's weights in a variant; the plain ones where it has none."""
    files = sorted(folder.glob("*" + SUFFIX))
    return [file for file in files if _variant(file) == (variant or "")] or files


def stored_weight(folder: Path, variant: str | None, name: str) -> torch.Tensor:
    """A tensor of a part's weights as it is stored; PerdureError where there is none."""
    for file in weight_files(folder, variant):
        with safe_open(file, framework="pt") as stored:
            if name in stored.keys():  # noqa: SIM118
                return stored.get_tensor(name)
    raise PerdureError(f"{folder} has no weight {name}: download the base again.")


def single_kind(file: Path) -> tuple[str, torch.dtype]:
    """The pipeline's class of one file with all weights, and its denoiser's dtype.

    Raises PerdureError for a pickle, a file that is cut short, a LoRA, and what is of no family.
    """
    if file.suffix in _PICKLES:
        raise PerdureError(
            f"{file} is a pickle, which can run code when it is read, so perdure opens none: "
            "convert it to safetensors on a machine that may (from_single_file and "
            "save_pretrained of diffusers)."
        )
    if file.suffix != SUFFIX:
        raise PerdureError(f"{file} is no base: give a .safetensors file or a diffusers folder.")
    dtypes = _header(file, _DENOISER)
    with safe_open(file, framework="pt") as opened:
        shapes = {key: _Shape(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
    if any(mark in key for key in shapes for mark in _LORA):
        raise PerdureError(
            f"{file} is a LoRA and no base: give the base that it was made for, with --base."
        )
    if not any(key.startswith(_DENOISER) for key in shapes):
        raise PerdureError(
            f"{file} holds no whole pipeline of Stable Diffusion (no {_DENOISER}*): give a "
            "checkpoint with U-Net, text encoder and autoencoder, or a diffusers folder."
        )
    kind = infer_diffusers_model_type(shapes)
    if kind not in _SINGLE:
        raise PerdureError(
            f"{file} is a checkpoint of the kind {kind!r}, which perdure cannot teach: give one of "
            "Stable Diffusion 1, 2 or XL that draws from text alone."
        )
    return _SINGLE[kind], dtypes.most_common(1)[0][0]


class _Shape:
    """Stands for a tensor where only its shape is asked for."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)


def _variant(file: Path) -> str:
    """`fp16` of `model.fp16.safetensors` and of `model.fp16-00001-of-00002.safetensors`."""
    _, _, rest = file.name.removesuffix(SUFFIX).partition(".")
    return rest.split("-")[0]


def _header(file: Path, start: str = "") -> Counter[torch.dtype]:
    """Dtype -> how many tensors whose names start so; PerdureError where the file is broken."""
    try:
        with safe_open(file, framework="pt") as opened:
            names = [key for key in opened.keys() if key.startswith(start)]  # noqa: SIM118
            kinds = [opened.get_slice(name).get_dtype() for name in names]
    except (SafetensorError, OSError) as error:
        raise PerdureError(f"{file} is cut short or broken: download it again.") from error
    return Counter(_DTYPES[kind] for kind in kinds if kind in _DTYPES)


def _check_shards(folder: Path) -> None:
    for index in sorted(folder.glob("*.safetensors.index*.json")):
        try:
            shards = set(read_json(index)["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PerdureError(f"{index} is broken ({error}): download the base again.") from error
        for shard in sorted(shards):
            if not (folder / shard).is_file():
                raise PerdureError(
                    f"{folder / shard} is missing: the base is downloaded by half, so download it "
                    "again."
                )
    for file in sorted(folder.glob("*" + SUFFIX)):
        if (found := _SHARD.search(file.name)) and found[2] != found[1]:
            last = file.name.replace(found[0], f"-{found[2]}-of-{found[2]}{SUFFIX}")
            if not (folder / last).is_file():
                raise PerdureError(
                    f"{folder / last} is missing: the base is downloaded by half, so download it "
                    "again."
                )


def _refuse_without_weights(folder: Path, part: str) -> None:
    pickled = [file for file in sorted((folder / part).glob("*")) if file.suffix in _PICKLES]
    if pickled:
        raise PerdureError(
            f"The weights of {folder / part} are pickled ({pickled[0].name}), which can run code "
            "when read: convert the folder with diffusers' save_pretrained("
            "safe_serialization=True), or download it as safetensors."
        )
    raise PerdureError(
        f"The base {folder} has no {part} with weights: it is downloaded by half, so download it "
        "again."
    )
