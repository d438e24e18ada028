"""What is said of prompts: their states, where in them concepts are spoken of, what acts there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from perdure.adapters.delta import without_autocast

__all__ = ["STATE", "WORD", "PromptDelta", "Prompts", "Token", "outputs"]

WORD, STATE = "word", "state"


@dataclass(frozen=True, eq=False)
class Token:
    """What a concept's token was learned to be: a word of every encoder, or a state."""

    parts: Mapping[str, Tensor]
    """`word/<encoder>` -> rows (n, d) of that encoder's table, or `state` -> vectors (n, d) in the
    place of the encoders' output. n is 1, or one for each layer that reads the prompt."""

    @property
    def kind(self) -> str:
        """`word` or `state`."""
        return STATE if STATE in self.parts else WORD

    @property
    def rows(self) -> Tensor:
        """All parts side by side, (n, d): what a method trains."""
        return torch.cat([self.parts[part] for part in sorted(self.parts)], dim=1)


@dataclass(frozen=True, eq=False)
class Prompts:
    """A batch of prompts: their states, and where concepts are spoken of."""

    states: Tensor
    """(N, P, d): what layers that read the prompt read of the text encoders' states."""
    spoken: tuple[tuple[tuple[str, int], ...], ...]
    """For each prompt (concept, position of its token) in the order of the positions."""
    ends: tuple[int, ...]
    """For each prompt the position of its (first) end token."""
    rests: tuple[tuple[slice, ...], ...] = ()
    """For each prompt where end tokens and padding are; () is all positions from the ends on."""

    def rest(self, prompt: int) -> Tensor:
        """(P,), bool: where the end tokens and the padding of one prompt are."""
        here = torch.zeros(self.states.shape[1], dtype=torch.bool)
        for part in self.rests[prompt] if self.rests else (slice(self.ends[prompt], None),):
            here[part] = True
        return here

    @classmethod
    def joined(cls, parts: Sequence[Prompts]) -> Prompts:
        """All prompts of several batches of one length, states in fp32."""
        return cls(
            states=torch.cat([part.states.float() for part in parts]),
            spoken=tuple(said for part in parts for said in part.spoken),
            ends=tuple(end for part in parts for end in part.ends),
            rests=tuple(rest for part in parts for rest in part.rests),
        )

    def concepts(self, prompt: int) -> tuple[str, ...]:
        """The concepts of one prompt, each once, in order."""
        return tuple(dict.fromkeys(name for name, _ in self.spoken[prompt]))

    def encoded(self) -> dict[str, Tensor]:
        """Concept -> mean (d,) of the states at its tokens, over all prompts that speak of it."""
        states: dict[str, list[Tensor]] = {}
        for prompt, spoken in enumerate(self.spoken):
            for name, place in spoken:
                states.setdefault(name, []).append(self.states[prompt, place])
        return {name: torch.stack(of).mean(dim=0) for name, of in states.items()}


@dataclass(frozen=True, eq=False)
class PromptDelta:
    """A low-rank delta of some layers that acts at some positions of a batch of prompts."""

    factors: Mapping[str, tuple[Tensor, Tensor]]
    """Layer -> A (d_out, r) and B (r, d_in)."""
    gate: Tensor
    """(N, P), fp32: what the delta's output is multiplied by at each position."""


def outputs(deltas: Sequence[PromptDelta], states: Tensor) -> dict[str, Tensor]:
    """Layer -> `sum_t gate_t A_t B_t c` (N, P, d_out), in the dtype of the states c (N, P, d_in).

    For layers that read the encoders' states as they are it is computed once a prompt.
    """
    total: dict[str, Tensor] = {}
    for delta in deltas:
        for layer, factors in delta.factors.items():
            A, B = (factor.to(states) for factor in factors)
            with without_autocast(states):
                own = F.linear(F.linear(states, B), A) * delta.gate.to(states)[..., None]
            total[layer] = total[layer] + own if layer in total else own
    return total
