"""Does an identity score read shape, or only where colours lie?

Pixels that are shuffled inside blocks keep every colour near its place and destroy what is drawn.
A score that a person would agree with falls for such pictures; one that stays can be flattered.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from perdure.measuring.scores import reach

__all__ = ["shuffled_in_blocks", "shuffled_reach", "spoiled_reach"]


def shuffled_in_blocks(
    pictures: np.ndarray,
    block: int,
    rng: np.random.Generator,
    offset: tuple[int, int] | None = None,
) -> np.ndarray:
    """Pictures (N, H, W, 3) whose pixels are shuffled inside each ``block`` x ``block``.

    The grid of blocks starts at ``offset``, or at a random one of its own in each picture, so that
    an encoder's patches don't happen to hold whole blocks; blocks at the border are cut by it.
    """
    height, width = pictures.shape[1:3]
    out = np.empty_like(pictures)
    for picture, result in zip(pictures, out, strict=True):
        top, left = offset or (int(start) for start in rng.integers(0, block, 2))
        for y in range(top - block, height, block):
            for x in range(left - block, width, block):
                here = (slice(max(y, 0), max(y + block, 0)), slice(max(x, 0), max(x + block, 0)))
                pixels = picture[here].reshape(-1, picture.shape[-1])
                result[here] = rng.permutation(pixels).reshape(picture[here].shape)
    return out


def shuffled_reach(
    features: Callable[[Tensor], Tensor],
    pictures: np.ndarray,
    block: int,
    *,
    rng: np.random.Generator,
) -> float:
    """How far pictures keep their identity that are shuffled in blocks: see `spoiled_reach`."""
    return spoiled_reach(features, pictures, lambda whole: shuffled_in_blocks(whole, block, rng))


def spoiled_reach(
    features: Callable[[Tensor], Tensor],
    pictures: np.ndarray,
    spoil: Callable[[np.ndarray], np.ndarray],
) -> float:
    """How far spoiled pictures keep their identity: 0 at the floor, 1 at the ceiling.

    ``pictures`` uint8 (identities, M, H, W, 3), two or more of each; ``features`` gives (N, d) of
    uint8 (N, H, W, 3), as ``spoil`` gives and takes them. Ceiling: mean cosine of two pictures of
    one identity; floor: of two identities; the value between them: of a spoiled picture and the
    others of its identity.
    """
    identities, count = pictures.shape[:2]
    if identities < 2 or count < 2:
        raise ValueError(f"pictures: {identities} x {count}; give two identities or more, twice")
    whole = pictures.reshape(-1, *pictures.shape[2:])
    plain = F.normalize(features(torch.from_numpy(whole)), dim=-1)
    spoilt = F.normalize(features(torch.from_numpy(spoil(whole))), dim=-1)
    who = torch.arange(identities).repeat_interleave(count)
    same = who[:, None] == who[None]
    other = same & ~torch.eye(len(who), dtype=torch.bool)
    cosine = plain @ plain.T
    return reach(
        float((spoilt @ plain.T)[other].mean()),
        floor=float(cosine[~same].mean()),
        ceiling=float(cosine[other].mean()),
    )
