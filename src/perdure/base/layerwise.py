"""Tokens with one row for every cross-attention layer: each layer reads the prompt its own way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from perdure.base.base import Base

__all__ = ["cross_attentions", "layer_states", "reading", "typical"]


def cross_attentions(base: Base) -> list[nn.Module]:
    """The modules that read the prompt, in the order the denoiser lists them; L of them."""
    name = base.family.cross_attention
    return [module for path, module in base.denoiser.named_modules() if path.endswith(name)]


def layer_states(base: Base, ids: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
    """The text encoder's states (L, N, positions, d) of token ids (N, positions), by layer.

    `rows` are the concepts' (L, d) or (1, d). Where no prompt speaks of a concept with rows of its
    own for every layer, one pass is enough and the first axis is 1; else there is a pass a layer.
    """
    spoken = {
        name: row
        for name, row in rows.items()
        if len(row) > 1 and bool((ids == base.tokens.id_of(name)).any())
    }
    if not spoken:
        return base.states(ids)[None]
    states = []
    for layer in range(max(len(row) for row in spoken.values())):
        with base.tokens.serving({name: row[layer : layer + 1] for name, row in spoken.items()}):
            states.append(base.states(ids))
    return torch.stack(states)


def typical(states: Tensor) -> Tensor:
    """One reading (N, positions, d) for all layers: the mean of `layer_states` over them."""
    return states[0] if len(states) == 1 else states.mean(dim=0)


@contextmanager
def reading(base: Base, states: Tensor) -> Iterator[None]:
    """Within the block every cross-attention reads its own of `layer_states`.

    Where the batch has more prompts than N, the last N read them: the first are the empty prompts
    of classifier-free guidance. Nothing changes where the first axis of `states` is 1.
    """

    def hook_of(own: Tensor) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
        def hook(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            given: Tensor = kwargs["encoder_hidden_states"]
            first = given[: len(given) - len(own)]
            return args, {**kwargs, "encoder_hidden_states": torch.cat([first, own.to(given)])}

        return hook

    modules = cross_attentions(base) if len(states) > 1 else []
    handles = [
        module.register_forward_pre_hook(hook_of(own), with_kwargs=True)
        for module, own in zip(modules, states, strict=bool(modules))
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
