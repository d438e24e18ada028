"""Put deltas on a model's linear layers: by hooks while they train, by folding for good."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perdure.adapters.delta import Delta

Layer = nn.Linear | nn.Conv2d


@contextmanager
def attached(layers: Mapping[str, Layer], deltas: Mapping[str, Delta]) -> Iterator[None]:
    """Within the block, `layers[name](x)` returns its own output plus `deltas[name](x)`.

    A convolution's delta convolves x with `dW`. Layers without a delta are left alone; two nested
    blocks add up. With gradient checkpointing call `backward` inside the block, because it runs the
    layers a second time. ValueError where a delta names no layer.
    """
    _check_known(deltas, layers)
    handles = [
        layers[name].register_forward_hook(_adding(layers[name], delta), with_kwargs=True)
        for name, delta in deltas.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _adding(layer: Layer, delta: Delta) -> Callable[..., Tensor]:
    def hook(
        module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any], output: Tensor
    ) -> Tensor:
        x = args[0] if args else kwargs["input"]
        if isinstance(layer, nn.Linear):
            return output + delta(x).to(output.dtype)
        kernel = delta.dense().view_as(layer.weight).to(x.dtype)
        step, pad, spread = layer.stride, layer.padding, layer.dilation
        extra = F.conv2d(x, kernel, None, step, pad, spread, layer.groups)
        return output + extra.to(output.dtype)

    return hook


@contextmanager
def adding(layers: Mapping[str, Layer], added: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the block, `layers[name](x)` returns its own output plus `added[name]`.

    `added[name]` is (N, P, d_out). Where x has more rows than N, the last N get it: the first are
    the empty prompts of classifier-free guidance. ValueError where a name is no layer's.
    """
    _check_known(added, layers)

    def hook_of(extra: Tensor) -> Callable[..., Tensor]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            own = len(output) - len(extra)
            return torch.cat([output[:own], output[own:] + extra.to(output)])

        return hook

    handles = [layers[name].register_forward_hook(hook_of(extra)) for name, extra in added.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def fold_into(
    layers: Mapping[str, Layer], pristine: Mapping[str, Tensor], dense: Mapping[str, Tensor]
) -> None:
    """Write `W_init + dW` into every layer's weight; `W_init` alone where `dense` has no entry.

    `pristine` holds `W_init` of every layer, `dense` some `dW` (d_out, d_in), where d_in of a
    convolution is channels x height x width. The sum
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
            wanted = layer.weight.shape if what == "W_init" else layer.weight.flatten(1).shape
            if matrix is not None and matrix.shape != wanted:
                raise ValueError(
                    f"{what} of the layer {name!r} has the shape {tuple(matrix.shape)}, "
                    f"but the weight has {tuple(wanted)}"
                )
    for name, layer in layers.items():
        weight = layer.weight
        if name in dense:
            W_init = pristine[name].to(weight.device, torch.float32)
            weight.copy_(W_init + dense[name].to(weight.device, torch.float32).view_as(W_init))
        else:
            weight.copy_(pristine[name])


def _check_known(names: Collection[str], layers: Collection[str]) -> None:
    unknown = sorted(set(names) - set(layers))
    if unknown:
        raise ValueError(
            f"no layer is named {unknown[0]!r} ({len(unknown)} unknown of {len(names)}): "
            "these deltas belong to other target layers"
        )
