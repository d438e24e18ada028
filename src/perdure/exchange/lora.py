"""LoRAs as others have them: PEFT's folder, diffusers' file, kohya's and ComfyUI's names."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.hosts.diffusion.lora_files import Modules, as_stored, kohya
from perdure.quiet import quietly

__all__ = ["DIFFUSERS_FILE", "PEFT_FILE", "need_peft", "write_comfyui", "write_kohya", "write_peft"]

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
PEFT_FILE = "adapter_model.safetensors"


def need_peft() -> None:
    """PerdureError where PEFT, with which the stock loaders work, is not installed."""
    if find_spec("peft") is None:
        raise PerdureError(
            "The stock loaders of LoRAs need PEFT: `pip install 'perdure[peft]'`, or choose "
            "--format kohya or comfyui with --no-check."
        )


def write_peft(base: Base, modules: Modules, folder: Path) -> list[Path]:
    """`adapter_config.json` and `adapter_model.safetensors`, as PEFT and servers read them, and
    beside them `pytorch_lora_weights.safetensors` with the adapter's metadata, diffusers' own."""
    need_peft()
    from peft import LoraConfig

    ranks = {path: len(down) for path, (_, down) in modules.items()}
    ((rank, _),) = Counter(ranks.values()).most_common(1)
    others = {f"^{path}": own for path, own in ranks.items() if own != rank}
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=sorted(ranks),
        rank_pattern=others,
        alpha_pattern=dict(others),
        base_model_name_or_path=base.name,
        inference_mode=True,
    )
    tensors = as_stored(base, modules)
    folder.mkdir(parents=True, exist_ok=True)
    with quietly():
        config.save_pretrained(folder)
        _save({f"base_model.model.{key}": t for key, t in tensors.items()}, folder / PEFT_FILE)
        component = base.family.component
        kind: Any = type(base.pipeline)
        about = {key: sorted(v) if isinstance(v, set) else v for key, v in config.to_dict().items()}
        kind.save_lora_weights(
            folder,
            **{f"{component}_lora_layers": tensors, f"{component}_lora_adapter_metadata": about},
        )
    return [folder / "adapter_config.json", folder / PEFT_FILE, folder / DIFFUSERS_FILE]


def write_kohya(base: Base, modules: Modules, file: Path) -> list[Path]:
    """One file by the names of kohya's trainers, which A1111 reads, too; alpha is the rank."""
    rank = str(max(len(down) for _, down in modules.values()))
    about = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": rank,
    }
    return [_save(kohya(base, modules), file, about)]


def write_comfyui(base: Base, modules: Modules, file: Path) -> list[Path]:
    """One file by names that ComfyUI reads: kohya's of a U-Net, diffusers' of a transformer."""
    if base.family.comfyui == "kohya":
        return write_kohya(base, modules, file)
    if not base.family.comfyui:
        raise PerdureError(
            f"ComfyUI knows no names of {base.family.title}'s layers that diffusers' loader reads, "
            "too, so no file can be checked: choose --format peft."
        )
    tensors = as_stored(base, modules)
    return [_save({f"{base.family.component}.{key}": t for key, t in tensors.items()}, file)]


def _save(tensors: dict[str, Tensor], file: Path, about: dict[str, str] | None = None) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    whole = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    safetensors.torch.save_file(whole, file, {"format": "pt", **(about or {})})
    return file
