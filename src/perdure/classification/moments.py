"""Second moments of what the target layers read: of pictures, kept instead of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from perdure.adapters.delta import without_autocast
from perdure.hosts.vision.backbone import Backbone

__all__ = ["gathered", "input_moments", "readers"]


def readers(layers: Iterable[str]) -> dict[str, str]:
    """Layer -> the first layer that reads the same inputs: queries, keys and values of a block."""
    first: dict[str, str] = {}
    return {layer: first.setdefault(layer.rpartition(".")[0], layer) for layer in layers}


@torch.no_grad()
def input_moments(backbone: Backbone, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Layer -> C (d_in, d_in), the mean of `x x^T` over all pictures and positions, fp32, CPU.

    ``batches`` are pixels (N, 3, size, size). Layers that read the same inputs get the same tensor.
    """
    leading = readers(backbone.layers)
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].float().flatten(0, -2)
            with without_autocast(x):
                own = (x.T @ x).double().cpu()
            sums[name] = sums[name] + own if name in sums else own
            counts[name] = counts.get(name, 0) + len(x)

        return hook

    handles = [
        backbone.layers[name].module.register_forward_pre_hook(watch(name))
        for name in dict.fromkeys(leading.values())
    ]
    try:
        for pixels in batches:
            backbone.features(pixels)
    finally:
        for handle in handles:
            handle.remove()
    means = {name: (sums[name] / counts[name]).float() for name in sums}
    return {layer: means[first] for layer, first in leading.items()}


def gathered(
    old: Mapping[str, Tensor],
    tasks: int,
    new: Mapping[str, Tensor],
    how: Literal["mean", "sum"] = "mean",
) -> dict[str, Tensor]:
    """The mean or the sum over all tasks, each counting alike: `old` is that over ``tasks``."""
    weight, count = (tasks, tasks + 1) if how == "mean" else (1, 1)
    made: dict[int, Tensor] = {}
    for layer, C in new.items():
        if id(C) not in made:
            made[id(C)] = (old[layer] * weight + C) / count if tasks else C
    return {layer: made[id(C)] for layer, C in new.items()}
