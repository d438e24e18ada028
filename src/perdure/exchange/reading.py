"""Files that others wrote, looked at before they are believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from perdure.errors import PerdureError
from perdure.exchange.lora import DIFFUSERS_FILE, PEFT_FILE
from perdure.untrusted import read_json

__all__ = ["Adapter", "read_file"]

_PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
_MOST_OF_HEADER = 25_000_000
"""Bytes of a header that are believed: about a hundred thousand tensors."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A LoRA or a textual inversion as it lies on disk."""

    file: Path
    tensors: Mapping[str, Tensor]
    about: Mapping[str, Any]
    """Its metadata, or what the `adapter_config.json` beside it says."""

    @property
    def is_lora(self) -> bool:
        """Or else a textual inversion: few tensors, none of a LoRA's names."""
        marks = ("lora", "hada_", "lokr_", "dora")
        return len(self.tensors) > 4 or any(mark in key for key in self.tensors for mark in marks)


def read_file(path: Path | str) -> Adapter:
    """A `.safetensors` file, or a folder of PEFT or diffusers with one.

    Raises PerdureError for what is missing, is pickled, is cut short, has a header that is too
    large to be one, or holds a number that is not finite.
    """
    path, about = Path(path).expanduser(), dict[str, Any]()
    if path.is_dir():
        files = [path / name for name in (PEFT_FILE, DIFFUSERS_FILE) if (path / name).is_file()]
        if not files:
            raise PerdureError(f"{path} has neither {PEFT_FILE} nor {DIFFUSERS_FILE}: give a file.")
        path = files[0]
    if not path.is_file():
        raise PerdureError(f"There is no file {path}: give a .safetensors file or its folder.")
    if path.suffix in _PICKLES:
        raise PerdureError(
            f"{path} is a pickle, which can run code when it is read, so perdure opens none: "
            "convert it to safetensors on a machine that may."
        )
    if path.suffix != ".safetensors":
        raise PerdureError(f"{path} is no .safetensors file: convert it to one.")
    _check_header(path)
    try:
        with safe_open(path, framework="pt") as opened:
            about = dict(opened.metadata() or {})
        tensors = safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise PerdureError(f"{path} is cut short or broken: download it again.") from error
    if path.name == PEFT_FILE:
        about = _config(path.with_name("adapter_config.json"))
    if not tensors:
        raise PerdureError(f"{path} holds no tensors.")
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise PerdureError(f"{path} holds numbers that are not finite ({key}): it is broken.")
    return Adapter(file=path, tensors=tensors, about=about)


def _check_header(path: Path) -> None:
    """PerdureError before so much is read that a file merely says to be its header."""
    with path.open("rb") as file:
        said = int.from_bytes(file.read(8), "little")
    if said > min(_MOST_OF_HEADER, path.stat().st_size - 8):
        raise PerdureError(f"{path} says that its header has {said} bytes: it is broken.")


def _config(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
        found["peft_type"] = str(found["peft_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PerdureError(f"{path} is missing or broken: give the whole folder.") from error
    return dict(found)
