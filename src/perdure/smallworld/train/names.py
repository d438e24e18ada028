"""Names: made-up words that stand for one subject each, as proper names do in real captions.

A base that has only read coarse words cannot be told more than coarse words. Real captions name
thousands of people, and two words together say who. Here a name is a pair of vectors in the place
of two word embeddings, a linear code of the identity's parameters, half of them in each word. The
U-Net so learns to read a particular subject from what stands in the prompt. The codes are thrown
away afterwards: no word of the tokenizer is a name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPTextModel

from perdure.smallworld.world import DOMAINS, Identity

__all__ = ["NAMES", "Names", "spoken"]

NAMES = ("this that", "his her")
"""Words that no caption uses otherwise: they mark the places of the first and second name."""
_FITTED = 2000


class Names:
    """The code of every domain, fitted to the spread of its parameters over training identities.

    ``width`` and ``deviation`` are those of the text encoder's word embeddings.
    """

    def __init__(self, width: int, deviation: float) -> None:
        self._codes = {domain: _Code(domain, width, deviation) for domain in DOMAINS}

    def rows(self, who: Sequence[Identity]) -> Tensor:
        """The two word vectors of each identity: (len(who), 2, width)."""
        return torch.stack([self._codes[one.domain](one) for one in who])


class _Code:
    def __init__(self, domain: str, width: int, deviation: float) -> None:
        people = [Identity(domain, seed).parameters for seed in range(_FITTED)]
        self._kinds: dict[str, list[str]] = {
            key: sorted({str(one[key]) for one in people})
            for key, value in people[0].items()
            if not isinstance(value, Number)
        }
        table = np.stack([self._numbers(one) for one in people])
        self._used = table.std(axis=0) > 0
        table = table[:, self._used]
        self._mean, self._std = table.mean(axis=0), table.std(axis=0)
        size = table.shape[1]
        rng = np.random.default_rng(7)
        turn = np.linalg.qr(rng.standard_normal((size, size)))[0]
        spread = rng.standard_normal((size, width)) * deviation * (2 / size) ** 0.5
        half = np.arange(size) < size // 2
        self._matrix = turn @ np.concatenate(
            [np.where(half[:, None], spread, 0), np.where(half[:, None], 0, spread)], axis=1
        )

    def _numbers(self, parameters: Mapping[str, Any]) -> np.ndarray:
        numbers: list[float] = []
        for key, value in parameters.items():
            if key in self._kinds:
                numbers += [float(str(value) == kind) for kind in self._kinds[key]]
            elif value >= 0xFF000000:  # a colour, ARGB
                numbers += [(int(value) >> shift & 255) / 255 for shift in (16, 8, 0)]
            else:
                numbers.append(float(value))
        return np.array(numbers)

    def __call__(self, identity: Identity) -> Tensor:
        numbers = self._numbers(identity.parameters)[self._used]
        code = np.clip((numbers - self._mean) / self._std, -3, 3)
        return torch.from_numpy(code @ self._matrix).float().reshape(2, -1)


@contextmanager
def spoken(text_encoder: CLIPTextModel, marks: Tensor, rows: Tensor) -> Iterator[None]:
    """While open, the text encoder reads ``rows`` (N, M, width) where token ids equal ``marks``.

    ``marks`` (M,) are the ids of the words of `NAMES`, in order; N is the batch.
    """

    def put(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        found = inputs[0][:, :, None] == marks  # (N, positions, M)
        named = torch.einsum("npm,nmd->npd", found.to(rows.dtype), rows)
        return torch.where(found.any(dim=2, keepdim=True), named, output)

    handle = text_encoder.get_input_embeddings().register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()
