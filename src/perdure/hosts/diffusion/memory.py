"""What fits on a card, computed: weights, what trains, and what a step keeps for its way back."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perdure.adapters.delta import LowRank
from perdure.adapters.prompts import Prompts
from perdure.hosts.diffusion.conditioning import Conditioning
from perdure.hosts.diffusion.family import KEYS_VALUES
from perdure.hosts.frozen import attached
from perdure.hosts.size import Size
from perdure.quiet import quietly

if TYPE_CHECKING:
    from perdure.hosts.diffusion.host import Base

__all__ = ["CARDS", "Needs", "fitting", "needs"]

CARDS = (8, 12, 16, 24, 80)
"""Gigabytes (10^9 bytes) of the cards that people have."""
_KINDS = {"--dtype bfloat16": 2.0, "--quantize int8": 1.0, "--quantize bnb-nf4": 0.5625}
"""Bytes of a weight of a linear layer; of nf4 with one fp32 scale for 64 of them."""
_RUNTIME = 1.0
"""Gigabytes of what a driver, kernels and fragments take."""
_PER_WEIGHT = 16
"""Bytes of a weight that trains: itself, its gradient and Adam's two moments, fp32."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Bytes that learning one concept needs at a size, one picture at a time."""

    linear: int
    """Weights of the denoiser's linear layers, how many."""
    other: int
    """All other weights of the denoiser and the autoencoder's, how many."""
    encoders: int
    """Of the text encoders, as they are stored."""
    trained: int
    kept: int
    """What a step keeps for its way back."""

    def learning(self, per_weight: float) -> float:
        """Gigabytes of a step, the encoders at rest."""
        held = self.linear * per_weight + self.other * 2
        return (held + self.trained + self.kept) / 1e9 + _RUNTIME

    def encoding(self, per_weight: float) -> float:
        """Gigabytes while prompts are encoded, beside the denoiser."""
        return (self.linear * per_weight + self.other * 2 + self.encoders) / 1e9 + _RUNTIME


def needs(base: Base, size: Size, rank: int = 16) -> Needs:
    """What learning with an adapter of a rank on the keys and values needs, in bf16."""
    modules = list(base.denoiser.modules())
    linear = sum(m.in_features * m.out_features for m in modules if isinstance(m, nn.Linear))
    whole = sum(p.numel() for p in _twin(base.denoiser).parameters())
    autoencoder = getattr(base.pipeline, base.family.autoencoder)
    trained = sum(rank * (d_out + d_in) for d_out, d_in in base.shapes.values()) * _PER_WEIGHT
    return Needs(
        linear=linear,
        other=whole - linear + sum(p.numel() for p in autoencoder.parameters()),
        encoders=sum(vocabulary.bytes for vocabulary in base.tokens.vocabularies),
        trained=trained,
        kept=_kept(base, size, rank),
    )


def fitting(base: Base, size: Size) -> Iterator[tuple[str, str]]:
    """(card, what fits there and with which settings) at a size, one picture at a time."""
    found = needs(base, size)
    for card in CARDS:
        for how, per_weight in _KINDS.items():
            step, encode = found.learning(per_weight), found.encoding(per_weight)
            if max(step, encode) <= card:
                yield (
                    f"{card} GB",
                    f"fits with {how}: {step:.1f} GB in a step, {encode:.1f} GB while prompts are "
                    "encoded",
                )
                break
        else:
            yield f"{card} GB", f"does not fit at {size[0]}x{size[1]} ({step:.1f} GB with {how})"


def _twin(module: nn.Module) -> nn.Module:
    """The same module without memory for its weights."""
    with torch.device("meta"), quietly():
        twin = type(module).from_config(module.config)  # type: ignore[attr-defined]
        made: nn.Module = twin.to(torch.bfloat16).requires_grad_(False)
    return made


class _Attention(torch.autograd.Function):
    """What a fused attention keeps, on shapes alone: its inputs, its output, a number a row."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return out


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Within the block attention is fused; on shapes alone torch would keep all the scores."""
    own = F.scaled_dot_product_attention

    def fused(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **given: Any) -> Tensor:
        out: Tensor = _Attention.apply(query, key, value)
        return out

    F.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        F.scaled_dot_product_attention = own


def _kept(base: Base, size: Size, rank: int) -> int:
    """Bytes of the tensors that the way back of one pass needs, weights aside; nothing is
    computed: the pass runs on shapes alone."""
    family, meta = base.family, torch.device("meta")
    pipeline: Any = copy.copy(base.pipeline)
    for part in (family.component, family.autoencoder):
        setattr(pipeline, part, _twin(getattr(base.pipeline, part)))
    denoiser = family.denoiser(pipeline)
    layers = family.layers(pipeline, KEYS_VALUES)
    deltas = {
        name: LowRank(*layer.shape, rank, generator=torch.Generator()).to(meta)
        for name, layer in layers.items()
    }
    own = {p.untyped_storage()._cdata for p in denoiser.parameters()}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found[storage._cdata] = storage.nbytes()
        return tensor

    blank = family.blank(base.pipeline)
    states = blank.states.to(meta, torch.bfloat16)
    pictures = torch.empty(1, 3, size[1], size[0], device=meta, dtype=torch.bfloat16)
    with torch.no_grad():
        noised = family.to_latents(pipeline, pictures)[0]
        features = family.features(pipeline, states)
    said = Conditioning(
        states=states,
        beside={
            name: t.to(meta) if t.is_floating_point() else t for name, t in blank.beside.items()
        },
        prompts=Prompts(features, ((),), (0,)),
        by_layer=features[None],
    )
    time = torch.full((1,), 500.0, device=meta)
    with (
        _fused_attention(),
        attached(layers, deltas),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        out = family.predict(pipeline, noised, time, said, size)
        assert out.requires_grad
    return sum(found.values())
