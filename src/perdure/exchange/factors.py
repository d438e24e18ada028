"""What a bank adds to the weights, as one pair of factors a layer: exact where it is a sum of low
rank, else cut to a rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perdure.adapters.delta import low_rank_sum
from perdure.bank import Bank
from perdure.errors import PerdureError
from perdure.methods import Kept, Method
from perdure.methods.protocol import Deltas
from perdure.totals import kept_of

__all__ = ["RANK", "Factors", "check_fixed", "factors_of"]

RANK = 64
"""Of what is no sum of low rank, unless another one is asked for."""


@dataclass(frozen=True, kw_only=True)
class Factors:
    """`A (d_out, r) @ B (r, d_in)` by layer, and what they leave out."""

    pairs: Mapping[str, tuple[Tensor, Tensor]]
    error: float
    """`||dW - A B|| / ||dW||`, Frobenius norms over all layers together; 0 where nothing is cut."""

    @property
    def rank(self) -> int:
        """The largest of a layer."""
        return max(len(B) for _, B in self.pairs.values())


def check_fixed(method: Method, concepts: Sequence[str]) -> None:
    """PerdureError where no one set of weights draws what the method does, or none is asked for."""
    if method.mixes_by == "prompt":
        raise PerdureError(
            f"What {method.name} adds depends on the words of each prompt, so no one LoRA holds "
            "it: draw from the bank itself."
        )
    if concepts and method.mixes_by == "bank" and not method.acts_in_prompts:
        raise PerdureError(f"{method.name} folds all concepts into one model: leave --concept out.")
    if not method.trains_weights:
        raise PerdureError(
            f"{method.name} trains no weights, so there is no LoRA: choose --format embeddings."
        )


@torch.no_grad()
def factors_of(
    bank: Bank, method: Method, concepts: Sequence[str], rank: int | None = None
) -> Factors:
    """What is added for these concepts; for all of the bank where the method mixes by the bank.

    A sum of low rank is kept as it is, its ranks side by side, unless ``rank`` is smaller; where
    side by side they pass the matrix's own rank, they are rewritten in that. Anything else is cut
    to ``rank``, `RANK` by default.
    """
    kept = [Kept(concepts=names, tensors=tensors) for names, tensors in bank.kept()]
    sums = method.low_rank(kept, concepts)
    if sums is None:
        whole = _checked(method.mix(kept_of(bank, method), concepts))
        return _cut({layer: _svd(dW) for layer, dW in whole.items()}, rank or RANK)
    side = {
        layer: (torch.cat([A.float() for A, _ in of], 1), torch.cat([B.float() for _, B in of]))
        for layer, of in sums.items()
    }
    _checked({layer: low_rank_sum([pair]) for layer, pair in list(side.items())[:1]})
    most = rank or max(len(B) for _, B in side.values())
    if all(len(B) <= min(most, len(A), B.shape[1]) for A, B in side.values()):
        return Factors(pairs=side, error=0.0)
    made = _cut({layer: _svd_of_pair(A, B) for layer, (A, B) in side.items()}, most)
    return made if rank else Factors(pairs=made.pairs, error=0.0)


def _checked(deltas: Deltas) -> Deltas:
    if not deltas:
        raise PerdureError("These concepts change no weight: choose --format embeddings.")
    return deltas


def _svd(dW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    U, S, Vh = torch.linalg.svd(dW.float(), full_matrices=False)
    return U, S, Vh


def _svd_of_pair(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same of `A @ B`, without the product."""
    Q_A, R_A = torch.linalg.qr(A)
    Q_B, R_B = torch.linalg.qr(B.T)
    U, S, Vh = _svd(R_A @ R_B.T)
    return Q_A @ U, S, Vh @ Q_B.T


def _cut(parts: Mapping[str, tuple[Tensor, Tensor, Tensor]], rank: int) -> Factors:
    """The leading ``rank`` directions of each layer, the singular values shared by both factors."""
    pairs, left, all_of = {}, 0.0, 0.0
    for layer, (U, S, Vh) in parts.items():
        root = S[:rank].sqrt()
        pairs[layer] = (U[:, :rank] * root, root[:, None] * Vh[:rank])
        left += float(S[rank:].double().square().sum())
        all_of += float(S.double().square().sum())
    return Factors(pairs=pairs, error=(left / all_of) ** 0.5 if all_of else 0.0)
