"""All weights of a model as one vector: fp32 masters, a bf16 copy that computes, one average.

Small modules make thousands of small kernels of casts and optimiser steps; here each is one.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

__all__ = ["Flat"]


class Flat:
    """The parameters of ``model`` become views of one vector in ``dtype``; masters stay in fp32.

    ``master``, ``average``, ``first`` and ``second`` (AdamW's moments) are fp32 vectors.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self.named = dict(model.named_parameters())
        start = torch.cat([p.detach().reshape(-1) for p in self.named.values()]).float()
        self.master = start.clone()
        self.average = start.clone()
        self.first, self.second = torch.zeros_like(start), torch.zeros_like(start)
        self.computing = start.to(dtype)
        self.gradient = torch.zeros_like(self.computing)
        for parameter, value, gradient in zip(
            self.named.values(), self.split(self.computing), self.split(self.gradient), strict=True
        ):
            parameter.data = value
            parameter.grad = gradient

    def split(self, vector: Tensor) -> Iterator[Tensor]:
        """Views of a vector in the shapes of the parameters, in their order."""
        parts = vector.split([p.numel() for p in self.named.values()])
        for part, parameter in zip(parts, self.named.values(), strict=True):
            yield part.view(parameter.shape)

    @torch.no_grad()
    def step(self, step: int, *, rate: float, decay: float, momentum: float, clip: float) -> Tensor:
        """AdamW (betas 0.9 and 0.99) on a gradient of norm ``clip`` at most; returns the norm.

        The gradient is zero afterwards, and ``average`` has moved towards the masters.
        """
        gradient = self.gradient.float()
        norm = gradient.norm()
        gradient.mul_((clip / (norm + 1e-6)).clamp(max=1.0))
        torch._fused_adamw_(
            [self.master],
            [gradient],
            [self.first],
            [self.second],
            [],
            [torch.tensor(float(step), device=self.master.device)],
            lr=rate,
            beta1=0.9,
            beta2=0.99,
            weight_decay=decay,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )
        self.average.lerp_(self.master, 1 - momentum)
        self.computing.copy_(self.master)
        self.gradient.zero_()
        return norm

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint holds: weights, average and moments by parameter."""
        vectors = {"parameter": self.master, "average": self.average}
        vectors |= {"first": self.first, "second": self.second}
        return {
            f"{kind}/{name}": value
            for kind, vector in vectors.items()
            for name, value in zip(self.named, self.split(vector), strict=True)
        }

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """The reverse of `state`; raises KeyError for a tensor that is missing."""
        for name, view in self.state().items():
            view.copy_(tensors[name])
        self.computing.copy_(self.master)
