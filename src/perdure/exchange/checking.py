"""Are files read by the stock loaders as they were meant, and what does the stock pipeline draw?"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from perdure.drawing.painter import Painter
from perdure.drawing.stock import drawn_by_bank, drawn_by_stock
from perdure.hosts.diffusion.inversions import load_inversion
from perdure.hosts.diffusion.lora_files import Modules
from perdure.hosts.diffusion.stock_loaders import loaded

__all__ = ["Stock", "difference"]


class Stock:
    """A copy of the base's pipeline, into which the stock loaders read what was exported."""

    def __init__(self, painter: Painter) -> None:
        self.painter, self.base = painter, painter.base
        self.base.need_encoders()
        self.pipeline: Any = copy.deepcopy(self.base.pipeline)

    def speak(self, file: Path, concept: str) -> None:
        """Load a textual inversion; raises as `load_inversion`."""
        load_inversion(self.base, self.pipeline, file, concept)

    def loaded(self, file: Path, modules: Modules) -> AbstractContextManager[None]:
        """A block in which the pipeline has a LoRA; raises as `stock_loaders.loaded`."""
        return loaded(self.base, self.pipeline, file, modules)

    def draw(self, prompts: list[str]) -> np.ndarray:
        """One picture a prompt by the stock pipeline."""
        return drawn_by_stock(self.base, self.pipeline, prompts)

    def ours(self, prompts: list[str]) -> np.ndarray:
        """The same by the bank."""
        return drawn_by_bank(self.painter, prompts)


def difference(one: np.ndarray, other: np.ndarray) -> tuple[int, float]:
    """The largest and the mean difference of a colour value, of 255."""
    apart = np.abs(one - other)
    return int(apart.max()), float(apart.mean())
