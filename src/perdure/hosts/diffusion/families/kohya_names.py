"""What kohya's trainers call the blocks of FLUX's kin: the names of the original code, whose
projections are fused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from perdure.hosts.diffusion.lora_files import Named

__all__ = ["flux_1_name", "flux_2_name"]

_BLOCK = re.compile(r"(single_)?transformer_blocks\.(\d+)\.(.+)")
_FUSED = {
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
_DOUBLE = {"attn.to_out.0": "img_attn_proj", "attn.to_add_out": "txt_attn_proj"}
_DOUBLE_1 = {
    **_DOUBLE,
    "ff.net.0.proj": "img_mlp_0",
    "ff.net.2": "img_mlp_2",
    "ff_context.net.0.proj": "txt_mlp_0",
    "ff_context.net.2": "txt_mlp_2",
    "norm1.linear": "img_mod_lin",
    "norm1_context.linear": "txt_mod_lin",
}
_DOUBLE_2 = {
    **_DOUBLE,
    "ff.linear_in": "img_mlp_0",
    "ff.linear_out": "img_mlp_2",
    "ff_context.linear_in": "txt_mlp_0",
    "ff_context.linear_out": "txt_mlp_2",
}
_SINGLE_1 = {"proj_out": "linear2", "norm.linear": "modulation_lin"}
_SINGLE_2 = {"attn.to_qkv_mlp_proj": "linear1", "attn.to_out": "linear2"}
_LINEAR_1 = (*_FUSED["img_attn_qkv"], "proj_mlp")
"""Of a single block of FLUX.1, what is fused in its `linear1`, in order."""


def flux_1_name(transformer: Any, module: str) -> Named | None:
    """Of FLUX.1 and Chroma; None for what stands outside the blocks."""
    found = _BLOCK.fullmatch(module)
    if found is None:
        return None
    block, single = module.removesuffix(found[3]), found[1] is not None
    if single and found[3] in _LINEAR_1:
        rows = [len(transformer.get_submodule(block + part).weight) for part in _LINEAR_1]
        first = sum(rows[: _LINEAR_1.index(found[3])])
        return Named(f"lora_unet_single_blocks_{found[2]}_linear1", first, sum(rows))
    return _name(found, transformer.inner_dim, _DOUBLE_1, _SINGLE_1)


def flux_2_name(transformer: Any, module: str) -> Named | None:
    """Of FLUX.2, whose single blocks are fused in diffusers, too."""
    found = _BLOCK.fullmatch(module)
    return None if found is None else _name(found, transformer.inner_dim, _DOUBLE_2, _SINGLE_2)


def _name(
    found: re.Match[str], width: int, double: Mapping[str, str], single: Mapping[str, str]
) -> Named | None:
    of_single, number, part = found.groups()
    start = f"lora_unet_{'single' if of_single else 'double'}_blocks_{number}_"
    for name, own in _parts(of_single):
        if part in own:
            return Named(start + name, own.index(part) * width, len(own) * width)
    names = single if of_single else double
    return Named(start + names[part]) if part in names else None


def _parts(of_single: str | None) -> Sequence[tuple[str, tuple[str, ...]]]:
    return () if of_single else tuple(_FUSED.items())
