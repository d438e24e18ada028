"""All weights of a model as one vector: fp32 masters, a bf16 copy that computes, one average.

Small modules make thousands of small kernels of casts and optimiser steps; here each is one.
Matrices inside blocks are trained by Muon (Jordan et al. 2024, in PyTorch), all else by AdamW.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import Muon

__all__ = ["Flat"]

_HIDDEN = (
    *("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    *("net.0.proj", "net.2", "q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
)
_MOMENTUM = 0.95


def _by_muon(name: str) -> bool:
    """Is it a matrix inside a block? Not embeddings, modulations, what projects in or out."""
    return name.endswith(tuple(f".{part}.weight" for part in _HIDDEN))


class Flat:
    """The parameters of ``model`` become views of one vector in ``dtype``; masters stay in fp32.

    ``master``, ``average``, ``first`` and ``second`` are fp32 vectors: the weights, their average,
    AdamW's moments (of what Muon trains ``first`` is its momentum, ``second`` stays zero).
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self.named = dict(sorted(model.named_parameters(), key=lambda one: not _by_muon(one[0])))
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
        self.hidden = [nn.Parameter(view) for name, view in self._views(self.master)]
        self.muon = Muon(self.hidden, momentum=_MOMENTUM, adjust_lr_fn="match_rms_adamw")
        for parameter, (_, view) in zip(self.hidden, self._views(self.first), strict=True):
            self.muon.state[parameter]["momentum_buffer"] = view
        self.rest = sum(parameter.numel() for parameter in self.hidden)

    def _views(self, vector: Tensor) -> list[tuple[str, Tensor]]:
        """Names and views of what Muon trains."""
        every = zip(self.named, self.split(vector), strict=True)
        return [(name, view) for name, view in every if _by_muon(name)]

    def split(self, vector: Tensor) -> Iterator[Tensor]:
        """Views of a vector in the shapes of the parameters, in their order."""
        parts = vector.split([p.numel() for p in self.named.values()])
        for part, parameter in zip(parts, self.named.values(), strict=True):
            yield part.view(parameter.shape)

    @torch.no_grad()
    def step(self, step: int, *, rate: float, decay: float, momentum: float, clip: float) -> Tensor:
        """One step on a gradient of norm ``clip`` at most; returns the norm.

        Muon's momentum is 0.95, its update as large as AdamW's; AdamW's betas are 0.9 and 0.99.

        The gradient is zero afterwards, and ``average`` has moved towards the masters.
        """
        gradient = self.gradient.float()
        norm = gradient.norm()
        gradient.mul_((clip / (norm + 1e-6)).clamp(max=1.0))
        torch._fused_adamw_(
            [self.master[self.rest :]],
            [gradient[self.rest :]],
            [self.first[self.rest :]],
            [self.second[self.rest :]],
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
        self.muon.param_groups[0] |= {"lr": rate, "weight_decay": decay}
        for parameter, (_, view) in zip(self.hidden, self._views(gradient), strict=True):
            parameter.grad = view
        self.muon.step()
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
