"""The tokenizer: byte pairs in CLIP's format, merged until every word of the world is one token."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from perdure.smallworld.world import words

__all__ = ["CONTEXT", "make_tokenizer"]

CONTEXT = 40
"""Positions of the text encoder; also the tokenizer's ``model_max_length``."""


def _merge_everywhere(words: list[tuple[str, ...]], pair: tuple[str, str]) -> None:
    for k, word in enumerate(words):
        merged: list[str] = []
        for symbol in word:
            if merged and (merged[-1], symbol) == pair:
                merged[-1] += symbol
            else:
                merged.append(symbol)
        words[k] = tuple(merged)


def _merges(vocabulary: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, most frequent pair first, until every word is one symbol."""
    words = [(*word[:-1], word[-1] + "</w>") for word in vocabulary]
    merges: list[tuple[str, str]] = []
    while counts := Counter(pair for word in words for pair in pairwise(word)):
        merges.append(max(counts, key=lambda pair: (counts[pair], pair)))
        _merge_everywhere(words, merges[-1])
    return merges


def make_tokenizer(more: Sequence[str] = ()) -> CLIPTokenizer:
    """A CLIPTokenizer for the world's words and ``more``; other text falls back to letters."""
    letters = sorted(ByteLevel.alphabet())
    vocabulary = [*letters, *(letter + "</w>" for letter in letters)]
    merges = _merges([word for word in [*words(), *more] if len(word) > 1])
    vocabulary += dict.fromkeys("".join(pair) for pair in merges)
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    ids = {symbol: i for i, symbol in enumerate(vocabulary)}
    with TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(ids, ensure_ascii=False))
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        Path(folder, "merges.txt").write_text("\n".join(lines) + "\n")
        return CLIPTokenizer(
            vocab=str(Path(folder, "vocab.json")),
            merges=str(Path(folder, "merges.txt")),
            model_max_length=CONTEXT,
        )
