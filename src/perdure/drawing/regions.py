"""Region control: inside a box the picture attends to the box's own phrase.

The cross-attention of each box reads its own phrase and not the prompt, as in CIDM's
context-controllable synthesis (arXiv 2410.17594). Self-attention and everything else, the queries
and outputs of the cross-attentions among it, see the picture whole and are the prompt's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perdure.errors import PerdureError

__all__ = ["Region", "RegionKeys", "attending", "keys_and_values", "read_region"]


@dataclass(frozen=True, kw_only=True)
class Region:
    """A box and what to draw in it.

    Raises PerdureError for a box that is empty or reaches outside the picture.
    """

    phrase: str
    """A prompt of its own, such as `a photo of <rex>`."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom, as shares of the picture's sides in [0, 1]."""

    def __post_init__(self) -> None:
        left, top, right, bottom = self.box
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise PerdureError(
                f"The box {self.box} of {self.phrase!r} is no box: give left, top, right, bottom "
                "between 0 and 1, left below right and top below bottom."
            )

    def mask(self, side: int) -> Tensor:
        """1 inside the box, 0 outside, (side * side,); a box covers at least one position."""
        left, top, right, bottom = (round(edge * side) for edge in self.box)
        mask = torch.zeros(side, side)
        mask[top : max(bottom, top + 1), left : max(right, left + 1)] = 1.0
        return mask.flatten()


def read_region(text: str) -> Region:
    """The region of `PHRASE@LEFT,TOP,RIGHT,BOTTOM`; PerdureError where it is none.

    >>> read_region("a photo of <rex>@0,0,0.5,1").box
    (0.0, 0.0, 0.5, 1.0)
    """
    phrase, _, edges = text.rpartition("@")
    try:
        left, top, right, bottom = (float(edge) for edge in edges.split(","))
    except ValueError as error:
        raise PerdureError(
            f"The box {text!r} cannot be read: write it as PHRASE@LEFT,TOP,RIGHT,BOTTOM, such as "
            "'a photo of <rex>@0,0,0.5,1'."
        ) from error
    if not phrase.strip():
        raise PerdureError(f"The box {text!r} has no phrase: write what to draw before the @.")
    return Region(phrase=phrase.strip(), box=(left, top, right, bottom))


@dataclass(frozen=True, eq=False)
class RegionKeys:
    """A region and, for each cross-attention, the keys and values (P, d) of its phrase."""

    region: Region
    keys_values: Mapping[str, tuple[Tensor, Tensor]]


@torch.no_grad()
def keys_and_values(
    denoiser: nn.Module, states: Tensor, added: Mapping[str, Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Name of a cross-attention -> keys and values (P, d) of one phrase.

    Args:
        denoiser: with the phrase's deltas folded in.
        states: (L, P, d) of the phrase, one for each cross-attention in the order that the denoiser
            lists them, or L = 1 where all read the same.
        added: layer -> (1, P, d_out), what a method adds on top; see `Method.added`.
    """
    found = {}
    modules = _cross_attentions(denoiser)
    if len(states) == 1:
        states = states.expand(len(modules), -1, -1)
    for (name, module), own in zip(modules.items(), states, strict=True):
        pair = []
        for part in ("to_k", "to_v"):
            out = getattr(module, part)(own)
            if (extra := added.get(f"{name}.{part}")) is not None:
                out = out + extra[0].to(out)
            pair.append(out)
        found[name] = (pair[0], pair[1])
    return found


@contextmanager
def attending(denoiser: nn.Module, regions: Sequence[RegionKeys], pictures: int) -> Iterator[None]:
    """Within the block, the last ``pictures`` rows of a pass attend to the regions' phrases.

    Rows before them are the empty prompts of classifier-free guidance. Where boxes overlap, the
    mean of what their phrases say is taken.
    """
    modules = _cross_attentions(denoiser) if regions else {}
    before = {name: module.processor for name, module in modules.items()}
    for name, module in modules.items():
        module.processor = _Regional(regions, name, pictures)
    try:
        yield
    finally:
        for name, module in modules.items():
            module.processor = before[name]


def _cross_attentions(denoiser: nn.Module) -> dict[str, Any]:
    return {name: module for name, module in denoiser.named_modules() if name.endswith("attn2")}


class _Regional:
    """A cross-attention's processor: the prompt everywhere, then each box over it."""

    def __init__(self, regions: Sequence[RegionKeys], name: str, pictures: int) -> None:
        self.regions = regions
        self.name = name
        self.pictures = pictures

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **ignored: Any
    ) -> Tensor:
        q = attn.to_q(hidden_states)
        out = _attend(attn, q, attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states))
        side = round(hidden_states.shape[1] ** 0.5)
        empty = len(out) - self.pictures
        own, masks, total = q[empty:], [], torch.zeros_like(out[empty:])
        for one in self.regions:
            k, v = (t.to(q).expand(self.pictures, -1, -1) for t in one.keys_values[self.name])
            mask = one.region.mask(side).to(q)[None, :, None]
            masks.append(mask)
            total = total + mask * _attend(attn, own, k, v)
        covered = torch.stack(masks).sum(0)
        inside = covered.clamp(max=1)
        drawn = out[empty:] * (1 - inside) + total / covered.clamp(min=1)
        out = torch.cat([out[:empty], drawn])
        return attn.to_out[1](attn.to_out[0](out))


def _attend(attn: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Multi-head attention (N, L, d), before the output projection."""

    def split(x: Tensor) -> Tensor:
        return x.unflatten(2, (attn.heads, -1)).transpose(1, 2)

    out = F.scaled_dot_product_attention(split(q), split(k), split(v), scale=attn.scale)
    return out.transpose(1, 2).flatten(2)
