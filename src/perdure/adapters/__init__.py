"""Matrices only: trainable deltas of linear layers, attached by hooks or folded into weights."""

from perdure.adapters.attach import attached, fold_into
from perdure.adapters.delta import Delta, FullRank, LowRank, low_rank_sum, without_autocast

__all__ = [
    "Delta",
    "FullRank",
    "LowRank",
    "attached",
    "fold_into",
    "low_rank_sum",
    "without_autocast",
]
