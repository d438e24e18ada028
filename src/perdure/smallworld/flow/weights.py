"""Averaged weights as they travel and ship: small fp16 files, or a folder of the stock pipeline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from perdure.checkpoint import write_atomically
from perdure.errors import PerdureError
from perdure.smallworld.flow.model import FlowModel, make_pipeline

__all__ = ["export", "load_average", "write_average"]

_FILE = 12 * 2**20
"""Bytes of a file of `write_average`, at most."""


def write_average(folder: Path, average: Mapping[str, Tensor], facts: Mapping[str, object]) -> None:
    """Write ``average`` (by parameter) in fp16 as ``average-0.safetensors`` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    files: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, value in average.items():
        size += 2 * value.numel()
        if size > _FILE:
            files.append({})
            size = 2 * value.numel()
        files[-1][f"average/{name}"] = value.detach().half().cpu()
    for number, tensors in enumerate(files):
        path = folder / f"average-{number}.safetensors"
        write_atomically(path, tensors, {"facts": json.dumps(facts)})


@torch.no_grad()
def load_average(model: FlowModel, path: Path) -> dict[str, int]:
    """Put averaged weights into ``model`` (fp32); returns the facts beside them.

    ``path`` is a training checkpoint, or a folder of `write_average`. Raises PerdureError where
    there is none, or a weight is missing.
    """
    paths = sorted(path.glob("average-*.safetensors")) if path.is_dir() else [path]
    found: dict[str, Tensor] = {}
    facts: dict[str, int] = {}
    for one in paths:
        if not one.exists():
            raise PerdureError(f"{one} is missing: run the stage 'train' first.")
        with safe_open(one, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            keys = [key for key in file.keys() if key.startswith("average/")]  # noqa: SIM118
            found |= {key.removeprefix("average/"): file.get_tensor(key) for key in keys}
    for name, parameter in model.named_parameters():
        if name not in found:
            raise PerdureError(f"{path} has no averaged {name}: give a whole checkpoint.")
        parameter.data = found[name].float()
    return facts


def export(model: FlowModel, folder: Path) -> None:
    """Write the stock pipeline's folder in fp16; it opens in fp32 (the weights say what they are).

    Raises PerdureError where ``folder`` holds a pipeline already.
    """
    if (folder / "model_index.json").exists():
        raise PerdureError(f"{folder} holds a pipeline already: name a new folder with --out.")
    make_pipeline(model).to(torch.float16).save_pretrained(folder)
    for config in folder.glob("text_encoder*/config.json"):
        config.write_text(config.read_text().replace('"dtype": "float16"', '"dtype": "float32"'))
