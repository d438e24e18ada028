"""Concept tokens: `<rex>` as one new word whose embedding row is the concept's own."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from perdure.errors import PerdureError

__all__ = ["ConceptTokens", "known_in", "spoken_in"]

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


class ConceptTokens:
    """Adds concept tokens to a tokenizer and to the embedding table of a text encoder.

    The base's own rows are never touched: the table grows by one row a token, and `serving` lets
    rows that are being trained stand in for their place in the table.
    """

    def __init__(self, tokenizer: Any, text_encoder: nn.Module) -> None:
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder
        self.own = len(tokenizer)
        self.names: list[str] = []

    def embedding(self) -> nn.Embedding:
        """The text encoder's token table."""
        table = self.text_encoder.get_input_embeddings()  # type: ignore[operator]
        assert isinstance(table, nn.Embedding)
        return table

    def scale(self) -> float:
        """Standard deviation of the base's own token table, the scale of a random start."""
        return float(self.embedding().weight[: self.own].float().std())

    def random_row(self, generator: torch.Generator) -> Tensor:
        """A random embedding (1, d) of the base's own scale, fp32."""
        width = self.embedding().embedding_dim
        return torch.randn(1, width, generator=generator) * self.scale()

    @torch.no_grad()
    def set(self, rows: Mapping[str, Tensor]) -> None:
        """Make exactly these concepts known: name -> row (1, d).

        Of rows (n, d) for n layers the first is set; `layerwise` serves the others.
        """
        tokens = [self._token(name) for name in rows]
        self._refuse_words_of_base(tokens)
        for token in tokens:
            if self.tokenizer.convert_tokens_to_ids(token) < self.own or (
                token not in self.tokenizer.get_added_vocab()
            ):
                self.tokenizer.add_tokens([token], special_tokens=False)
        for name, token in zip(rows, tokens, strict=True):
            if self.tokenizer.tokenize(f"<{name}>") != [token]:
                raise PerdureError(
                    f"The tokenizer of this base does not keep <{name}> in one piece: choose "
                    "another name for the concept."
                )
        self.text_encoder.resize_token_embeddings(  # type: ignore[operator]
            max(len(self.tokenizer), self.embedding().num_embeddings), mean_resizing=False
        )
        weight = self.embedding().weight
        weight.requires_grad_(False)
        for name, row in rows.items():
            if row.dim() != 2 or row.shape[1] != weight.shape[1]:
                raise PerdureError(
                    f"The token <{name}> has the shape {tuple(row.shape)}, but this base needs "
                    f"(1, {weight.shape[1]}): it was learned on another base."
                )
            weight[self.id_of(name)] = row[0].to(weight)
        self.names = list(rows)

    def _refuse_words_of_base(self, tokens: Sequence[str]) -> None:
        added = self.tokenizer.get_added_vocab()
        for token in tokens:
            if added.get(token, self.own) < self.own:
                raise PerdureError(
                    f"{token} is a word of the base already: choose another name for the concept."
                )

    def id_of(self, name: str) -> int:
        """Token id of a concept."""
        return int(self.tokenizer.convert_tokens_to_ids(self._token(name)))

    def _token(self, name: str) -> str:
        """A concept's word as the tokenizer looks for it: CLIP's lowers the case of prompts."""
        normalizer = self.tokenizer.backend_tokenizer.normalizer
        token = f"<{name}>"
        return normalizer.normalize_str(token) if normalizer else token

    def ids(self, prompts: Sequence[str]) -> Tensor:
        """Token ids (N, positions), padded and cut to the base's length.

        Raises PerdureError where a concept stands in what is cut off.
        """
        batch = self.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        )
        for prompt, encoding in zip(prompts, batch.encodings, strict=True):
            self._refuse_cut_concept(prompt, _cut_off(encoding))
        ids: Tensor = batch["input_ids"]
        return ids

    def too_long(self, prompt: str) -> int:
        """How many of a prompt's tokens stand beyond what the text encoder reads."""
        length = self.tokenizer.model_max_length
        batch = self.tokenizer([prompt], truncation=True, max_length=length)
        return len(_cut_off(batch.encodings[0]))

    def _refuse_cut_concept(self, prompt: str, cut: Sequence[int]) -> None:
        for name in self.names if cut else ():
            if self.id_of(name) in cut:
                raise PerdureError(
                    f"{prompt!r} is too long for this base by {len(cut)} tokens, and <{name}> "
                    "stands in what it would not read: shorten it, or speak of the concept earlier."
                )

    @contextmanager
    def serving(self, rows: Mapping[str, Tensor]) -> Iterator[None]:
        """Within the block the encoder reads these rows (1, d) for their tokens, differentiably."""
        places = {self.id_of(name): row for name, row in rows.items()}

        def replace(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
            for place, row in places.items():
                here = (args[0] == place).unsqueeze(-1)
                output = torch.where(here, row[0].to(output.dtype), output)
            return output

        handle = self.embedding().register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()


def _cut_off(encoding: Any) -> list[int]:
    """Token ids that truncation took from a prompt, without those that start, end and pad."""
    return [
        token
        for part in encoding.overflowing
        for token, special in zip(part.ids, part.special_tokens_mask, strict=True)
        if not special
    ]
