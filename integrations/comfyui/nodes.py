"""Two nodes: one opens a diffusers base with a bank, one draws pictures as ComfyUI has them.

They follow ComfyUI's schema V1: `INPUT_TYPES`, `RETURN_TYPES`, `FUNCTION`, `CATEGORY`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

import perdure
from perdure.drawing.painter import Painter

BANK = "PERDURE_BANK"
CATEGORY = "perdure"
OWN = "as stored"
ADVISED = -1
"""Stands for the base's own advice."""


class OpenBank:
    """A base and a bank that was learned on it."""

    RETURN_TYPES = (BANK, "STRING")
    RETURN_NAMES = ("bank", "concepts")
    FUNCTION = "open"
    CATEGORY = CATEGORY
    DESCRIPTION = "Opens a diffusers folder or hub id, and a bank of concepts learned on it."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "base": ("STRING", {"default": "smallworld", "tooltip": "A folder or hub id."}),
                "bank": ("STRING", {"default": "", "tooltip": "The bank's folder."}),
                "dtype": ([OWN, "float32", "bfloat16", "float16"], {"default": OWN}),
                "quantize": (["no", "int8", "bnb-int8", "bnb-nf4"], {"default": "no"}),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, bank: str) -> bool | str:
        """True, or a sentence that says what is wrong."""
        try:
            perdure.Bank.open(bank)
        except perdure.PerdureError as error:
            return str(error)
        return True

    @classmethod
    def IS_CHANGED(cls, bank: str, **others: Any) -> str:
        """Of the bank's contents: a node runs again once something was learned or removed."""
        index = Path(bank).expanduser() / "bank.json"
        return hashlib.sha256(index.read_bytes()).hexdigest() if index.is_file() else ""

    def open(self, base: str, bank: str, dtype: str, quantize: str) -> tuple[Painter, str]:
        opened = perdure.Base.open(
            base,
            dtype=None if dtype == OWN else dtype,
            quantize=None if quantize == "no" else quantize,
        )
        painter = Painter(opened, bank)
        return painter, ", ".join(f"<{name}>" for name in painter.tokens)


class DrawWithBank:
    """Pictures of a prompt that speaks of a bank's concepts."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "draw"
    CATEGORY = CATEGORY
    DESCRIPTION = "Draws a prompt such as `a photo of <rex> in the snow`."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "bank": (BANK,),
                "prompt": ("STRING", {"multiline": True, "default": ""}),
                "negative": ("STRING", {"multiline": True, "default": ""}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**32 - 1}),
                "count": ("INT", {"default": 1, "min": 1, "max": 64}),
                "steps": (
                    "INT",
                    {"default": ADVISED, "min": ADVISED, "max": 1000, "tooltip": "-1: as advised."},
                ),
                "guidance": (
                    "FLOAT",
                    {
                        "default": ADVISED,
                        "min": ADVISED,
                        "max": 100.0,
                        "step": 0.1,
                        "tooltip": "-1: as advised.",
                    },
                ),
                "size": ("STRING", {"default": "", "tooltip": "Such as 768x512; the base's own."}),
            }
        }

    def draw(
        self,
        bank: Painter,
        prompt: str,
        negative: str,
        seed: int,
        count: int,
        steps: int,
        guidance: float,
        size: str,
    ) -> tuple[torch.Tensor]:
        """Pictures (count, H, W, 3), fp32 in [0, 1]."""
        drawn = bank.draw(
            prompt,
            seed=seed,
            count=count,
            negative=negative,
            steps=None if steps == ADVISED else steps,
            guidance=None if guidance == ADVISED else guidance,
            size=size or None,
        )
        pixels = np.stack([np.asarray(picture.convert("RGB"), np.float32) for picture in drawn])
        return (torch.from_numpy(pixels / 255),)
