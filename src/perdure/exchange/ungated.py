"""The LoRA that comes closest to a gate: what acts at some positions of a prompt alone, as a linear
change that every position goes through.

A layer that reads the encoders' states c_p adds g_p A B c_p. The nearest that a matrix can do is
A B X c_p with X = argmin sum_p w_p || X c_p - g_p c_p ||^2, taken over prompts that speak of the
concept, ordinary captions, the empty prompt and random words, without which it is good for the
captions' own words alone: X = G (S + lambda I)^-1, with S = sum w c c^T and G = sum w g c c^T.
So the rank stays what it was, and B becomes B X.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from perdure.drawing.painter import Painter
from perdure.exchange.factors import Factors
from perdure.learning.moments import CAPTIONS, TEMPLATES

__all__ = ["nearest", "ungated"]

RIDGE = 0.1
"""lambda, as a share of the mean of S's eigenvalues. Of 1e-4 to 0.1 the last was best for words
that none of these prompts has."""
_RANDOM, _WORDS = 96, 8
"""Prompts of random words, and words of each."""
_CAPTIONS = CAPTIONS[::4]


def ungated(painter: Painter, factors: Factors, concept: str) -> Factors:
    """The factors with the gate of a concept's task taken into B, where layers read the encoders'
    states; of a text stream, which is known in no prompt alone, they stay as they are."""
    layers = painter.base.named(painter.method.targets)
    reading = {name for name in factors.pairs if layers[name].reads == "prompt"}
    if not reading:
        return factors
    X = nearest(_moments(painter, concept))
    pairs = {name: (A, B @ X if name in reading else B) for name, (A, B) in factors.pairs.items()}
    return Factors(pairs=pairs, error=factors.error)


def nearest(parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """X (d, d), fp32, of parts (N, P, d), gates (N, P) and weights (N, P), all fp64."""
    S = torch.stack([torch.einsum("npi,np,npj->ij", c, w, c) for c, _, w in parts]).sum(0)
    G = torch.stack([torch.einsum("npi,np,npj->ij", c, w * g, c) for c, g, w in parts]).sum(0)
    ridge = RIDGE * S.trace() / len(S) * torch.eye(len(S), dtype=S.dtype)
    return torch.linalg.solve(S + ridge, G).T.float()  # S and G are symmetric


@torch.no_grad()
def _moments(painter: Painter, concept: str) -> list[tuple[Tensor, Tensor, Tensor]]:
    """States, gates and weights: each of the four kinds of prompt counts the same, and in a prompt
    its words, its end with the padding, and a concept's token."""
    generator, parts = torch.Generator().manual_seed(0), []
    words = painter.base.tokens.vocabularies[0].words(_RANDOM * _WORDS, generator)
    any_words = [" ".join(words[k::_RANDOM]) for k in range(_RANDOM)]
    speaking = [text.format(f"<{concept}>") for text in TEMPLATES]
    for texts in (speaking, _CAPTIONS, ("",), any_words):
        said = painter.prompts(texts)
        states = said.states.double().cpu()
        gate = torch.zeros(states.shape[:2], dtype=states.dtype)
        for delta in painter.in_prompts(said):
            gate += delta.gate.cpu()
        weight = torch.zeros_like(gate)
        for n, spoken in enumerate(said.spoken):
            rest = said.rest(n)
            weight[n, rest] = 1 / int(rest.sum())
            weight[n, ~rest] = 1 / int((~rest).sum())
            for _, place in spoken:
                weight[n, place] = 1 / len(spoken)
        parts.append((states, gate, weight / len(texts)))
    return parts
