"""Losses of one linear head over all classes seen, of which the last `len(task)` are the task's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["distillation", "masked_cross_entropy"]


def masked_cross_entropy(logits: Tensor, targets: Tensor, first: int) -> Tensor:
    """Cross-entropy over the classes from ``first`` on: logits of older ones count as -infinity.

    logits (N, classes), targets (N,) are columns of at least ``first``. With 0 all classes compete.
    As `learners/prompt.py` of CODA-Prompt's public code.
    """
    return F.cross_entropy(logits[:, first:], targets - first)


def distillation(now: Tensor, before: Tensor, sizes: Sequence[int], temperature: float) -> Tensor:
    """LwF's loss on old classes: `-sum_i y'_i log yhat'_i`, mean over pictures, summed over tasks.

    y' and yhat' are softmax(before / T) and softmax(now / T) within each old task, whose numbers of
    classes are ``sizes``; now (N, at least sum(sizes)), before (N, sum(sizes)). Equations 2 to 4 of
    arXiv 1606.09282: their `y^(1/T)`, normalised, of a softmax is the softmax at T.
    """
    total = now.new_zeros(())
    start = 0
    for size in sizes:
        own = slice(start, start + size)
        wanted = torch.softmax(before[:, own] / temperature, dim=1)
        said = torch.log_softmax(now[:, own] / temperature, dim=1)
        total = total - (wanted * said).sum(dim=1).mean()
        start += size
    return total
