"""What a LoRA's file says, by the modules of a denoiser: PEFT's keys as they are, all others by the
stock loader's own conversion."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.utils import convert_unet_state_dict_to_peft
from torch import Tensor, nn

from perdure.errors import PerdureError
from perdure.hosts.diffusion.lora_files import Modules, check_loads
from perdure.hosts.frozen import Layer
from perdure.quiet import quietly

if TYPE_CHECKING:
    from perdure.hosts.diffusion.host import Base

__all__ = ["by_layer", "read"]

_PEFT = "base_model.model."
_OTHERS = {
    "dora_scale": "a DoRA",
    "lora_magnitude_vector": "a DoRA",
    "hada_": "a LoHa",
    "lokr_": "a LoKr",
    "lora_mid": "a LoCon with a Tucker core",
    "lora_B.bias": "a LoRA with biases",
    ".diff": "a difference of whole weights",
}
"""What stands in a key -> what then is no plain LoRA."""
_ENCODERS = ("text_encoder", "lora_te", "te1_", "te2_", "text_encoders.")


def read(
    base: Base, tensors: Mapping[str, Tensor], about: Mapping[str, Any], where: str
) -> dict[str, tuple[Tensor, Tensor]]:
    """What a LoRA's file says, by module, scaled as it asks; modules that it leaves as they are
    are left out.

    Args:
        base: whose family the file is to be of.
        tensors: of the file.
        about: its safetensors metadata, or the fields of its `adapter_config.json`.
        where: the file, for sentences.

    Raises PerdureError for what is no plain LoRA of this base's denoiser.
    """
    check_loads(base)
    _refuse_others(tensors, where)
    config = _config(base, about, where)
    component = base.family.component
    known, alphas = _converted(base, tensors, where)
    downs: dict[str, Tensor] = {}
    ups: dict[str, Tensor] = {}
    for key, tensor in known.items():
        path, _, kind = key.removeprefix(component + ".").rpartition(".lora_")
        if not path or kind not in ("A.weight", "B.weight"):
            raise PerdureError(f"{where} has the key {key}, which is no plain LoRA's.")
        (downs if kind[0] == "A" else ups)[path] = tensor
    modules = {}
    for path in {**downs, **ups}:
        if path not in downs or path not in ups:
            raise PerdureError(f"{where} has but one of the two factors of {path}: it is broken.")
        up, down = ups[path].float().flatten(1), downs[path].float().flatten(1)
        _check_fits(base, path, up, down, where)
        up = up * _scale(path, len(down), config, alphas.get(path))
        if bool(up.any()) and bool(down.any()):
            modules[path] = (up, down)
    if not modules:
        raise PerdureError(f"{where} changes nothing: every factor in it is zero.")
    return modules


def _refuse_others(tensors: Mapping[str, Tensor], where: str) -> None:
    for key in tensors:
        for mark, kind in _OTHERS.items():
            if mark in key:
                raise PerdureError(
                    f"{where} is {kind} ({key}), and a bank takes plain LoRAs: train it as one, or "
                    "extract one from it."
                )
        if key.startswith(_ENCODERS):
            raise PerdureError(
                f"{where} changes the text encoder, too ({key}), which a bank leaves as it is: "
                "train the LoRA on the denoiser alone, its trigger as a textual inversion."
            )
    if not any("lora" in key for key in tensors):
        raise PerdureError(f"{where} is no LoRA: its first key is {next(iter(tensors))}.")


def _converted(
    base: Base, tensors: Mapping[str, Tensor], where: str
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Keys as PEFT has them, behind the component's name, and the alphas that a file tells."""
    component = base.family.component + "."
    plain = {key.removeprefix(_PEFT).replace(".default.", "."): t for key, t in tensors.items()}
    paths = {path for path, _ in base.denoiser.named_modules()}
    ours = {key: t for key, t in plain.items() if ".lora_A." in key or ".lora_B." in key}
    if ours and all(key.partition(".lora_")[0].removeprefix(component) in paths for key in ours):
        alphas = {
            key.removeprefix(component).removesuffix(".alpha"): float(t)
            for key, t in plain.items()
            if key.endswith(".alpha")
        }
        if rest := [key for key in plain if key not in ours and not key.endswith(".alpha")]:
            raise PerdureError(f"{where} has the key {rest[0]}, which is no plain LoRA's.")
        return ours, alphas
    try:
        with quietly():
            given = type(base.pipeline).lora_state_dict(
                dict(tensors), unet_config=base.denoiser.config, return_alphas=True
            )
    except (ValueError, KeyError, AssertionError, IndexError, RuntimeError, TypeError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise PerdureError(
            f"{where} is no LoRA that diffusers reads as one of {base.family.title} ({said}): it "
            "is of another family, or of a trainer whose keys it does not know."
        ) from error
    known, told = given if isinstance(given, tuple) else (given, None)
    strange = next((key for key in known if not key.startswith(component)), None)
    if strange is not None:
        raise PerdureError(
            f"{where} has the key {strange}, which is none of {base.family.title}'s: give a LoRA "
            "of this base's family."
        )
    alphas = {}
    for key, value in (told or {}).items():
        stem = key.removesuffix(".alpha").removesuffix(".down.weight") + ".down.weight"
        (own,) = convert_unet_state_dict_to_peft({stem: value})
        alphas[own.removeprefix(component).partition(".lora_")[0]] = float(value)
    return convert_unet_state_dict_to_peft(known), alphas


def _config(base: Base, about: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of a `LoraConfig` that a file tells, of its metadata or its folder's JSON."""
    own = about
    if (text := about.get(LORA_ADAPTER_METADATA_KEY)) is not None:
        try:
            start = base.family.component + "."
            said = json.loads(text)
            own = {k.removeprefix(start): v for k, v in said.items() if k.startswith(start)}
        except (ValueError, AttributeError) as error:
            raise PerdureError(f"{where} has broken metadata ({error}).") from error
    elif "peft_type" not in about:
        return {}
    wanted = {"peft_type": "LORA", "use_dora": False, "bias": "none", "fan_in_fan_out": False}
    for field, value in wanted.items():
        if own.get(field, value) not in (value, None):
            raise PerdureError(
                f"{where} says {field} = {own[field]!r}, and a bank takes plain LoRAs alone."
            )
    return dict(own)


def _scale(path: str, rank: int, config: Mapping[str, Any], alpha: float | None) -> float:
    """alpha / r, or with rank-stabilised LoRA alpha / sqrt(r); 1 where no alpha is told."""
    if alpha is None and "lora_alpha" in config:
        patterns = config.get("alpha_pattern") or {}
        alpha = float(patterns.get(path, patterns.get(f"^{path}", config["lora_alpha"])))
    if alpha is None:
        return 1.0
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _check_fits(base: Base, path: str, up: Tensor, down: Tensor, where: str) -> None:
    try:
        module = base.denoiser.get_submodule(path)
    except AttributeError:
        module = None
    if not isinstance(module, nn.Linear | nn.Conv2d):
        raise PerdureError(
            f"{where} changes {path}, which {base.family.title} has not: it is of another family."
        )
    shape = Layer(module).shape
    if (len(up), down.shape[1]) != shape or up.shape[1] != len(down):
        raise PerdureError(
            f"{where} has {path} of {len(up)} x {down.shape[1]}, but in this base it is "
            f"{shape[0]} x {shape[1]}: it was trained on another model."
        )


def by_layer(
    base: Base, layers: Mapping[str, Layer], modules: Modules
) -> tuple[dict[str, tuple[Tensor, Tensor]], str]:
    """Pairs by target layer, of modules' (a slice's are its rows of `up`); and the first module
    that these layers do not hold, or ""."""
    paths = {path: id(module) for path, module in base.denoiser.named_modules()}
    own: dict[int, list[tuple[str, Layer]]] = {}
    for name, layer in layers.items():
        own.setdefault(id(layer.module), []).append((name, layer))
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for path, (up, down) in modules.items():
        left = up.clone()
        for name, layer in own.get(paths[path], []):
            rows = layer.rows or slice(None)
            if bool(up[rows].any()):
                pairs[name] = (up[rows].clone(), down)
            left[rows] = 0
        if bool(left.any()):
            return pairs, path
    return pairs, ""
