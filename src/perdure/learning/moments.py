"""Second moments of the text features that a new concept should leave alone; no picture needed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from perdure.base.base import Base

__all__ = ["CAPTIONS", "PAST_WEIGHT", "TEMPLATES", "moments"]

_OPENINGS = ("a photo of", "a picture of", "a drawing of", "a painting of")
_SUBJECTS = (
    "a person",
    "a man",
    "a woman",
    "two people",
    "a child",
    "a cat",
    "a dog",
    "a building",
    "a tower",
    "a tree",
    "an object",
    "a toy",
)
_SETTINGS = (
    "",
    " at the beach",
    " in the forest",
    " in the city",
    " in the snow",
    " at night",
    " in a room",
    " in a meadow",
)

CAPTIONS = tuple(
    f"{opening} {subject}{setting}"
    for opening in _OPENINGS
    for subject in _SUBJECTS
    for setting in _SETTINGS
)
"""384 ordinary captions, without any concept."""

TEMPLATES = (
    "{}",
    "a photo of {}",
    "a picture of {}",
    "a portrait of {}",
    "a drawing of {}",
    "a painting of {}",
    "a photo of {} at the beach",
    "a photo of {} in the forest",
    "a photo of {} in the city",
    "a photo of {} in the snow",
    "a photo of {} at night",
    "a photo of {} in a room",
    "a photo of {} wearing a hat",
    "a photo of {} next to a person",
    "a photo of a dog and {}",
)
"""15 prompts that speak of one concept."""

PAST_WEIGHT = 3.0
"""What a prompt that speaks of a past concept counts for, where an ordinary caption counts 1."""


@torch.no_grad()
def moments(base: Base, past: Sequence[str], *, weight: float = PAST_WEIGHT) -> Tensor:
    """`C` (d_text, d_text), fp32: the weighted mean of `c c^T` over prompts and their positions.

    Args:
        base: its tokens include the past concepts, by their learned rows.
        past: names of the concepts learned before, each in every one of `TEMPLATES`.
        weight: of these prompts; each of `CAPTIONS` counts 1.

    All positions count, the begin, end and padding ones too: the layers read them all.
    """
    prompts = [*CAPTIONS, *(text.format(f"<{name}>") for name in past for text in TEMPLATES)]
    weights = torch.tensor([1.0] * len(CAPTIONS) + [weight] * (len(prompts) - len(CAPTIONS)))
    total: Tensor | float = 0.0
    for ids, w in zip(base.tokens.ids(prompts).split(32), weights.split(32), strict=True):
        c = base.states(ids).float()
        weighted = c * w.to(c.device)[:, None, None] / c.shape[1]
        total = total + (c.flatten(0, 1).T @ weighted.flatten(0, 1)).cpu().double()
    assert isinstance(total, Tensor)
    C = total / float(weights.sum())
    return ((C + C.T) / 2).float()
