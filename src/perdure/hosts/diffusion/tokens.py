"""Concept tokens: `<rex>` as a new word of every text encoder, or as a state in their output.

A word has a row in each encoder's table. The tables themselves never grow and never change: rows
stand in for the words' places through a hook, the trained ones differentiably. Of a state, the word
under it is one fixed ordinary row, the mean of the table.
"""

from __future__ import annotations

import copy
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from perdure.adapters.prompts import STATE, WORD, Token
from perdure.errors import PerdureError

__all__ = ["Tokens", "Vocabulary", "check_words", "known_in", "spoken_in"]

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


class Vocabulary:
    """One text encoder of a pipeline, its tokenizer, and the words that it is taught.

    ``tokenizer`` is a copy of the pipeline's own from the first word on; the pipeline holds it only
    while it is `serving`.
    """

    def __init__(
        self, pipeline: Any, encoder: str, tokenizer: str, *, length: int | None = None
    ) -> None:
        """``length`` is how many positions a prompt has; the tokenizer's own by default."""
        self.pipeline, self.name, self._attribute = pipeline, encoder, tokenizer
        self.pristine = self.tokenizer = getattr(pipeline, tokenizer)
        self.own = len(self.tokenizer)
        self._mend_end()
        one = getattr(pipeline, encoder)
        one.set_input_embeddings(one.get_input_embeddings())  # T5 reads a twin, tied by its weight
        self.length = length or int(self.tokenizer.model_max_length)

    def _mend_end(self) -> None:
        """CLIP's old configurations name a wrong end token (2), and then the pooled state is that
        of the highest id of a prompt: an added word's, where there is one, and not the end's."""
        encoder, end = getattr(self.pipeline, self.name), self.tokenizer.eos_token_id
        if end is not None and getattr(encoder.config, "eos_token_id", None) == 2:
            encoder.config.eos_token_id = end
            for module in encoder.modules():
                if getattr(module, "eos_token_id", None) == 2:
                    module.eos_token_id = end

    @property
    def table(self) -> nn.Embedding:
        """The encoder's token table, frozen."""
        table = getattr(self.pipeline, self.name).get_input_embeddings()
        assert isinstance(table, nn.Embedding)
        return table

    @cached_property
    def scale(self) -> float:
        """Standard deviation of the table, the scale of a random start."""
        return float(self.table.weight[: self.own].float().std())

    @cached_property
    def ordinary(self) -> Tensor:
        """The mean row (1, d) of the table, fp32."""
        return self.table.weight[: self.own].float().mean(dim=0, keepdim=True)

    def add(self, names: Collection[str]) -> None:
        """Make these concepts' tokens words.

        PerdureError for a word that the base has already, and for one that the tokenizer does not
        keep in one piece.
        """
        added = self.tokenizer.get_added_vocab()
        for name in names:
            if added.get(self._word(name), self.own) < self.own:
                raise PerdureError(
                    f"<{name}> is a word of the base already: choose another name for the concept."
                )
        if new := [name for name in names if self._word(name) not in added]:
            if self.tokenizer is self.pristine:
                self.tokenizer = copy.deepcopy(self.pristine)
            self.tokenizer.add_tokens([self._word(name) for name in new], special_tokens=False)
        for name in new:
            if self._word(name) not in self.tokenizer.tokenize(f"<{name}>"):
                self.tokenizer = self.pristine  # without any word that was added
                raise PerdureError(
                    f"The tokenizer of this base does not keep <{name}> in one piece: choose "
                    "another name for the concept."
                )

    def id_of(self, name: str) -> int:
        """Token id of a concept."""
        return int(self.tokenizer.convert_tokens_to_ids(self._word(name)))

    def _word(self, name: str) -> str:
        """A concept's token as the tokenizer looks for it: CLIP's lowers the case of prompts."""
        normalizer = self.pristine.backend_tokenizer.normalizer
        word = f"<{name}>"
        return normalizer.normalize_str(word) if normalizer else word

    def too_long(self, prompt: str) -> int:
        """How many of a prompt's tokens stand beyond what the encoder reads."""
        batch = self.tokenizer([prompt], truncation=True, max_length=self.length)
        return len(_cut_off(batch.encodings[0]))

    def ids(self, prompts: Sequence[str]) -> Tensor:
        """Token ids (N, positions), padded and cut to the encoder's length.

        PerdureError where a concept stands in what is cut off.
        """
        batch = self.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
        )
        for prompt, encoding in zip(prompts, batch.encodings, strict=True):
            cut = _cut_off(encoding)
            for token in cut:
                if token >= self.own:
                    word = self.tokenizer.convert_ids_to_tokens(token)
                    raise PerdureError(
                        f"{prompt!r} is too long for this base by {len(cut)} tokens, and {word} "
                        "stands in what it would not read: shorten it, or speak of the concept "
                        "earlier."
                    )
        ids: Tensor = batch["input_ids"]
        return ids

    @contextmanager
    def serving(self, rows: Mapping[str, Tensor]) -> Iterator[None]:
        """Within the block the pipeline knows the words, and its encoder reads these rows (1, d)
        for them, differentiably. Blocks are not nested."""
        places = {self.id_of(name): row for name, row in rows.items()}
        asked: list[Tensor] = []

        def within(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
            asked.append(args[0])
            return (args[0].where(args[0] < self.own, 0),)

        def replace(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
            ids = asked.pop()
            for place, row in places.items():
                here = (ids == place).unsqueeze(-1)
                output = torch.where(here, row[0].to(output), output)
            return output

        table = self.table
        handles = [
            table.register_forward_pre_hook(within),
            table.register_forward_hook(replace),
        ]
        setattr(self.pipeline, self._attribute, self.tokenizer)
        try:
            yield
        finally:
            setattr(self.pipeline, self._attribute, self.pristine)
            for handle in handles:
                handle.remove()

    @contextmanager
    def written(self, rows: Mapping[str, Tensor]) -> Iterator[None]:
        """Within the block the pipeline's own tokenizer and table hold these rows (1, d), so that
        it can be saved with them."""
        encoder, before = getattr(self.pipeline, self.name), self.table
        own, count = before.weight.data, before.num_embeddings
        before.weight.data = own.clone()  # resizing may change it in place, or leave it as it is
        tokenizer = copy.deepcopy(self.pristine)
        tokenizer.add_tokens([self._word(name) for name in rows], special_tokens=False)
        size = max(len(tokenizer), before.num_embeddings)
        table = encoder.resize_token_embeddings(size, mean_resizing=False)
        with torch.no_grad():
            for name, row in rows.items():
                table.weight[int(tokenizer.convert_tokens_to_ids(self._word(name)))] = row[0]
        setattr(self.pipeline, self._attribute, tokenizer)
        try:
            yield
        finally:
            setattr(self.pipeline, self._attribute, self.pristine)
            before.weight.data, before.num_embeddings = own, count
            encoder.set_input_embeddings(before)
            encoder.config.vocab_size = count

    def ends(self, ids: Tensor) -> tuple[int, ...]:
        """The position of each prompt's end token, of ids (N, positions)."""
        return tuple(row.index(self.tokenizer.eos_token_id) for row in ids.tolist())


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
        widths = {f"{WORD}/{v.name}": v.table.embedding_dim for v in self.vocabularies}
        for name, token in tokens.items():
            wanted = {STATE: self.state_width} if token.kind == STATE else widths
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
                [
                    torch.randn(1, v.table.embedding_dim, generator=generator) * v.scale
                    for v in self.vocabularies
                ],
                dim=1,
            )
        return row.repeat(layers, 1) if layers > 1 else row

    def token(self, kind: str, rows: Tensor, state_scale: float) -> Token:
        """The token of rows (n, d) as a method trains them; a state is ``state_scale`` times them,
        `std(states) / std(rows of the table)`."""
        if kind == STATE:
            return Token({STATE: rows * state_scale})
        parts = rows.split([v.table.embedding_dim for v in self.vocabularies], dim=1)
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
            tuple((names[token], place) for place, token in enumerate(row) if token in names)
            for row in ids.tolist()
        )


def _row(rows: Tensor, layer: int) -> Tensor:
    return rows[layer : layer + 1] if len(rows) > 1 else rows


def _cut_off(encoding: Any) -> list[int]:
    """Token ids that truncation took from a prompt, without those that start, end and pad."""
    return [
        token
        for part in encoding.overflowing
        for token, special in zip(part.ids, part.special_tokens_mask, strict=True)
        if not special
    ]
