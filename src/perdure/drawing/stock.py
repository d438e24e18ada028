"""Does the stock pipeline draw from an exported folder what the bank draws?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from perdure.drawing.painter import Painter
from perdure.quiet import StableDiffusionPipeline, quietly

__all__ = ["stock_difference"]

STEPS, GUIDANCE = 10, 3.0


def stock_difference(painter: Painter, folder: Path | str, prompts: Sequence[str]) -> int:
    """Largest difference of a colour value, of 255, over one picture a prompt.

    The folder is opened with the stock loader and drawn from with the stock attention, in the same
    precision as the bank; a difference of a few is the order of additions in another attention.
    """
    seeds = range(len(prompts))
    ours = painter.draw(prompts, seeds=seeds, steps=STEPS, guidance=GUIDANCE)
    with quietly():
        stock = StableDiffusionPipeline.from_pretrained(
            folder, use_safetensors=True, safety_checker=None, requires_safety_checker=False
        )
    stock.set_progress_bar_config(disable=True)
    stock.to(painter.base.device)
    with torch.no_grad(), painter.base.autocast():
        theirs = stock(
            list(prompts),
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            height=painter.base.size,
            width=painter.base.size,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        ).images
    pairs = zip(ours, theirs, strict=True)
    return max(int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max()) for a, b in pairs)
