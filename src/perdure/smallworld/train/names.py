"""Names: what a larger model knows of people by name, this one learns from their parameters.

Words say of an identity only what is coarse, so a base that reads words alone never learns to draw
what they leave out, and no adapter of its keys and values can ask it to. Some training captions
therefore have a name in the subject's place. Its state is made from all of the identity's
parameters; nothing of it is shipped: what stays is a U-Net whose keys and values can be asked for
any identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from perdure.smallworld.identities import Identity, identity
from perdure.smallworld.vocabulary import DOMAINS

__all__ = ["NAMES", "Names", "code_of", "code_width"]

NAMES = ("<", ">")
"""Tokens that no caption uses, in the place of the first and the second subject."""
_SAMPLE = 2000


def _numbers(parameters: Mapping, kinds: Mapping[str, list[str]]) -> np.ndarray:
    """One number a number, three a colour, one a kind that a name may be."""
    found: list[float] = []
    for key, value in parameters.items():
        if key in kinds:
            found += [float(str(value) == kind) for kind in kinds[key]]
        elif float(value) >= 1 << 24:  # an ARGB colour
            found += [(int(value) >> shift & 255) / 255 for shift in (16, 8, 0)]
        else:
            found.append(float(value))
    return np.array(found, np.float32)


@cache
def _table(domain: str) -> tuple[dict[str, list[str]], np.ndarray, np.ndarray]:
    """The kinds of every parameter that is a word; mean and deviation of all numbers."""
    sample = [identity(domain, seed).parameters for seed in range(_SAMPLE)]
    words = [key for key, value in sample[0].items() if isinstance(value, str)]
    kinds = {key: sorted({str(one[key]) for one in sample}) for key in words}
    numbers = np.stack([_numbers(one, kinds) for one in sample])
    return kinds, numbers.mean(0), numbers.std(0) + 1e-3


def code_width() -> int:
    """Numbers of a code: those of every domain side by side."""
    return sum(1 + len(_table(domain)[1]) for domain in DOMAINS)


def code_of(one: Identity) -> np.ndarray:
    """float32 (`code_width()`,): its parameters, of mean 0 and deviation 1; 0 of other domains."""
    parts = []
    for domain in DOMAINS:
        kinds, mean, deviation = _table(domain)
        own = np.zeros(1 + len(mean), np.float32)
        if domain == one.domain:
            own[0] = 1.0
            own[1:] = (_numbers(one.parameters, kinds) - mean) / deviation
        parts.append(own)
    return np.concatenate(parts)


class Names(nn.Module):
    """The states of names, from codes; in training alone."""

    def __init__(self, width: int, norm: nn.LayerNorm, ids: tuple[int, ...]) -> None:
        super().__init__()
        self.ids = ids
        self.read = nn.Sequential(
            nn.Linear(code_width(), width), nn.GELU(), nn.Linear(width, width)
        )
        self.norm = [norm]  # the text encoder's last, which stays as it is

    def forward(self, states: Tensor, tokens: Tensor, codes: Tensor) -> Tensor:
        """States (N, P, width) with those of names (by tokens (N, P)) from codes (N, 2, code)."""
        named = self.norm[0](self.read(codes))
        for place, token in enumerate(self.ids):
            here = (tokens == token)[..., None]
            states = torch.where(here, named[:, place, None].to(states), states)
        return states
