"""Trainable deltas `dW (d_out, d_in)` of one linear layer.

Parameters are fp32 and stay so. `forward` computes in the dtype of its input, or of the autocast
region it runs in; `dense` switches autocast off, so that a penalty on `dW` is always fp32.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """A block in which products on the tensor's device keep the dtype of their factors."""
    device = tensor.device.type
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)


class Delta(nn.Module, ABC):
    """What every delta of a linear layer answers."""

    positional: bool = False
    """Does it act at positions of the prompt, so that it can be shown nothing else?"""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """`x @ dW.T` for x (..., d_in): (..., d_out), computed the cheap way."""

    @abstractmethod
    def dense(self) -> Tensor:
        """`dW` (d_out, d_in), fp32, differentiable."""

    @abstractmethod
    def factors(self) -> dict[str, Tensor]:
        """Detached copies, by name, of the tensors that rebuild `dW`."""

    def weighed_square(self, P: Tensor) -> Tensor:
        """`|| P (.) dW ||_F^2`, fp32, differentiable, of P (d_out, d_in)."""
        return (P * self.dense()).square().sum()

    @torch.no_grad()
    def square(self) -> Tensor:
        """`|| dW ||_F^2`, fp32."""
        return self.dense().square().sum()


class _WeighedSquare(torch.autograd.Function):
    """`|| P (.) A B ||_F^2` whose graph holds no product of the size of P.

    With `G = 2 P^2 (.) A B` its gradients are `G B^T` and `A^T G`.
    """

    @staticmethod
    def forward(ctx: Any, P: Tensor, A: Tensor, B: Tensor) -> Tensor:
        with without_autocast(A):
            weighed = P * (A @ B)
            value = weighed.square().sum()
            G = weighed.mul_(P).mul_(2)
            ctx.save_for_backward(G @ B.T, A.T @ G)
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, Tensor]:
        of_A, of_B = ctx.saved_tensors
        return None, gradients[0] * of_A, gradients[0] * of_B


class LowRank(Delta):
    """`dW = A @ B`: A (d_out, rank) starts at zero, B (rank, d_in) random. No alpha, no scaling.

    B is uniform in +-1/sqrt(d_in), PEFT's convention (`kaiming_uniform_` with a = sqrt(5)).
    A is zero, so training starts at the unchanged layer.
    """

    def __init__(self, d_out: int, d_in: int, rank: int, *, generator: torch.Generator) -> None:
        super().__init__()
        bound = d_in**-0.5
        B = torch.empty(rank, d_in, dtype=torch.float32)
        self.A = nn.Parameter(torch.zeros(d_out, rank, dtype=torch.float32))
        self.B = nn.Parameter(B.uniform_(-bound, bound, generator=generator))

    @torch.no_grad()
    def continue_from(self, A: Tensor, B: Tensor) -> Self:
        """Start from copies of `A` and `B` instead; ValueError where the shapes differ."""
        for name, ours, theirs in (("A", self.A, A), ("B", self.B, B)):
            if ours.shape != theirs.shape:
                raise ValueError(
                    f"{name} has the shape {tuple(theirs.shape)} but this layer and rank need "
                    f"{tuple(ours.shape)}: continue with the same layers and the same rank"
                )
            ours.copy_(theirs)
        return self

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.B.to(x.dtype)), self.A.to(x.dtype))

    def dense(self) -> Tensor:
        with without_autocast(self.A):
            return self.A @ self.B

    def factors(self) -> dict[str, Tensor]:
        return {"A": self.A.detach().clone(), "B": self.B.detach().clone()}

    def weighed_square(self, P: Tensor) -> Tensor:
        value: Tensor = _WeighedSquare.apply(P, self.A, self.B)
        return value

    @torch.no_grad()
    def square(self) -> Tensor:
        """By `tr(A^T A B B^T)`: nothing of the size of `dW`."""
        with without_autocast(self.A):
            return ((self.A.T @ self.A) * (self.B @ self.B.T)).sum().clamp_min(0)


class FullRank(Delta):
    """`dW` itself (d_out, d_in), zero at the start."""

    def __init__(self, d_out: int, d_in: int) -> None:
        super().__init__()
        self.dW = nn.Parameter(torch.zeros(d_out, d_in, dtype=torch.float32))

    @torch.no_grad()
    def continue_from(self, dW: Tensor) -> Self:
        """Start from a copy of `dW` instead; ValueError where the shape differs."""
        if self.dW.shape != dW.shape:
            raise ValueError(
                f"dW has the shape {tuple(dW.shape)} but this layer needs "
                f"{tuple(self.dW.shape)}: continue with the same layers"
            )
        self.dW.copy_(dW)
        return self

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.dW.to(x.dtype))

    def dense(self) -> Tensor:
        return self.dW

    def factors(self) -> dict[str, Tensor]:
        return {"dW": self.dW.detach().clone()}


@torch.no_grad()
def low_rank_sum(pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """`sum_t A_t @ B_t` (d_out, d_in), fp32, of pairs A_t (d_out, r_t), B_t (r_t, d_in).

    At least one pair. One product of the concatenated factors, which is the same sum: memory is
    one `dW` and the factors, never one `dW` a pair.
    """
    A, B = zip(*pairs, strict=True)
    with without_autocast(A[0]):
        return torch.cat([a.float() for a in A], dim=1) @ torch.cat([b.float() for b in B], dim=0)
