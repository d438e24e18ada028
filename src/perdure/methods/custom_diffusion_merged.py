"""Custom Diffusion, merged: keys and values tuned a concept at a time, joined in closed form.

min ||(W - W_0) C_reg^T||_F  subject to  W C^T = V           (arXiv 2212.04488, section 3.2)
W = W_0 + (V - W_0 C^T) (D C^T)^-1 D,   D = C (C_reg^T C_reg)^-1

The rows of C are text features of the concepts, those of V what the tuned layers make of them.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from perdure.adapters.delta import FullRank
from perdure.adapters.prompts import Prompts
from perdure.methods.apart import Apart
from perdure.methods.protocol import (
    SHARED,
    Deltas,
    Kept,
    Learner,
    Moments,
    Shapes,
    checked_moments,
    full_rank_deltas,
)

RIDGE = 1e-6
"""Added to C_reg^T C_reg, as a share of its largest eigenvalue: a direction that no caption has
costs a little, too, and rounding cannot make it free."""
ALIKE = 1e-6
"""Eigenvalues of the unit features' Gram matrix below this share of the largest count as zero."""


class MergedLearner(Learner):
    """A dense `dW` a layer, and after `see` the equations that the merged weights must meet."""

    sees_tokens_alone = True

    def __init__(
        self, deltas: Mapping[str, FullRank], rows: Mapping[str, Tensor], G: Tensor
    ) -> None:
        super().__init__(deltas, rows)
        values, vectors = torch.linalg.eigh(G.double())
        values = values.clamp(min=0) + RIDGE * values[-1]
        self.R = vectors @ (values.rsqrt()[:, None] * vectors.T)
        self.equations: dict[str, Tensor] = {}

    @torch.no_grad()
    def see(self, prompts: Prompts) -> None:
        """Features from each concept's token up to the end token, and the deltas' answers to them.

        Of a feature c, with `R = (C_reg^T C_reg)^-1/2`: `u = R c`, scaled to length 1; its dual
        `R u`, which is c's row of D; the answer `dW c`, scaled alike. The products of all u with
        each other are `D C^T`.
        """
        c = torch.cat(
            [
                states[spoken[0][1] : end + 1]
                for states, spoken, end in zip(
                    prompts.states, prompts.spoken, prompts.ends, strict=True
                )
                if spoken
            ]
        )
        c = c.to("cpu", torch.float64)
        u = c @ self.R
        length = u.norm(dim=1, keepdim=True)
        u, c = u / length, c / length
        self.equations = {f"{SHARED}/features": u, f"{SHARED}/duals": u @ self.R}
        for layer, delta in self.layer_deltas().items():
            self.equations[f"{layer}/answers"] = delta.dense().to("cpu", torch.float64) @ c.T


class CustomDiffusionMerged(Apart):
    name = "custom-diffusion-merged"
    title = "Custom Diffusion, merged: keys and values tuned a concept at a time, joined by algebra"
    paper = "Kumari et al., CVPR 2023, arXiv 2212.04488"
    needs_moments = True
    moments_of_past = False

    def start(
        self,
        shapes: Shapes,
        past: Sequence[Kept],
        rows: Mapping[str, Tensor],
        generator: torch.Generator,
        *,
        moments: Moments | None = None,
    ) -> Learner:
        if not rows:
            raise ValueError(
                "custom-diffusion-merged joins tasks by the text features of their tokens, and "
                "this task has no token"
            )
        deltas = full_rank_deltas(shapes)
        of_captions = list(checked_moments(self.name, shapes, moments).values())
        if any(C is not of_captions[0] for C in of_captions):
            raise ValueError(
                f"{self.name} solves one equation for all layers, so all of them must read the "
                "same features, and here they do not"
            )
        return MergedLearner(deltas, rows, of_captions[0])

    def keep(self, learner: Learner) -> dict[str, Tensor]:
        """Features and duals (s, d_in), answers (d_out, s) a layer; the dense `dW` stays behind."""
        assert isinstance(learner, MergedLearner)
        if not learner.equations:
            raise ValueError(f"{self.name}: the learner has not seen its prompts: call see first")
        return {key: t.float().contiguous() for key, t in learner.equations.items()}

    def mix(
        self, kept: Sequence[Kept], spoken: Sequence[str], states: Tensor | None = None
    ) -> Deltas:
        tasks = [task.factors() for task in kept]
        if not tasks:
            return {}
        u = torch.cat([task[SHARED]["features"] for task in tasks]).double()
        D = torch.cat([task[SHARED]["duals"] for task in tasks]).double()
        solved = torch.linalg.pinv(u @ u.T, rtol=ALIKE, hermitian=True) @ D
        return {
            layer: (torch.cat([t[layer]["answers"] for t in tasks], 1).double() @ solved).float()
            for layer in tasks[0]
            if layer != SHARED
        }
