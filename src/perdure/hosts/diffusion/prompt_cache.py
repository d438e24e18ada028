"""Encoded prompts on disk: with them a resume and a drawing need no text encoder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from perdure.durable import replace_file
from perdure.hosts.diffusion.conditioning import Encoded

__all__ = ["PromptCache"]


class PromptCache:
    """A folder with one file a prompt, as one base and dtype encode it by itself.

    A file that is broken, or of another base, is none; the folder may be deleted at any time.
    """

    def __init__(self, folder: Path, *, base: str, write: bool = False) -> None:
        """``base`` tells one base, in one dtype, from another; nothing is written unless asked."""
        self.folder, self.base, self.write = folder, base, write

    def get(self, text: str) -> Encoded | None:
        """The prompt (1, P, d), or None where it is not here."""
        try:
            with safe_open(self._file(text), framework="pt") as stored:
                if stored.metadata() != self._said(text):
                    return None
                tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return None
        return Encoded(states=tensors.pop("states"), beside=tensors)

    def put(self, text: str, encoded: Encoded) -> None:
        """Keep the prompt (1, P, d), where this cache may be written."""
        if self.write:
            tensors = {"states": encoded.states, **encoded.beside}
            data = save({k: t.contiguous().cpu() for k, t in tensors.items()}, self._said(text))
            replace_file(self._file(text), data)

    def _file(self, text: str) -> Path:
        name = hashlib.sha256(json.dumps([self.base, text]).encode()).hexdigest()
        return self.folder / f"{name[:32]}.safetensors"

    def _said(self, text: str) -> dict[str, str]:
        return {"base": self.base, "text": text}
