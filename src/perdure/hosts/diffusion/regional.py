"""Boxes of a picture whose cross-attentions read phrases of their own, in a U-Net.

The cross-attention of each box reads its own phrase and not the prompt, as in CIDM's
context-controllable synthesis (arXiv 2410.17594). Self-attention and everything else, the queries
and outputs of the cross-attentions among it, see the picture whole and are the prompt's.

A box may begin late: where things stand is settled in the first steps, by the prompt, and what
they look like afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perdure.hosts.diffusion.passes import Rows

__all__ = ["Box", "Boxed", "Place", "attending", "keys_and_values", "mask", "masks"]

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, as shares of the picture's sides in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where in a picture a phrase is read, and when."""

    box: Box
    depth: int = 0
    """Where boxes overlap, the one in front, of the least depth, hides those behind it."""
    since: float = 0.0
    """The share of the noise that is gone when it begins."""


@dataclass(frozen=True, eq=False)
class Boxed:
    """A place and, for each cross-attention, the keys and values (P, d) of its phrase."""

    place: Place
    keys_values: Mapping[str, tuple[Tensor, Tensor]]


def masks(places: Sequence[Place], width: int, height: int) -> Tensor:
    """Of each place where it is seen (N, height * width): `mask`, without what hides it."""
    own = torch.stack([mask(place.box, width, height) for place in places])
    seen = own.clone()
    for row, place in zip(seen, places, strict=True):
        for other, before in zip(own, places, strict=True):
            if before.depth < place.depth:
                row *= 1 - other
    return seen


def mask(box: Box, width: int, height: int) -> Tensor:
    """1 inside the box, 0 outside, (height * width,); a box covers at least one position."""
    left, right = (round(edge * width) for edge in box[::2])
    top, bottom = (round(edge * height) for edge in box[1::2])
    inside = torch.zeros(height, width)
    inside[top : max(bottom, top + 1), left : max(right, left + 1)] = 1.0
    return inside.flatten()


def _field(positions: int, latents: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the latents, halved until so many positions are left."""
    width, height = latents
    while width * height > positions:
        width, height = -(-width // 2), -(-height // 2)
    assert width * height == positions, (positions, latents)
    return width, height


@torch.no_grad()
def keys_and_values(
    readers: Mapping[str, nn.Module], states: Tensor, added: Mapping[str, Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Name of a cross-attention -> keys and values (P, d) of one phrase.

    Args:
        readers: the cross-attentions by name, with the phrase's deltas folded in.
        states: (L, P, d) of the phrase, one for each of them in order, or L = 1 where all read the
            same.
        added: layer -> (1, P, d_out), what is added to keys and values on top.
    """
    found = {}
    if len(states) == 1:
        states = states.expand(len(readers), -1, -1)
    for (name, module), own in zip(readers.items(), states, strict=True):
        pair = []
        for part in ("to_k", "to_v"):
            out = getattr(module, part)(own.to(next(module.parameters()).device))
            if (extra := added.get(f"{name}.{part}")) is not None:
                out = out + extra[0].to(out)
            pair.append(out)
        found[name] = (pair[0], pair[1])
    return found


@contextmanager
def attending(
    readers: Mapping[str, Any],
    regions: Sequence[Boxed],
    rows: Rows,
    latents: tuple[int, int],
    now: Callable[[], float],
) -> Iterator[None]:
    """Within the block, some rows of a pass attend to the regions' phrases.

    ``rows`` says, of so many rows of a pass, which are those of the pictures' prompts; ``latents``
    is width and height of a picture's latents; ``now`` is what share of the noise is gone. Where
    boxes of one depth overlap, the mean of what their phrases say is taken.
    """
    before = {name: module.processor for name, module in readers.items()}
    for name, module in readers.items():
        module.processor = _Regional(regions, name, rows, latents, now, before[name])
    try:
        yield
    finally:
        for name, module in readers.items():
            module.processor = before[name]


class _Regional:
    """A cross-attention's processor: the prompt everywhere, then each box over it."""

    def __init__(
        self,
        regions: Sequence[Boxed],
        name: str,
        rows: Rows,
        latents: tuple[int, int],
        now: Callable[[], float],
        before: Any,
    ) -> None:
        self.regions, self.name, self.rows, self.latents = regions, name, rows, latents
        self.now, self.before = now, before

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Any, **given: Any
    ) -> Tensor:
        regions = [one for one in self.regions if one.place.since <= self.now()]
        if not regions or isinstance(encoder_hidden_states, tuple):  # an IP-Adapter's pictures
            plain: Tensor = self.before(attn, hidden_states, encoder_hidden_states, **given)
            return plain
        q = attn.to_q(hidden_states)
        out = _attend(attn, q, attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states))
        field = _field(hidden_states.shape[1], self.latents)
        rows = self.rows(len(out))
        own, total = q[rows], torch.zeros_like(out[rows])
        seen = masks([one.place for one in regions], *field).to(q)
        for one, inside in zip(regions, seen, strict=True):
            k, v = (t.to(q).expand(len(own), -1, -1) for t in one.keys_values[self.name])
            total = total + inside[None, :, None] * _attend(attn, own, k, v)
        covered = seen.sum(0)[None, :, None]
        anywhere = covered.clamp(max=1)
        drawn = out[rows] * (1 - anywhere) + total / covered.clamp(min=1)
        out = torch.cat([out[: rows.start], drawn, out[rows.stop :]])
        return attn.to_out[1](attn.to_out[0](out))


def _attend(attn: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Multi-head attention (N, L, d), before the output projection."""

    def split(x: Tensor) -> Tensor:
        return x.unflatten(2, (attn.heads, -1)).transpose(1, 2)

    out = F.scaled_dot_product_attention(split(q), split(k), split(v), scale=attn.scale)
    return out.transpose(1, 2).flatten(2)
