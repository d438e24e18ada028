"""Matrices only: trainable deltas of linear layers, and what acts where in a prompt."""

from perdure.adapters.delta import Delta, FullRank, LowRank, low_rank_sum, without_autocast
from perdure.adapters.masked import (
    MaskedLowRank,
    masked_product,
    pack_bits,
    straight_through,
    unpack_bits,
)
from perdure.adapters.prompts import PromptDelta, Prompts, Token, outputs

__all__ = [
    "Delta",
    "FullRank",
    "LowRank",
    "MaskedLowRank",
    "PromptDelta",
    "Prompts",
    "Token",
    "low_rank_sum",
    "masked_product",
    "outputs",
    "pack_bits",
    "straight_through",
    "unpack_bits",
    "without_autocast",
]
