"""STAMINA: stacked, masked low-rank adapters and tokens from an MLP (arXiv 2311.18763).

dW_t     = (A_t B_t) (.) M_t,   M_t = 1[U_t V_t^T / sqrt(k) + b + g > 0],   U, V = low-rank MLPs
L_forget = sum_layers || | sum_{t'<t} dW_t' | (.) dW_t ||_F^2
L        = L_diff + lambda * L_forget + mu * mean(sigmoid(logits_t))
v_t      = mlp_tok(1)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perdure.adapters.delta import without_autocast
from perdure.adapters.masked import MaskedLowRank, masked_product, unpack_bits
from perdure.methods.c_lora import CLoRALearner
from perdure.methods.protocol import Deltas, Kept, Learner, Method, Moments, Shapes
from perdure.methods.summed import Summed
from perdure.settings import Count, Limits, NotNegative


class TokenMLP(nn.Module):
    """`v = W_2 relu(W_1 1 + b_1) + b_2`: a token's row from a fixed input of ones.

    `b_2` starts at the given row and `W_2` at zero, so the token starts exactly there.
    """

    def __init__(self, row: Tensor, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.shape = row.shape
        W_1 = torch.empty(hidden, hidden, dtype=torch.float32)
        W_1.normal_(0.0, (2 / hidden) ** 0.5, generator=generator)
        self.W_1 = nn.Parameter(W_1)
        self.b_1 = nn.Parameter(torch.zeros(hidden, dtype=torch.float32))
        self.W_2 = nn.Parameter(torch.zeros(row.numel(), hidden, dtype=torch.float32))
        self.b_2 = nn.Parameter(row.detach().clone().float().reshape(-1))

    def forward(self) -> Tensor:
        """The row, of the shape that was given, fp32."""
        with without_autocast(self.W_1):
            ones = self.W_1.new_ones(self.W_1.shape[1])
            h = F.relu(F.linear(ones, self.W_1, self.b_1))
            return F.linear(h, self.W_2, self.b_2).view(self.shape)


class StaminaLearner(CLoRALearner):
    """A masked `A_t B_t` a layer and an MLP a token; L_forget is C-LoRA's, of the masked deltas."""

    def __init__(
        self,
        deltas: Mapping[str, MaskedLowRank],
        tokens: Mapping[str, TokenMLP],
        past: Deltas,
        *,
        weight: float,
        sparsity: float,
    ) -> None:
        super().__init__(deltas, {}, past, weight)
        self.concepts = tuple(tokens)
        self._tokens = nn.ModuleList(tokens.values())
        self.sparsity = sparsity

    def masked(self) -> list[MaskedLowRank]:
        """The deltas, in the order of the layers."""
        return [delta for delta in self._deltas if isinstance(delta, MaskedLowRank)]

    def begin_step(self, generator: torch.Generator) -> None:
        """Fresh noise for every mask."""
        for delta in self.masked():
            delta.draw(generator)

    def tokens(self) -> dict[str, Tensor]:
        return {name: mlp() for name, mlp in zip(self.concepts, self._tokens, strict=True)}

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {
            "deltas": list(self._deltas.parameters()),
            "tokens": list(self._tokens.parameters()),
        }

    def forgetting(self) -> Tensor:
        """L_forget: C-LoRA's, of the masked deltas."""
        return self._forgetting(self._logits())

    def density(self) -> Tensor:
        """`mean(sigmoid(logits))` over all entries of all layers: the share of ones expected
        under the noise."""
        return self._density(self._logits())

    def penalty(self) -> Tensor:
        """`lambda * L_forget + mu * mean(sigmoid(logits))`."""
        total = Learner.penalty(self)
        if not self.weight and not self.sparsity:
            return total
        logits = self._logits()
        if self.weight:
            total = total + self.weight * self._forgetting(logits)
        if self.sparsity:
            total = total + self.sparsity * self._density(logits)
        return total

    def _logits(self) -> list[Tensor]:
        return [delta.logits() for delta in self.masked()]

    def _forgetting(self, logits: Sequence[Tensor]) -> Tensor:
        total = Learner.penalty(self)
        for index, (delta, own) in enumerate(zip(self.masked(), logits, strict=True)):
            P = getattr(self, f"past_{index}")
            if P is not None:
                total = total + (P * delta.dense(own)).square().sum()
        return total

    def _density(self, logits: Sequence[Tensor]) -> Tensor:
        ones = torch.stack([torch.sigmoid(own).sum() for own in logits]).sum()
        return ones / sum(own.numel() for own in logits)


class Stamina(Summed):
    name = "stamina"
    title = "STAMINA: low-rank deltas under learned hard masks, tokens from an MLP"
    paper = "Smith et al., CVPR Workshops 2024, arXiv 2311.18763"

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        rank: Count = 16
        """Rank of every `A_t B_t` before its mask; C-LoRA's [ours]."""
        penalty: NotNegative = 1e8
        """lambda, which multiplies the *sum* over layers and entries, as in C-LoRA; its value
        there [ours]. 0 switches the term off."""
        sparsity: NotNegative = 0.01
        """mu, which multiplies the mean of sigmoid(logits) over all entries of all layers [ours].
        With 0 nothing asks for a sparse mask."""
        mask_rank: Count = 8
        """k, the rank of the mask's logits before their bias [ours]."""
        hidden: Count = 16
        """Width of the MLPs of mask and token, and of the mask's inputs e_u and e_v [ours]."""
        tau: Annotated[float, Limits(least=1e-6)] = 1.0
        """Temperature of the straight-through gradient, that of sigmoid(logits / tau) [ours]."""
        bias: Annotated[float, Limits(least=-50)] = 0.0
        """Start of b, one trained number a layer; the masks begin near the density
        sigmoid(bias) [ours]."""

    config: Config

    def start(
        self,
        shapes: Shapes,
        past: Sequence[Kept],
        rows: Mapping[str, Tensor],
        generator: torch.Generator,
        *,
        moments: Moments | None = None,
    ) -> Learner:
        if not shapes:
            raise ValueError("there is no target layer to put a low-rank delta on")
        config = self.config
        deltas = {
            layer: MaskedLowRank(
                d_out,
                d_in,
                config.rank,
                mask_rank=config.mask_rank,
                hidden=config.hidden,
                bias=config.bias,
                tau=config.tau,
                generator=generator,
            )
            for layer, (d_out, d_in) in shapes.items()
        }
        tokens = {name: TokenMLP(row, config.hidden, generator) for name, row in rows.items()}
        summed = self.past(past) if config.penalty else {}
        return StaminaLearner(
            deltas, tokens, summed, weight=config.penalty, sparsity=config.sparsity
        )

    def kept_entries(self, factors: Mapping[str, Tensor]) -> tuple[int, int] | None:
        shape = (factors["A"].shape[0], factors["B"].shape[1])
        return int(unpack_bits(factors["mask"], shape).sum()), shape[0] * shape[1]

    def delta(self, factors: Mapping[str, Tensor]) -> Tensor:
        return masked_product(factors["A"], factors["B"], factors["mask"])
