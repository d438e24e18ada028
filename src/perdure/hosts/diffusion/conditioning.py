"""What prompts are to a denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from perdure.adapters import Prompts

__all__ = ["Conditioning", "Encoded", "Places"]


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
