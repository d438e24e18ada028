"""What is frozen, in both domains: named target layers, `W_init`, folding, and deltas run live."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from perdure import precision
from perdure.adapters.delta import Delta
from perdure.adapters.prompts import PromptDelta, outputs
from perdure.errors import PerdureError

__all__ = ["Frozen", "Layer", "Reads", "acting", "adding", "attached", "fold_into"]

_ALL = slice(None)

Reads = Literal["prompt", "text", "joined", "picture"]
"""What a layer's inputs are: the encoders' states as they are, the text stream at that depth, text
and picture in one sequence, or positions of the picture alone."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A target layer: a linear layer or a convolution, or some of the rows of a fused one."""

    module: nn.Linear | nn.Conv2d
    reads: Reads = "picture"
    rows: slice | None = None
    """Its rows (start, stop) of the module's weight; None is all of them."""

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in); of a convolution d_in is channels x height x width."""
        if isinstance(self.module, nn.Conv2d):
            return len(self.module.weight), self.module.weight[0].numel()
        d_out = self.module.out_features
        return len(range(d_out)[self.rows or _ALL]), self.module.in_features

    @property
    def quantised(self) -> bool:
        """Are its weights held as something else than numbers that can be added to?"""
        return type(self.module.weight) is not nn.Parameter

    @property
    def weight(self) -> Tensor:
        """(d_out, d_in), of a convolution (d_out, channels, height, width); the module's memory."""
        weight: Tensor = self.module.weight.detach()
        return weight if self.rows is None else weight[self.rows]

    def output(self, delta: Delta, x: Tensor) -> Tensor:
        """What the delta makes of x; a convolution's delta convolves x with `dW`."""
        if isinstance(self.module, nn.Linear):
            return delta(x)
        conv = self.module
        kernel = delta.dense().view_as(self.weight).to(x.dtype)
        return F.conv2d(x, kernel, None, conv.stride, conv.padding, conv.dilation, conv.groups)

    def plus(self, output: Tensor, extra: Tensor) -> Tensor:
        """The module's output with ``extra`` added in this layer's rows."""
        if self.rows is None:
            return output + extra.to(output.dtype)
        whole = _own(output)
        whole[..., self.rows] += extra.to(output.dtype)
        return whole

    def plus_at(self, output: Tensor, extra: Tensor, positions: slice, n: slice = _ALL) -> Tensor:
        """The same at some positions of some rows of a batch (N, positions, d_out)."""
        whole = _own(output)
        whole[n, positions, self.rows or _ALL] += extra.to(output.dtype)
        return whole


def _own(output: Tensor) -> Tensor:
    """An output that may be changed: a copy where there is a graph, else the module's own, which
    nobody else has yet; of a wide fused layer a copy takes as long as the layer's share."""
    return output.clone() if torch.is_grad_enabled() else output


class Frozen(ABC):
    """A model whose weights change only through `fold`, always from `W_init`.

    Into quantised weights nothing is folded: there the sum of all deltas runs live, as one matrix.
    """

    device: torch.device
    text: slice = slice(None)
    """Where, in the pass that runs, the prompts are in a sequence of text and picture."""

    def __init__(self) -> None:
        self.layers: Mapping[str, Layer] = {}
        self._pristine: Mapping[str, Tensor] | None = None
        self._live: list[RemovableHandle] = []

    @abstractmethod
    def named(self, targets: str) -> Mapping[str, Layer]:
        """Name -> layer of a set of target layers, in the model's own order."""

    def aim(self, targets: str) -> None:
        """Make one of the sets the target layers; their weights are `W_init` again."""
        self.fold({})
        self.layers = self.named(targets)

    @property
    def pristine(self) -> Mapping[str, Tensor]:
        """`W_init` of every target layer but quantised ones; the weights themselves while nothing
        is folded."""
        held = self._held()
        return {n: w.weight for n, w in held.items()} if self._pristine is None else self._pristine

    @torch.no_grad()
    def norm(self, layers: Iterable[str]) -> float | None:
        """The Frobenius norm of `W_init` over these target layers; None where one is quantised, or
        there are none."""
        held = [self.pristine.get(name) for name in layers]
        if not held or any(weight is None for weight in held):
            return None
        return math.sqrt(sum(float(w.float().square().sum()) for w in held if w is not None))

    def _held(self) -> dict[str, Layer]:
        return {name: layer for name, layer in self.layers.items() if not layer.quantised}

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Target layer -> (d_out, d_in); of a convolution d_in is channels x height x width."""
        return {name: layer.shape for name, layer in self.layers.items()}

    def fold(self, deltas: Mapping[str, Tensor]) -> None:
        """Make the weights `W_init + dW`; `{}` restores the model to the bit.

        PerdureError where a weight is not in memory.
        """
        _check_known(deltas, self.layers)
        held = self._held()
        changes = deltas or self._pristine is not None
        if changes and any(layer.module.weight.is_meta for layer in held.values()):
            raise PerdureError(
                "The model's weights are offloaded one by one, so that nothing is folded into them "
                "or taken out again: end the offloading first (remove_all_hooks)."
            )
        if deltas and self._pristine is None:
            self._pristine = {name: layer.weight.clone() for name, layer in held.items()}
        if self._pristine is not None:
            own = {name: dW for name, dW in deltas.items() if name in held}
            fold_into(held, self._pristine, own)
        if not deltas:
            self._pristine = None
        for handle in self._live:
            handle.remove()
        self._live = [
            _run_live(self.layers[name], dW) for name, dW in deltas.items() if name not in held
        ]

    def attached(self, deltas: Mapping[str, Delta]) -> AbstractContextManager[None]:
        """A block in which these deltas run live: see `attached`."""
        return attached(self.layers, deltas, lambda: self.text)

    @property
    def fast_bf16(self) -> bool:
        """Is the hardware good at bf16?"""
        return precision.fast_bf16(self.device)

    def autocast(self) -> torch.autocast:
        """bf16 where it is `fast_bf16`, else nothing."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.fast_bf16)


def _run_live(layer: Layer, dW: Tensor) -> RemovableHandle:
    """The layer returns `dW x` more, until the handle is removed."""
    if dW.shape != layer.shape:
        raise ValueError(f"dW has the shape {tuple(dW.shape)}, but the layer {layer.shape}")
    held: dict[torch.dtype, Tensor] = {}

    def hook(
        module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any], output: Tensor
    ) -> Tensor:
        x = args[0] if args else kwargs["input"]
        if x.dtype not in held:
            held.clear()
            held[x.dtype] = dW.to(x)
        return layer.plus(output, F.linear(x, held[x.dtype]))

    return layer.module.register_forward_hook(hook, with_kwargs=True)


def _everywhere() -> slice:
    return slice(None)


def _positions(layer: Layer, text: slice) -> slice:
    """Where the prompt is in what a layer reads; behind it a stream may be padded."""
    if layer.reads == "joined":
        return text
    if layer.reads == "text" and text.stop is not None:
        return slice(0, text.stop - (text.start or 0))
    return _ALL


@contextmanager
def attached(
    layers: Mapping[str, Layer],
    deltas: Mapping[str, Delta],
    text: Callable[[], slice] = _everywhere,
) -> Iterator[None]:
    """Within the block a layer returns its own output plus what its delta makes of its input.

    A delta that is `positional` sees the prompt alone: of a layer that reads text and picture in
    one sequence, the positions that ``text`` says. Layers without a delta are left alone; two
    nested blocks add up. With gradient checkpointing call `backward` inside the block, because it
    runs the layers a second time. ValueError where a delta names no layer.
    """
    _check_known(deltas, layers)

    def hook_of(layer: Layer, delta: Delta) -> Callable[..., Tensor]:
        def hook(
            module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any], output: Tensor
        ) -> Tensor:
            x = args[0] if args else kwargs["input"]
            here = _positions(layer, text()) if delta.positional else _ALL
            if here == _ALL:
                return layer.plus(output, layer.output(delta, x))
            return layer.plus_at(output, layer.output(delta, x[:, here]), here)

        return hook

    handles = [
        layers[name].module.register_forward_hook(hook_of(layers[name], delta), with_kwargs=True)
        for name, delta in deltas.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def adding(
    layers: Mapping[str, Layer], added: Mapping[str, Tensor], rows: Callable[[int], slice]
) -> Iterator[None]:
    """Within the block a layer returns its own output plus ``added`` (N, P, d_out) of its name.

    ``rows`` says, of so many rows of a pass, which N are those of the prompts that it is added for.
    ValueError where a name is no layer's.
    """
    _check_known(added, layers)

    def hook_of(layer: Layer, extra: Tensor) -> Callable[..., Tensor]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            own = rows(len(output))
            if own.start == own.stop:
                return output
            more = layer.plus(output[own], extra)
            return torch.cat([output[: own.start], more, output[own.stop :]])

        return hook

    handles = [
        layers[name].module.register_forward_hook(hook_of(layers[name], extra))
        for name, extra in added.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def acting(
    layers: Mapping[str, Layer],
    deltas: Sequence[PromptDelta],
    rows: Callable[[int], slice],
    text: Callable[[], slice] = _everywhere,
) -> Iterator[None]:
    """Within the block these deltas run live on the text of some rows of a pass.

    For layers whose inputs change from block to block and from step to step, where nothing can be
    computed once a prompt. ``rows`` as in `adding`, ``text`` as in `attached`. No layer is touched
    that no delta has factors for.
    """
    named = {name for delta in deltas for name in delta.factors}
    _check_known(named, layers)

    def hook_of(name: str, layer: Layer) -> Callable[..., Tensor]:
        own = [
            PromptDelta({name: delta.factors[name]}, delta.gate)
            for delta in deltas
            if name in delta.factors
        ]

        def hook(
            module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any], output: Tensor
        ) -> Tensor:
            x, n = args[0] if args else kwargs["input"], rows(len(output))
            if n.start == n.stop:
                return output
            positions = _positions(layer, text())
            return layer.plus_at(output, outputs(own, x[n, positions])[name], positions, n)

        return hook

    handles = [
        layers[name].module.register_forward_hook(hook_of(name, layers[name]), with_kwargs=True)
        for name in sorted(named)
    ]
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
    twice does not add twice, and folding `{}` restores the model to the bit.
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
