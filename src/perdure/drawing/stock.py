"""Does the stock pipeline draw from an exported folder what the bank draws?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from perdure.drawing.painter import Painter

__all__ = ["stock_difference"]

STEPS, GUIDANCE = 10, 3.0


def stock_difference(painter: Painter, folder: Path | str, prompts: Sequence[str]) -> int:
    """Largest difference of a colour value, of 255, over one picture a prompt.

    The folder is opened with the stock loader and drawn from with the stock attention, in the same
    precision as the bank; a difference of a few is the order of additions in another attention.
    """
    seeds = range(len(prompts))
    ours = painter.draw(
        prompts, seeds=seeds, steps=STEPS, guidance=GUIDANCE, batch_size=len(prompts)
    )
    base = painter.base
    width, height = base.size
    stock = base.stock(folder)
    with torch.no_grad(), base.autocast():
        theirs = stock(
            prompt=list(prompts),
            num_inference_steps=STEPS,
            height=height,
            width=width,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            **base.family.call(len(prompts), GUIDANCE),
        ).images
    pairs = zip(ours, theirs, strict=True)
    return max(int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max()) for a, b in pairs)
