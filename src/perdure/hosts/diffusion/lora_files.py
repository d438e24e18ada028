"""A LoRA by the modules of a denoiser, as it is written for other programs.

`up` is (d_out, r) and `down` (r, d_in), and a module's change is `up @ down`: what a file scales by
alpha is scaled here already. Of a convolution d_in is channels x height x width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perdure.errors import PerdureError
from perdure.hosts.frozen import Layer

if TYPE_CHECKING:
    from perdure.hosts.diffusion.host import Base

__all__ = ["Modules", "Named", "as_stored", "by_module", "check_loads", "kohya"]

Modules = Mapping[str, tuple[Tensor, Tensor]]
"""Module of the denoiser -> (up, down)."""


@dataclass(frozen=True)
class Named:
    """What another program calls a module, and where in a fused one it stands."""

    name: str
    start: int = 0
    """Its first row."""
    whole: int | None = None
    """Rows of the fused one; None where nothing is fused."""


def by_module(base: Base, layers: Mapping[str, Layer], pairs: Modules) -> Modules:
    """Of pairs by target layer those by module: the slices of a fused module stand in their rows of
    it, and its rank is the sum of theirs."""
    paths = {id(module): path for path, module in base.denoiser.named_modules()}
    parts: dict[str, list[tuple[Named, Tensor, Tensor]]] = {}
    for name, (up, down) in pairs.items():
        layer = layers[name]
        path = paths[id(layer.module)]
        rows = layer.rows
        whole = None if rows is None else len(layer.module.weight)
        named = Named(path, 0 if rows is None else int(rows.start or 0), whole)
        parts.setdefault(path, []).append((named, up, down))
    return {path: _stacked(of) for path, of in parts.items()}


def kohya(base: Base, modules: Modules) -> dict[str, Tensor]:
    """A file's tensors by the names of kohya's trainers, alpha the rank, which is a scale of 1."""
    parts: dict[str, list[tuple[Named, Tensor, Tensor]]] = {}
    kernels: dict[str, nn.Module] = {}
    for path, (up, down) in modules.items():
        named = base.family.kohya(base.pipeline, path)
        if named is None:
            raise PerdureError(
                f"There are no names of kohya's for {path} of {base.family.title} that the stock "
                "loader reads: choose --format peft."
            )
        parts.setdefault(named.name, []).append((named, up, down))
        kernels[named.name] = base.denoiser.get_submodule(path)
    pairs = {name: _stacked(of) for name, of in parts.items()}
    rank = max(len(down) for _, down in pairs.values())
    tensors: dict[str, Tensor] = {}
    for name, (up, down) in pairs.items():
        more = rank - len(down)  # diffusers 0.42 reads one alpha of a U-Net's file, and no more
        up, down = F.pad(up, (0, more)), F.pad(down, (0, 0, 0, more))
        up, down = _shaped(kernels[name], up, down)
        tensors |= {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}
        tensors[f"{name}.alpha"] = torch.tensor(float(rank))
    return tensors


def as_stored(base: Base, modules: Modules) -> dict[str, Tensor]:
    """`<module>.lora_A.weight` and `.lora_B.weight`, PEFT's names; of a convolution kernels."""
    tensors: dict[str, Tensor] = {}
    for path, (up, down) in modules.items():
        up, down = _shaped(base.denoiser.get_submodule(path), up, down)
        tensors |= {f"{path}.lora_A.weight": down, f"{path}.lora_B.weight": up}
    return tensors


def _shaped(module: nn.Module, up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(module, nn.Conv2d):
        if module.groups > 1:
            raise PerdureError(
                "A LoRA has no form for a convolution in groups, which this base has among its "
                "target layers: choose --format diffusers."
            )
        down = down.view(len(down), *module.weight.shape[1:])
        up = up[:, :, None, None]
    return up.contiguous(), down.contiguous()


def _stacked(parts: Iterable[tuple[Named, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """One pair whose product holds each part's in its rows."""
    ups, downs = [], []
    for named, up, down in parts:
        if named.whole is not None:
            padded = up.new_zeros(named.whole, up.shape[1])
            padded[named.start : named.start + len(up)] = up
            up = padded
        ups.append(up)
        downs.append(down)
    return torch.cat(ups, dim=1), torch.cat(downs, dim=0)


def check_loads(base: Base) -> None:
    """PerdureError where the stock pipeline loads no LoRA."""
    pipeline = type(base.pipeline)
    if not hasattr(pipeline, "load_lora_weights"):
        raise PerdureError(
            f"{pipeline.__name__} of diffusers loads no LoRA, so none can be checked for "
            f"{base.family.title}: export the folded folder with --format diffusers."
        )
