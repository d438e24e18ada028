"""Concept tokens: `<rex>` as a new word of every text encoder, or as a state in their output.

A word has a row in each encoder's table. Of a state, the word under it is one fixed ordinary row,
the mean of the table.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from perdure.adapters.prompts import STATE, WORD, Token
from perdure.errors import PerdureError
from perdure.hosts.diffusion.vocabulary import Vocabulary

__all__ = ["Tokens", "check_words", "known_in", "spoken_in"]

_TOKEN = re.compile(r"<([^<>\s]+)>")
_WEIGHT = re.compile(  # <lora:x:1>; (<ada>:1.3), but not (at 12:30)
    r"<[^<>\s]*:[^<>]*>"
    r"|\([^()]*(?:\([^()]*\)[^()]*)*(?:[^\s\d:]\s*:\s*\d+|:\s*\d*\.\d+)\s*\)"
)


def spoken_in(prompt: str) -> list[str]:
    """Names of the concepts that a prompt speaks of, each once, in order.

    >>> spoken_in("<rex> next to <bo>, a photo of <rex>")
    ['rex', 'bo']
    """
    return list(dict.fromkeys(_TOKEN.findall(unicodedata.normalize("NFC", prompt))))


def check_words(tokens: Mapping[str, Token]) -> None:
    """PerdureError where a token is a state, which no pipeline can be saved with."""
    for name, token in tokens.items():
        if token.kind == STATE:
            raise PerdureError(
                f"<{name}> is a state, for which a pipeline has no place: draw from the bank "
                "itself, or learn with --token word."
            )


def known_in(prompt: str, known: Collection[str]) -> list[str]:
    """As `spoken_in`; PerdureError for a concept that is not among ``known``, and for a weight."""
    if weight := _WEIGHT.search(prompt):
        raise PerdureError(
            f"The prompt holds a weight, {weight[0]!r}, and weights in prompts are not supported: "
            "leave it out."
        )
    spoken = spoken_in(prompt)
    for name in spoken:
        if name not in known:
            names = ", ".join(f"<{one}>" for one in known) or "none yet"
            raise PerdureError(
                f"The prompt speaks of <{name}>, which this bank has not learned: it knows {names}."
            )
    return spoken


class Tokens:
    """The concepts that can be spoken of, in all of a base's vocabularies."""

    def __init__(self, vocabularies: Sequence[Vocabulary], *, state_width: int) -> None:
        self.vocabularies = tuple(vocabularies)
        self.state_width = state_width
        self.known: Mapping[str, Token] = {}

    def set(self, tokens: Mapping[str, Token]) -> None:
        """Make exactly these concepts known.

        PerdureError for a token of other encoders or of another width, and for a word of the base.
        """
        for name, token in tokens.items():
            widths = self.widths
            state = widths.pop(STATE)
            wanted = {STATE: state} if token.kind == STATE else widths
            if {part: rows.shape[1] for part, rows in token.parts.items()} != wanted:
                has = ", ".join(f"{p} {tuple(r.shape)}" for p, r in token.parts.items())
                needs = ", ".join(f"{part} (1, {width})" for part, width in wanted.items())
                raise PerdureError(
                    f"The token <{name}> has {has}, but this base needs {needs}: it was learned "
                    "on another base."
                )
        for vocabulary in self.vocabularies:
            vocabulary.add(tokens)
        self.known = dict(tokens)

    @property
    def widths(self) -> dict[str, int]:
        """Part of a token (`state`, `word/<encoder>`) -> how wide it is."""
        return {STATE: self.state_width} | {f"{WORD}/{v.name}": v.width for v in self.vocabularies}

    def too_long(self, prompt: str) -> int:
        """How many of a prompt's tokens stand beyond what any text encoder reads."""
        return min(vocabulary.too_long(prompt) for vocabulary in self.vocabularies)

    def random(self, kind: str, generator: torch.Generator, *, layers: int = 1) -> Tensor:
        """Rows (layers, d), fp32, to start a token of a kind from; all layers alike.

        A word is of each table's own scale. A state is in the units of the first table's rows, too,
        so that one learning rate serves both: see `token`.
        """
        if kind == STATE:
            row = torch.randn(1, self.state_width, generator=generator) * self.vocabularies[0].scale
        else:
            row = torch.cat(
                [torch.randn(1, v.width, generator=generator) * v.scale for v in self.vocabularies],
                dim=1,
            )
        return row.repeat(layers, 1) if layers > 1 else row

    def token(self, kind: str, rows: Tensor, state_scale: float) -> Token:
        """The token of rows (n, d) as a method trains them; a state is ``state_scale`` times them,
        `std(states) / std(rows of the table)`."""
        if kind == STATE:
            return Token({STATE: rows * state_scale})
        parts = rows.split([v.width for v in self.vocabularies], dim=1)
        names = [f"{WORD}/{v.name}" for v in self.vocabularies]
        return Token(dict(zip(names, parts, strict=True)))

    @contextmanager
    def serving(self, tokens: Mapping[str, Token], layer: int = 0) -> Iterator[None]:
        """Within the block every encoder reads these tokens, of a word with rows for several layers
        that of ``layer``; the ordinary row under a state."""
        with ExitStack() as stack:
            for v in self.vocabularies:
                rows = {
                    name: v.ordinary
                    if token.kind == STATE
                    else _row(token.parts[f"{WORD}/{v.name}"], layer)
                    for name, token in tokens.items()
                }
                stack.enter_context(v.serving(rows))
            yield

    @contextmanager
    def written(self) -> Iterator[None]:
        """Within the block the pipeline itself holds all known words, and can be saved with them.

        PerdureError where a token is a state, which a pipeline has no place for.
        """
        check_words(self.known)
        with ExitStack() as stack:
            for v in self.vocabularies:
                part = f"{WORD}/{v.name}"
                rows = {name: token.parts[part] for name, token in self.known.items()}
                stack.enter_context(v.written(rows))
            yield

    def places(
        self, vocabulary: Vocabulary, ids: Tensor
    ) -> tuple[tuple[tuple[str, int], ...], ...]:
        """For each prompt of a vocabulary's ids (N, positions): (concept, position), in order."""
        names = {vocabulary.id_of(name): name for name in self.known}
        return tuple(
            tuple((names[token], place) for token, place in said if token in names)
            for said in vocabulary.spoken(ids)
        )


def _row(rows: Tensor, layer: int) -> Tensor:
    return rows[layer : layer + 1] if len(rows) > 1 else rows
