"""Put deltas on a model's linear layers: by hooks while they train, by folding for good."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def attached(layers: Mapping[str, nn.Linear], deltas: Mapping[str, nn.Module]) -> Iterator[None]:
    """Within the block, `layers[name](x)` returns its own output plus `deltas[name](x)`.

    Layers without a delta are left alone; two nested blocks add up. With gradient checkpointing
    call `backward` inside the block, because it runs the layers a second time.
    ValueError where a delta names no layer.
    """
    _check_known(deltas, layers)
    handles = [
        layers[name].register_forward_hook(_adding(delta), with_kwargs=True)
        for name, delta in deltas.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _adding(delta: nn.Module) -> Callable[..., Tensor]:
    def hook(
        layer: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any], output: Tensor
    ) -> Tensor:
        x = args[0] if args else kwargs["input"]
        return output + delta(x).to(output.dtype)

    return hook


@torch.no_grad()
def fold_into(
    layers: Mapping[str, nn.Linear], pristine: Mapping[str, Tensor], dense: Mapping[str, Tensor]
) -> None:
    """Write `W_init + dW` into every layer's weight; `W_init` alone where `dense` has no entry.

    `pristine` holds `W_init` (d_out, d_in) of every layer, `dense` some `dW` (d_out, d_in). The sum
    is taken in fp32 and rounded once to the weight's dtype. Always from `pristine`, so that folding
    twice does not add twice, and folding `{}` restores the base to the bit.
    ValueError where a name has no layer, a layer has no `W_init`, a shape differs, or `pristine`
    shares its memory with the layer it is to restore. Then no weight has been written.
    """
    _check_known(dense, layers)
    for name, layer in layers.items():
        if name not in pristine:
            raise ValueError(f"W_init of the layer {name!r} is missing: copy its weight first")
        if pristine[name].data_ptr() == layer.weight.data_ptr():
            raise ValueError(
                f"W_init of the layer {name!r} is the weight itself, which folding would "
                "overwrite: pass a clone of it"
            )
        for what, matrix in (("W_init", pristine[name]), ("dW", dense.get(name))):
            if matrix is not None and matrix.shape != layer.weight.shape:
                raise ValueError(
                    f"{what} of the layer {name!r} has the shape {tuple(matrix.shape)}, "
                    f"but the weight has {tuple(layer.weight.shape)}"
                )
    for name, layer in layers.items():
        weight = layer.weight
        if name in dense:
            W_init = pristine[name].to(weight.device, torch.float32)
            weight.copy_(W_init + dense[name].to(weight.device, torch.float32))
        else:
            weight.copy_(pristine[name])


def _check_known(names: Collection[str], layers: Mapping[str, nn.Linear]) -> None:
    unknown = sorted(set(names) - set(layers))
    if unknown:
        raise ValueError(
            f"no layer is named {unknown[0]!r} ({len(unknown)} unknown of {len(names)}): "
            "these deltas belong to other target layers"
        )
