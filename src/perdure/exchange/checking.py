"""Are files read by the stock loaders as they were meant, and what does the stock pipeline draw?"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perdure.drawing.painter import Painter
from perdure.drawing.stock import drawn_by_bank, drawn_by_stock
from perdure.exchange.lora import PEFT_FILE, need_peft
from perdure.hosts.diffusion.inversions import load_inversion
from perdure.hosts.diffusion.lora_files import Modules
from perdure.quiet import quietly

__all__ = ["Stock", "difference"]

TOLERANCE = 0.02
"""Of a module's delta, in its Frobenius norm: what a base in bf16 rounds away."""


class Stock:
    """A copy of the base's pipeline, into which the stock loaders read what was exported."""

    def __init__(self, painter: Painter) -> None:
        self.painter, self.base = painter, painter.base
        self.base.need_encoders()
        self.pipeline: Any = copy.deepcopy(self.base.pipeline)

    def speak(self, file: Path, concept: str) -> None:
        """Load a textual inversion; RuntimeError or ValueError where it is read otherwise."""
        load_inversion(self.base, self.pipeline, file, concept)

    @contextmanager
    def loaded(self, file: Path, modules: Modules) -> Iterator[None]:
        """A block in which the pipeline has a LoRA; whatever the loader raises, and RuntimeError
        where what it made of the file is not ``modules``."""
        need_peft()
        with quietly():
            denoiser = self.base.family.denoiser(self.pipeline)
            if file.name == PEFT_FILE:
                from peft import PeftModel

                wrapped = PeftModel.from_pretrained(denoiser, file.parent)
            else:
                self.pipeline.load_lora_weights(file.parent, weight_name=file.name)
        try:
            _compare(denoiser, modules)
            yield
        finally:
            with quietly():
                if file.name == PEFT_FILE:
                    wrapped.unload()
                else:
                    self.pipeline.unload_lora_weights()

    def draw(self, prompts: list[str]) -> np.ndarray:
        """One picture a prompt by the stock pipeline."""
        return drawn_by_stock(self.base, self.pipeline, prompts)

    def ours(self, prompts: list[str]) -> np.ndarray:
        """The same by the bank."""
        return drawn_by_bank(self.painter, prompts)


def _compare(denoiser: torch.nn.Module, modules: Modules) -> None:
    """RuntimeError where an adapted module's delta is not what was written."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    wanted = dict(modules)
    for path, module in denoiser.named_modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        (name,) = module.active_adapters
        has: Tensor = module.get_delta_weight(name).detach().float().flatten(1)
        if path not in wanted:
            if bool(has.any()):
                raise RuntimeError(f"{path} is changed, which was not to be")
            continue
        up, down = (factor.to(has) for factor in wanted.pop(path))
        if not float((has - up @ down).norm()) <= TOLERANCE * float((up @ down).norm()):
            raise RuntimeError(f"what was loaded for {path} is not what was written")
    if wanted:
        raise RuntimeError(f"{next(iter(wanted))} was not loaded")


def difference(one: np.ndarray, other: np.ndarray) -> tuple[int, float]:
    """The largest and the mean difference of a colour value, of 255."""
    apart = np.abs(one - other)
    return int(apart.max()), float(apart.mean())
