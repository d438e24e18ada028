"""A low-rank delta under a learned binary mask, and the mask's bits on disk."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perdure.adapters.delta import Delta, LowRank, without_autocast

__all__ = ["MaskedLowRank", "masked_product", "pack_bits", "straight_through", "unpack_bits"]


def straight_through(logits: Tensor, noise: Tensor | None, tau: float) -> Tensor:
    """`1[logits + noise > 0]`, exactly 0 or 1, with the gradient of `sigmoid(logits / tau)`."""
    mask: Tensor = _StraightThrough.apply(logits, noise, tau)
    return mask


class _StraightThrough(torch.autograd.Function):
    """Its graph holds the logits alone; the sigmoid is taken on the way back."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, noise: Tensor | None, tau: float) -> Tensor:
        ctx.save_for_backward(logits)
        ctx.tau = tau
        return ((logits if noise is None else logits + noise) > 0).to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (logits,) = ctx.saved_tensors
        soft = torch.sigmoid(logits / ctx.tau)
        return torch.ops.aten.sigmoid_backward(gradients[0], soft).div_(ctx.tau), None, None


class LowRankLogits(nn.Module):
    """`U V^T / sqrt(k) + b` (d_out, d_in), with `U = mlp_u(e_u)` and `V = mlp_v(e_v)`.

    `e_u` (d_out, hidden) and `e_v` (d_in, hidden) are trained, an MLP is linear, ReLU, linear. At
    the start the entries of U and V have mean 0 and variance 1, so a logit is `b` give or take 1.
    """

    def __init__(
        self,
        d_out: int,
        d_in: int,
        *,
        mask_rank: int,
        hidden: int,
        bias: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()

        def normal(rows: int, columns: int, deviation: float) -> nn.Parameter:
            values = torch.empty(rows, columns, dtype=torch.float32)
            return nn.Parameter(values.normal_(0.0, deviation, generator=generator))

        he, plain = (2 / hidden) ** 0.5, (1 / hidden) ** 0.5
        self.e_u, self.e_v = normal(d_out, hidden, 1.0), normal(d_in, hidden, 1.0)
        self.u_in, self.u_out = normal(hidden, hidden, he), normal(mask_rank, hidden, plain)
        self.v_in, self.v_out = normal(hidden, hidden, he), normal(mask_rank, hidden, plain)
        self.b = nn.Parameter(torch.tensor(float(bias)))

    def forward(self) -> Tensor:
        U = F.linear(F.relu(F.linear(self.e_u, self.u_in)), self.u_out)
        V = F.linear(F.relu(F.linear(self.e_v, self.v_in)), self.v_out)
        return torch.addmm(self.b, U / math.sqrt(U.shape[1]), V.T)


class MaskedLowRank(Delta):
    """`dW = (A @ B) (.) M`: A and B as in `LowRank`, M (d_out, d_in) of zeros and ones.

    `M = 1[logits + g > 0]`. The noise g is what `draw` last drew; there is none before the first
    draw nor in evaluation mode, and `factors` never has any.
    """

    def __init__(
        self,
        d_out: int,
        d_in: int,
        rank: int,
        *,
        mask_rank: int,
        hidden: int,
        bias: float,
        tau: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.factored = LowRank(d_out, d_in, rank, generator=generator)
        self.mask_logits = LowRankLogits(
            d_out, d_in, mask_rank=mask_rank, hidden=hidden, bias=bias, generator=generator
        )
        self.tau = tau
        self.noise: Tensor | None
        self.register_buffer("noise", None, persistent=False)

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """Fresh noise, the difference of two Gumbel variables: logistic, `log u - log(1 - u)`.

        One number is taken from the CPU `generator`; it seeds the noise on the parameters' own
        device, so that a large layer's noise is not made on the CPU and sent over every step.
        """
        A = self.factored.A
        seed = int(torch.randint(2**62, (), generator=generator))
        own = torch.Generator(A.device).manual_seed(seed)
        shape = (A.shape[0], self.factored.B.shape[1])
        u = torch.rand(shape, generator=own, device=A.device, dtype=torch.float32)
        self.noise = torch.logit(u, eps=1e-7)

    def logits(self) -> Tensor:
        """The mask's logits (d_out, d_in), fp32, differentiable."""
        with without_autocast(self.factored.A):
            logits: Tensor = self.mask_logits()
            return logits

    def mask(self, logits: Tensor | None = None) -> Tensor:
        """M (d_out, d_in), exactly zeros and ones, with its straight-through gradient; by
        ``logits`` where they are known."""
        noise = self.noise if self.training else None
        return straight_through(self.logits() if logits is None else logits, noise, self.tau)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.dense().to(x.dtype))

    def dense(self, logits: Tensor | None = None) -> Tensor:
        """`dW` (d_out, d_in), fp32, differentiable; by ``logits`` where they are known."""
        return self.factored.dense() * self.mask(logits)

    @torch.no_grad()
    def factors(self) -> dict[str, Tensor]:
        """`A`, `B` and `mask`: the bits of the mask without noise (see `pack_bits`)."""
        return {**self.factored.factors(), "mask": pack_bits(self.logits() > 0)}


@torch.no_grad()
def masked_product(A: Tensor, B: Tensor, mask: Tensor) -> Tensor:
    """`(A @ B) (.) M` (d_out, d_in), fp32, of A (d_out, r), B (r, d_in) and M's packed bits."""
    M = unpack_bits(mask, (A.shape[0], B.shape[1]))
    with without_autocast(A):
        return (A.float() @ B.float()) * M


def pack_bits(mask: Tensor) -> Tensor:
    """Eight entries a byte, the first in the lowest bit: any shape -> (ceil(entries / 8),) uint8.

    >>> pack_bits(torch.tensor([[True, False], [True, True]])).tolist()
    [13]
    """
    flat = mask.reshape(-1).to(torch.uint8)
    flat = F.pad(flat, (0, -flat.numel() % 8)).view(-1, 8)
    places = torch.arange(8, dtype=torch.uint8, device=mask.device)
    return (flat << places).sum(dim=1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The mask of this shape that was packed, bool; ValueError where the number of bytes differs.

    >>> unpack_bits(torch.tensor([13], dtype=torch.uint8), (2, 2)).tolist()
    [[True, False], [True, True]]
    """
    entries = math.prod(shape)
    if packed.dtype != torch.uint8 or packed.shape != (-(-entries // 8),):
        raise ValueError(
            f"the packed mask is {tuple(packed.shape)} of {packed.dtype}, but a mask of the shape "
            f"{shape} has ({-(-entries // 8)},) of torch.uint8: it belongs to another layer"
        )
    places = torch.arange(8, dtype=torch.uint8, device=packed.device)
    bits = (packed[:, None] >> places) & 1
    return bits.reshape(-1)[:entries].view(shape).bool()
