"""What prompts are to a denoiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from perdure.adapters import Prompts, Token
from perdure.adapters.prompts import STATE

__all__ = ["Conditioning", "Encoded", "Places", "joined", "with_states"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """What a pipeline's own `encode_prompt` makes of N prompts."""

    states: Tensor
    """(N, P, d)."""
    beside: Mapping[str, Tensor] = field(default_factory=dict)
    """What else the denoiser is given of them, (N, ...) each: pooled vectors, masks. Named as the
    pipeline's call names them, so that it can be given them as they are."""

    def at(self, index: Tensor) -> Encoded:
        """Those of these prompts (M,), any of them several times."""
        return Encoded(
            states=self.states[index], beside={key: t[index] for key, t in self.beside.items()}
        )


@dataclass(frozen=True, eq=False)
class Places:
    """Where, in the states of N prompts, concepts are spoken of and text ends: see `Prompts`."""

    spoken: tuple[tuple[tuple[str, int], ...], ...]
    ends: tuple[int, ...]
    rests: tuple[tuple[slice, ...], ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Conditioning(Encoded):
    """N prompts, and where in them concepts are spoken of."""

    prompts: Prompts
    """What methods see; its `states` are the features that layers read of these."""
    by_layer: Tensor
    """(L, N, P, d): the features that each of the L modules which read the prompt reads; L is 1
    where all read the same. The prompts' are the mean over them."""


def joined(parts: Sequence[Encoded]) -> Encoded:
    """All of them; those of fewer positions are padded with zeros, their masks too."""
    longest = max(part.states.shape[1] for part in parts)

    def all_of(tensors: Sequence[Tensor]) -> Tensor:
        if len({t.shape[1:] for t in tensors}) == 1:
            return torch.cat(list(tensors))
        wide = [t.new_zeros(len(t), longest, *t.shape[2:]) for t in tensors]
        for whole, part in zip(wide, tensors, strict=True):
            whole[:, : part.shape[1]] = part
        return torch.cat(wide)

    return Encoded(
        states=all_of([part.states for part in parts]),
        beside={key: all_of([p.beside[key] for p in parts]) for key in parts[0].beside},
    )


def with_states(
    states: Tensor,
    spoken: Sequence[Sequence[tuple[str, int]]],
    known: Mapping[str, Token],
    layer: int,
) -> Tensor:
    """States (N, P, d) with those of concepts whose tokens are states in their places."""
    changed = states
    for n, said in enumerate(spoken):
        for name, place in said:
            token = known[name]
            if token.kind == STATE:
                changed = states.clone() if changed is states else changed
                rows = token.parts[STATE]
                changed[n, place] = rows[layer if len(rows) > 1 else 0].to(states)
    return changed
