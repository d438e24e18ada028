"""CIDM: concept-incremental customisation, weighed by the prompt (arXiv 2410.17594).

R1  = sum_{i<g} sum_l | A_i (A_g)^T |
R2  = sum_{i<=g} sum_l || dW_i - H_i W_* ||_F^2,   H, W_* and the rest in turn
L   = L_diff + gamma_1 R1 + gamma_2 R2
dW^ = sum_i psi(m)_i dW_i,   m_i = max over the prompt's states c of <c, e^_i>

A is our A (d_out, r) of `dW = A B`: the released code takes the product of its `lora_up`s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perdure.adapters.delta import LowRank, low_rank_sum, without_autocast
from perdure.adapters.prompts import Prompts
from perdure.methods.protocol import (
    Deltas,
    Kept,
    Learner,
    Method,
    Moments,
    Shapes,
    keep_encoded,
    keep_factors,
    low_rank_deltas,
)
from perdure.settings import Count, NotNegative

Form = Literal["paper", "code"]

SCALE = 0.8
"""Of what the released code adds to a layer's output."""


class AbsoluteProducts(torch.autograd.Function):
    """`sum_i | A_i A^T |` over entries, of `past` (n, d_out, r) and A (d_out, r).

    One task at a time and its gradient `sum_i sign(A_i A^T)^T A_i` at once, so that memory does
    not grow with n. Time does: no summary of bounded size gives a sum of absolute values of n
    different linear forms.
    """

    @staticmethod
    def forward(ctx: Any, A: Tensor, past: Tensor) -> Tensor:
        total, gradient = A.new_zeros(()), torch.zeros_like(A)
        for A_i in past:
            product = A_i @ A.T
            total = total + product.abs().sum()
            gradient = gradient + product.sign().T @ A_i
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return outer * gradient, None


class Shared(nn.Module):
    """One layer's `H_g` and `W_*`, and what R2 needs of the past: `G = sum_{i<g} dW_i^T dW_i`.

    The rows of W_* (k, d_in) are orthonormal, which costs nothing because H is free. Then the best
    `H_i` is `dW_i W_*^T`, and the best W_* for these H spans the rows of
    `W_* sum_{i<=g} dW_i^T dW_i`: one sweep of the alternation, at a cost that does not know how
    many tasks there were.
    """

    def __init__(self, G: Tensor, W: Tensor, d_out: int) -> None:
        super().__init__()
        self.W = nn.Parameter(W, requires_grad=False)  # of the checkpoint, not of the optimiser
        self.G: Tensor
        self.H: Tensor
        self.past: Tensor
        self.register_buffer("G", G, persistent=False)
        self.register_buffer("H", torch.zeros(d_out, len(W)), persistent=False)
        self.register_buffer("past", self._of_past(), persistent=False)

    def _of_past(self) -> Tensor:
        """`sum_{i<g} || dW_i - H_i W_* ||_F^2` at the best `H_i`."""
        return self.G.diagonal().sum() - ((self.W @ self.G) * self.W).sum()

    @torch.no_grad()
    def alternate(self, delta: LowRank) -> None:
        """Fix the deltas: W_* for the present H, then H for that W_*. R2 never rises."""
        with without_autocast(self.W):
            A, B = delta.A, delta.B
            sums = self.W @ self.G + (((self.W @ B.T) @ A.T) @ A) @ B
            # The little of W_* keeps it where nothing has been learned yet.
            basis = torch.linalg.qr((sums + 1e-12 * self.W).T).Q
            self.W.copy_(basis.T)
            self.H = A @ (B @ self.W.T)
            self.past = self._of_past()

    def forward(self, delta: LowRank) -> Tensor:
        """R2 of this layer, for fixed H and W_*."""
        with without_autocast(self.W):
            return (delta.dense() - self.H @ self.W).square().sum() + self.past


class CIDMLearner(Learner):
    """A fresh `A_g B_g` a layer, the past's A for R1, and H and W_* for R2."""

    def __init__(
        self,
        deltas: Mapping[str, LowRank],
        rows: Mapping[str, Tensor],
        past: Mapping[str, Tensor],
        shared: Sequence[Shared],
        config: "CIDM.Config",
    ) -> None:
        super().__init__(deltas, rows)
        self.config = config
        self.shared = nn.ModuleList(shared)
        self.encoded: dict[str, Tensor] = {}
        for index, layer in enumerate(self.layers):
            self.register_buffer(f"past_{index}", past.get(layer), persistent=False)

    def begin_step(self, generator: torch.Generator) -> None:
        """One sweep of R2's alternation; the optimiser's step is its other half."""
        for shared, delta in self._shared():
            shared.alternate(delta)

    def see(self, prompts: Prompts) -> None:
        self.encoded = prompts.encoded()

    def groups(self) -> dict[str, list[nn.Parameter]]:
        groups = super().groups()
        return {**groups, "deltas": [*groups["deltas"], *self.shared.parameters()]}

    def specific(self) -> Tensor:
        """R1: of entries, layers and tasks the sum (paper), or the mean (code)."""
        total = super().penalty()
        for index, delta in enumerate(self._low_rank()):
            past = getattr(self, f"past_{index}")
            if past is not None:
                with without_autocast(delta.A):
                    R1 = AbsoluteProducts.apply(delta.A, past)
                mean = len(self.layers) * len(past) * len(delta.A) ** 2
                total = total + (R1 / mean if self.config.orthogonality == "code" else R1)
        return total

    def common(self) -> Tensor:
        """R2, for the H and W_* that the step began with."""
        total = super().penalty()
        for shared, delta in self._shared():
            total = total + shared(delta)
        return total

    def penalty(self) -> Tensor:
        """`gamma_1 R1 + gamma_2 R2`."""
        total = super().penalty()
        if self.config.gamma1:
            total = total + self.config.gamma1 * self.specific()
        if self.config.gamma2:
            total = total + self.config.gamma2 * self.common()
        return total

    def _low_rank(self) -> list[LowRank]:
        return [delta for delta in self._deltas if isinstance(delta, LowRank)]

    def _shared(self) -> list[tuple[Shared, LowRank]]:
        """Nothing where R2 is switched off."""
        shared = [one for one in self.shared if isinstance(one, Shared)]
        return list(zip(shared, self._low_rank(), strict=True)) if shared else []


class CIDM(Method):
    name = "cidm"
    title = "CIDM: orthogonal adapters, drawn by how much the prompt is like each concept"
    paper = "Dong et al., NeurIPS 2024, arXiv 2410.17594"
    targets = "cross-attention"
    mixes_by = "prompt"

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        rank: Count = 4
        """Rank of every `A_g B_g` [paper]."""
        gamma1: NotNegative = 0.1
        """Weight of R1 [paper]; 0 switches it off."""
        gamma2: NotNegative = 1.0
        """Weight of R2 [paper]; 0 switches it off, as in the released code."""
        shared: Count = 4
        """k, the rows of every W_* [ours]; with k below the row space of all tasks R2 has
        something to say."""
        orthogonality: Form = "paper"
        """R1 as the sum over entries, layers and tasks (`paper`) or as their mean (`code`)."""
        layerwise_tokens: bool = True
        """One row of the token for every cross-attention layer [paper], or one for all."""
        aggregation: Form = "code"
        """`paper`: inner products, `m^2 / ||m||`. `code`: cosines, their 4th power made to sum to
        one, times 0.8."""

    config: Config

    def __init__(self, config: Method.Config | None = None) -> None:
        super().__init__(config)
        self.layerwise = self.config.layerwise_tokens

    def start(
        self,
        shapes: Shapes,
        past: Sequence[Kept],
        rows: Mapping[str, Tensor],
        generator: torch.Generator,
        *,
        moments: Moments | None = None,
    ) -> Learner:
        config = self.config
        if not rows:
            raise ValueError(
                "cidm weighs its tasks by the words of a prompt, and this task has no token"
            )
        deltas = low_rank_deltas(shapes, config.rank, generator)
        factors = [task.factors() for task in past]
        past_A = {
            layer: torch.stack([f[layer]["A"].float() for f in factors])
            for layer in shapes
            if past and config.gamma1
        }
        shared = []
        for layer, (d_out, d_in) in shapes.items() if config.gamma2 else ():
            G = torch.zeros(d_in, d_in)
            for f in factors:
                of_A, of_B = f[layer]["A"].float(), f[layer]["B"].float()
                G += of_B.T @ (of_A.T @ of_A) @ of_B
            shared.append(Shared(G, leading_rows(G, config.shared, generator), d_out))
        return CIDMLearner(deltas, rows, past_A, shared, config)

    def needs_prompt_layers(self) -> str:
        if self.layerwise:
            return "no layer has a row of the token of its own: set layerwise_tokens=false"
        return ""

    def past(self, kept: Sequence[Kept]) -> Deltas:
        return {}  # every task trains on the untouched base

    def keep(self, learner: Learner) -> dict[str, Tensor]:
        assert isinstance(learner, CIDMLearner)
        return {**keep_factors(learner), **keep_encoded(learner.encoded)}

    def mix(
        self, kept: Sequence[Kept], spoken: Sequence[str], states: Tensor | None = None
    ) -> Deltas:
        if not kept:
            return {}
        if states is None:
            raise ValueError("cidm weighs its tasks by the prompt: pass the states of its words")
        m = relevance([list(task.encoded().values()) for task in kept], states.cpu(), self.config)
        w = psi(m, self.config.aggregation)
        return weighted(kept, SCALE * w if self.config.aggregation == "code" else w)


def leading_rows(G: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """A start for W_* (k, d_in): where the past's deltas have most of their rows, else random."""
    k = min(k, len(G))
    if not G.any():
        return torch.linalg.qr(torch.randn(len(G), k, generator=generator)).Q.T.contiguous()
    return torch.linalg.eigh(G).eigenvectors[:, -k:].flip(1).T.contiguous()


def relevance(encoded: Sequence[Sequence[Tensor]], states: Tensor, config: CIDM.Config) -> Tensor:
    """m (tasks,) for a prompt's states (P, d), of every task's encoded concepts.

    `paper`: `max_p <c_p, e^_i>`, e^_i the mean of the task's encoded tokens. `code`: the mean over
    its tokens e of `max_p cos(c_p, e)`.
    """
    if config.aggregation == "paper":
        means = torch.stack([torch.stack(list(of)).mean(dim=0) for of in encoded])
        return (means @ states.T).amax(dim=1)
    unit = F.normalize(states, dim=-1)
    return torch.stack(
        [(F.normalize(torch.stack(list(of)), dim=-1) @ unit.T).amax(dim=1).mean() for of in encoded]
    )


def psi(m: Tensor, form: Form) -> Tensor:
    """`m^2 / ||m||_F` (paper), or `m^4 / sum m^4` (code), over the last axis; 0 where m is."""
    if form == "paper":
        return m.square() / m.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return F.normalize(m.pow(4), p=1, dim=-1)


def weighted(kept: Sequence[Kept], w: Tensor) -> Deltas:
    """`sum_i w_i A_i B_i` by layer, fp32, of weights w (tasks,)."""
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for task, w_i in zip(kept, w, strict=True):
        for layer, factors in task.factors().items():
            pairs.setdefault(layer, []).append((w_i * factors["A"], factors["B"]))
    return {layer: low_rank_sum(of_layer) for layer, of_layer in pairs.items()}
