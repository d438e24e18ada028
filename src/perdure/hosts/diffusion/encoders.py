"""Large text encoders, in memory only while a prompt is encoded that no cache has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from torch import Tensor

from perdure.hosts.diffusion.files import weight_files
from perdure.quiet import quietly

__all__ = ["Source"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where an encoder lies, to be read when it is asked for."""

    folder: Path
    kind: str
    """Its class in transformers."""
    variant: str | None

    def load(self, device: torch.device, dtype: torch.dtype) -> Any:
        """The encoder, frozen."""
        kind = getattr(transformers, self.kind)
        with quietly():
            encoder = kind.from_pretrained(
                self.folder,
                dtype=dtype,
                variant=self.variant,
                use_safetensors=True,
                local_files_only=True,
            )
        return encoder.to(device).requires_grad_(False).eval()

    @property
    def bytes(self) -> int:
        """Of its weights' files."""
        return sum(file.stat().st_size for file in weight_files(self.folder, self.variant))

    def table(self) -> Tensor:
        """Its token table (tokens, d) as it is stored, without the rest of it."""
        kind = getattr(transformers, self.kind)
        with quietly(), torch.device("meta"):
            empty = kind(kind.config_class.from_pretrained(self.folder))
        wanted = empty.get_input_embeddings().weight
        name = next(name for name, own in empty.named_parameters() if own is wanted)
        tail = "." + ".".join(name.split(".")[-2:])  # files may name what stands before otherwise
        for file in weight_files(self.folder, self.variant):
            with safe_open(file, framework="pt") as stored:
                for key in stored.keys():  # noqa: SIM118
                    if key == name or f".{key}".endswith(tail):
                        table: Tensor = stored.get_tensor(key)
                        if table.shape == wanted.shape:
                            return table
        whole: Tensor = self.load(torch.device("cpu"), torch.float32).get_input_embeddings().weight
        return whole
