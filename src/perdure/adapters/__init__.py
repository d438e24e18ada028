"""Matrices only: trainable deltas of linear layers, attached by hooks or folded into weights."""

from perdure.adapters.attach import adding, attached, fold_into
from perdure.adapters.delta import Delta, FullRank, LowRank, low_rank_sum, without_autocast
from perdure.adapters.masked import (
    MaskedLowRank,
    masked_product,
    pack_bits,
    straight_through,
    unpack_bits,
)
from perdure.adapters.prompts import Prompts

__all__ = [
    "Delta",
    "FullRank",
    "LowRank",
    "MaskedLowRank",
    "Prompts",
    "adding",
    "attached",
    "fold_into",
    "low_rank_sum",
    "masked_product",
    "pack_bits",
    "straight_through",
    "unpack_bits",
    "without_autocast",
]
