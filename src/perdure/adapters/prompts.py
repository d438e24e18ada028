"""What the target layers are about to read, and where in it concepts are spoken of."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Prompts:
    """A batch of prompts: what the target layers read, and where concepts are spoken of."""

    states: Tensor
    """(N, P, d): the text encoder's states, which the key and value layers read."""
    spoken: tuple[tuple[tuple[str, int], ...], ...]
    """For each prompt (concept, position of its token) in the order of the positions."""
    ends: tuple[int, ...]
    """For each prompt the position of its end token; padding follows."""

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
