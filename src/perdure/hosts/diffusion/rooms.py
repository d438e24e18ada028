"""Boxes in a denoiser that reads a prompt as rows of one text, mostly in one sequence with the
picture: by masks.

The phrases of the boxes stand behind the prompt as more rows of the text. Rows of the picture read
the phrase that they are for, or the prompt where they are for none, and the whole picture; rows of
a phrase read their own phrase and their own part of the picture. So from block to block a phrase
learns of what it speaks of, and of nothing else. (Masks by subject, without rows of their own:
FreeFuse, arXiv 2510.23515.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from perdure.adapters import PromptDelta
from perdure.hosts.diffusion.conditioning import Encoded
from perdure.hosts.diffusion.passes import Done, Rows, watched
from perdure.hosts.diffusion.regional import Place, masks
from perdure.hosts.size import Size

__all__ = ["Phrased", "Rooms", "gates_side_by_side", "masking"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Phrased:
    """A place, its phrase as one more prompt, and what acts in that."""

    place: Place
    said: Encoded
    """(1, P, d)."""
    deltas: Sequence[PromptDelta]
    """Their gates are (1, P)."""
    read: Tensor
    """(L, 1, P, d), where layers read the phrase each their own way; else L is 1."""


@dataclass(frozen=True, kw_only=True)
class Rooms:
    """Where the prompt and the phrases of places stand in the rows of the text."""

    places: tuple[Place, ...]
    lengths: tuple[int, ...]
    """How many rows the prompt has, and then each phrase."""
    text: slice
    """Where all of these are in a sequence of text and picture."""
    patches: int
    """How many positions of the picture are in such a sequence: behind the text, or before it."""
    alone: int
    """How many rows the text has where it is by itself, with what pads it."""
    size: Size
    """Of the pictures."""

    @property
    def owner(self) -> Tensor:
        """(P,): 0 for a row of the prompt, k for one of the k-th phrase."""
        return torch.repeat_interleave(torch.tensor(self.lengths))

    def read(self, positions: int, done: float) -> Tensor:
        """(positions, P), bool: which rows of the text each position of the picture reads."""
        begun = [(k, place) for k, place in enumerate(self.places, 1) if place.since <= done]
        whose = torch.zeros(positions, 1 + len(self.places), dtype=torch.bool)
        if begun:
            width = round((positions * self.size[0] / self.size[1]) ** 0.5)
            seen = masks([place for _, place in begun], width, positions // width).bool()
            whose[:, [k for k, _ in begun]] = seen.T
        whose[:, 0] = ~whose.any(dim=1)
        return whose[:, self.owner]

    def mask(self, queries: int, keys: int, done: float, *, prompts: bool) -> Tensor | None:
        """(queries, keys), bool: what reads what in an attention of so many; None where no text is
        in it. Other rows of a pass than the prompts' read the first of these texts alone."""
        owner = self.owner
        rows, first = len(owner), owner == 0
        if queries != keys:
            if keys != rows:
                return None
            return self.read(queries, done) if prompts else first.expand(queries, -1)
        whole = torch.ones(queries, keys, dtype=torch.bool)
        if keys == self.alone and keys not in (self.patches, self.text.start):
            whole[:rows, :rows] = owner[:, None] == owner
            return whole
        if keys < rows + self.patches:
            return None
        whole[self.text, self.text] = owner[:, None] == owner
        start = 0 if self.text.start else rows
        picture = slice(start, start + self.patches)
        seen = self.read(self.patches, done) if prompts else first.expand(self.patches, -1)
        whole[picture, self.text] = seen
        whole[self.text, picture] = seen.T | first[:, None]
        return whole


def gates_side_by_side(
    prompt: Sequence[PromptDelta], phrases: Sequence[Phrased], length: int, count: int
) -> list[PromptDelta]:
    """What acts in N prompts of so many positions and in the phrases behind them, by gates over all
    of these positions."""
    lengths = [length, *(one.said.states.shape[1] for one in phrases)]
    deltas = []
    for k, of in enumerate([prompt, *(one.deltas for one in phrases)]):
        before, behind = sum(lengths[:k]), sum(lengths[k + 1 :])
        for delta in of:
            gate = F.pad(delta.gate.expand(count, -1), (before, behind))
            deltas.append(PromptDelta(delta.factors, gate))
    return deltas


@contextmanager
def masking(
    denoiser: nn.Module, within: Iterable[nn.Module], rooms: Rooms, rows: Rows, done: Done
) -> Iterator[None]:
    """Within the block the attentions of some modules of the denoiser read what `Rooms` says."""
    with watched(denoiser, done) as now:
        mode = _Masked(rooms, rows, now)

        def enter(*of: Any) -> None:
            mode.__enter__()

        def leave(*of: Any) -> None:
            mode.__exit__(None, None, None)

        handles = []
        for module in within:
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class _Masked(TorchFunctionMode):
    """torch's own attention, with one mask more."""

    def __init__(self, rooms: Rooms, rows: Rows, now: Callable[[], float]) -> None:
        super().__init__()
        self.rooms, self.rows, self.now = rooms, rows, now
        self._made: dict[tuple[Any, ...], Tensor | None] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        call = self._attend if func is F.scaled_dot_product_attention else func
        return call(*args, **(kwargs or {}))

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        **given: Any,
    ) -> Tensor:
        own = self._mask(len(query), query.shape[-2], key.shape[-2])
        if own is not None:
            own = own.to(query.device)
            if attn_mask is None:
                attn_mask = own
            elif attn_mask.dtype == torch.bool:
                attn_mask = attn_mask & own
            else:
                attn_mask = attn_mask.masked_fill(~own, float("-inf"))
        return F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask, **given)

    def _mask(self, count: int, queries: int, keys: int) -> Tensor | None:
        """(count, 1, queries, keys), bool."""
        own, done = self.rows(count), self.now()
        begun = tuple(place.since <= done for place in self.rooms.places)
        at = (own.start, own.stop, count, queries, keys, begun)
        if at not in self._made:
            parts = [self.rooms.mask(queries, keys, done, prompts=of) for of in (False, True)]
            other, prompts = parts
            if other is None or prompts is None:
                self._made[at] = None
            else:
                whole = other.expand(count, 1, -1, -1).clone()
                whole[own] = prompts
                self._made[at] = whole
        return self._made[at]
