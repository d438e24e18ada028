"""Does the stock pipeline draw from what was exported what the bank draws?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perdure.drawing.painter import Painter
from perdure.hosts.diffusion.host import Base

__all__ = ["drawn_by_bank", "drawn_by_stock", "prompts_of", "stock_difference"]

STEPS, GUIDANCE = 10, 3.0


def stock_difference(painter: Painter, folder: Path | str, prompts: Sequence[str]) -> int:
    """Largest difference of a colour value, of 255, over one picture a prompt.

    The folder is opened with the stock loader and drawn from with the stock attention, in the same
    precision as the bank; a difference of a few is the order of additions in another attention.
    """
    ours = drawn_by_bank(painter, prompts)
    theirs = drawn_by_stock(painter.base, painter.base.stock(folder), prompts)
    return int(np.abs(ours - theirs).max())


def prompts_of(painter: Painter, concepts: Sequence[str]) -> list[str]:
    """Prompts to compare with: one a concept, of the last two, or one that speaks of all, where
    what is folded depends on the concepts that are spoken of."""
    if painter.method.mixes_by == "concepts":
        return ["a photo of " + " and ".join(f"<{name}>" for name in concepts)]
    return [f"a photo of <{name}>" for name in concepts[-2:]]


def drawn_by_bank(painter: Painter, prompts: Sequence[str]) -> np.ndarray:
    """One picture a prompt, (N, height, width, 3), whole numbers up to 255."""
    seeds = range(len(prompts))
    pictures = painter.draw(
        prompts, seeds=seeds, steps=STEPS, guidance=GUIDANCE, batch_size=len(prompts)
    )
    return np.stack([np.asarray(picture, int) for picture in pictures])


def drawn_by_stock(base: Base, pipeline: Any, prompts: Sequence[str]) -> np.ndarray:
    """The same by a stock pipeline of the base's kind, from the same noise."""
    width, height = base.size
    with torch.no_grad(), base.autocast():
        pictures = pipeline(
            prompt=list(prompts),
            num_inference_steps=STEPS,
            height=height,
            width=width,
            generator=[torch.Generator().manual_seed(seed) for seed in range(len(prompts))],
            **base.family.call(len(prompts), GUIDANCE),
        ).images
    return np.stack([np.asarray(picture, int) for picture in pictures])
