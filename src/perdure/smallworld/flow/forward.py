"""The stock transformer's pass, written for training: one row stands for many rows of zeros.

Stable Diffusion 3's pipeline without a third text encoder appends 256 rows of zeros to a prompt.
All of them are alike and stay alike, since text rows have no code of position. So one row whose key
has log(256) added to its logit does what 256 rows do. Norms, modulation and softmax are in fp32
between bf16 products, which is also what a compiler can fuse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor
from torch.nn import functional as F

__all__ = ["block_forward", "predict"]


def _norm(x: Tensor) -> Tensor:
    return F.layer_norm(x.float(), x.shape[-1:], eps=1e-6)


def _modulated(x: Tensor, scale: Tensor, shift: Tensor, dtype: torch.dtype) -> Tensor:
    return (_norm(x) * (1 + scale[:, None]) + shift[:, None]).to(dtype)


def _added(x: Tensor, gate: Tensor, change: Tensor) -> Tensor:
    return (x.float() + gate[:, None] * change.float()).to(change.dtype)


def _rms(x: Tensor, norm: Any) -> Tensor:
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + norm.eps)
    return (wide * scale * norm.weight.float()).to(x.dtype)


def _feed_forward(ff: Any, x: Tensor) -> Tensor:
    inner = ff.net[0].proj(x).float()
    # GELU by tanh, written as a sigmoid, whose exponential costs half of a tanh
    slope = (inner * (1.5957691216 + 0.0713548162726 * inner.square())).sigmoid()
    return ff.net[2]((inner * slope).to(x.dtype))


def _attend(attn: Any, picture: Tensor, text: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    batch, heads = len(picture), attn.heads

    def split(x: Tensor) -> Tensor:
        return x.view(batch, x.shape[1], heads, -1)

    q = [_rms(split(attn.to_q(picture)), attn.norm_q)]
    q += [_rms(split(attn.add_q_proj(text)), attn.norm_added_q)]
    k = [_rms(split(attn.to_k(picture)), attn.norm_k)]
    k += [_rms(split(attn.add_k_proj(text)), attn.norm_added_k)]
    v = [split(attn.to_v(picture)), split(attn.add_v_proj(text))]
    query, key, value = (torch.cat(parts, dim=1).transpose(1, 2) for parts in (q, k, v))
    logits = (query @ key.transpose(-1, -2)).float() * query.shape[-1] ** -0.5 + bias
    mixed = logits.softmax(-1).to(value.dtype) @ value
    mixed = mixed.transpose(1, 2).reshape(batch, query.shape[2], -1)
    return mixed[:, : picture.shape[1]], mixed[:, picture.shape[1] :]


def block_forward(
    block: Any, picture: Tensor, text: Tensor, activated: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor | None]:
    """One block's pass; compile this one function and every block runs what was compiled."""
    dtype = picture.dtype
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (
        block.norm1.linear(activated).float().chunk(6, dim=1)
    )
    seen = _modulated(picture, scale_a, shift_a, dtype)
    if block.context_pre_only:
        scale, shift = block.norm1_context.linear(activated).float().chunk(2, dim=1)
        read = _modulated(text, scale, shift, dtype)
    else:
        told = block.norm1_context.linear(activated).float().chunk(6, dim=1)
        read = _modulated(text, told[1], told[0], dtype)
    out, out_text = _attend(block.attn, seen, read, bias)
    picture = _added(picture, gate_a, block.attn.to_out[0](out))
    inner = _modulated(picture, scale_m, shift_m, dtype)
    picture = _added(picture, gate_m, _feed_forward(block.ff, inner))
    if block.context_pre_only:
        return picture, None  # not the input itself: a compiled pass is wrong with such an alias
    text = _added(text, told[2], block.attn.to_add_out(out_text))
    inner = _modulated(text, told[4], told[3], dtype)
    return picture, _added(text, told[5], _feed_forward(block.ff_context, inner))


def predict(
    model: SD3Transformer2DModel,
    latents: Tensor,
    states: Tensor,
    pooled: Tensor,
    times: Tensor,
    zeros: Tensor,
    pass_block: Callable[..., tuple[Tensor, Tensor | None]] = block_forward,
) -> Tensor:
    """What ``model`` predicts for prompts that are followed by ``zeros`` (N,) rows of zeros.

    ``latents`` (N, C, H, W), ``states`` (N, P, joint width), ``pooled`` (N, pooled width) and
    ``times`` (N,) in 0..1000; returns (N, C, H, W) in fp32. Queries and keys are RMS-normed.
    """
    dtype = states.dtype
    size = model.config.patch_size
    height, width = latents.shape[-2] // size, latents.shape[-1] // size
    picture = model.pos_embed(latents.to(dtype)).to(dtype).contiguous()
    embedding = model.time_text_embed.time_proj(times).to(dtype)
    condition = model.time_text_embed.timestep_embedder(embedding)
    condition = condition + model.time_text_embed.text_embedder(pooled)
    activated = F.silu(condition.float()).to(dtype)
    text = model.context_embedder(F.pad(states, (0, 0, 0, 1)))
    bias = latents.new_zeros(len(latents), 1, 1, picture.shape[1] + text.shape[1])
    count = zeros.float().log().clamp(min=-60)  # finite: compiled softmax makes nan of infinity
    bias = torch.cat([bias[..., :-1], count[:, None, None, None]], dim=-1)
    for block in model.transformer_blocks:
        picture, text = pass_block(block, picture, text, activated, bias)
    scale, shift = model.norm_out.linear(activated).float().chunk(2, dim=1)
    patches = model.proj_out(_modulated(picture, scale, shift, dtype)).float()
    patches = patches.view(len(latents), height, width, size, size, -1)
    return torch.einsum("nhwpqc->nchpwq", patches).reshape(
        len(latents), -1, height * size, width * size
    )
