"""A text encoder's words: its tokenizer, its table of rows, and the words that it is taught.

Tables never grow and never change: rows stand in for the words' places through a hook, the trained
ones differentiably.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ProcessorMixin

from perdure.errors import PerdureError
from perdure.hosts.diffusion.encoders import Source

__all__ = ["Vocabulary", "Wording"]


@dataclass(frozen=True, kw_only=True)
class Wording:
    """What a pipeline makes of a prompt for a language model, and which of its states it takes."""

    before: str = ""
    after: str = ""
    lower: bool = False
    """Is the prompt written small, without blanks at its ends?"""
    dropped: str = ""
    """What the pipeline takes out of prompts."""
    special: bool = True
    """Does the tokenizer put its own tokens around the whole, where it has such?"""
    skip: int = 0
    """How many of the first positions the pipeline drops."""
    packed: bool = False
    """Does it drop the padding, too?"""

    @classmethod
    def of_chat(
        cls,
        tokenizer: Any,
        messages: Callable[[str], Any] | None = None,
        *,
        add_generation_prompt: bool = True,
        **how: bool,
    ) -> Wording:
        """A user's message, or the ``messages`` of a prompt, by the chat template of a tokenizer or
        processor, called with ``how``."""
        place = "\N{OBJECT REPLACEMENT CHARACTER}"
        said = messages(place) if messages else [{"role": "user", "content": place}]
        text = tokenizer.apply_chat_template(
            said, tokenize=False, add_generation_prompt=add_generation_prompt, **how
        )
        before, _, after = text.partition(place)
        return cls(before=before, after=after)

    def said(self, prompt: str) -> str:
        """The whole text of a prompt."""
        prompt = prompt.replace(self.dropped, "")
        return self.before + (prompt.lower().strip() if self.lower else prompt) + self.after


class Vocabulary:
    """One text encoder of a pipeline, its tokenizer, and the words that it is taught.

    ``tokenizer`` is a copy of the pipeline's own from the first word on; the pipeline holds it only
    while it is `serving`.
    """

    def __init__(
        self,
        pipeline: Any,
        encoder: str,
        tokenizer: str,
        *,
        length: int | None = None,
        wording: Wording | None = None,
    ) -> None:
        """
        Args:
            pipeline: of diffusers.
            encoder, tokenizer: its names for them; a processor is asked for the tokenizer in it.
            length: how many positions the tokenizer gives a prompt; its own number by default.
            wording: of a language model; None is the prompt itself, closed by an end token.
        """
        self.pipeline, self.name = pipeline, encoder
        self._holder, self._attribute = pipeline, tokenizer
        if isinstance(getattr(pipeline, tokenizer), ProcessorMixin):
            self._holder, self._attribute = getattr(pipeline, tokenizer), "tokenizer"
        self.pristine = self.tokenizer = getattr(self._holder, self._attribute)
        self.own = len(self.tokenizer)
        self.source: Source | None = None
        self._changed: list[tuple[Any, str, Any]] = []
        if getattr(pipeline, encoder) is not None:
            self._prepare()
        self.length = length or int(self.tokenizer.model_max_length)
        self.wording = wording
        self._closing = self._end_of(wording) if wording else []

    def _end_of(self, wording: Wording) -> list[int]:
        """What closes a prompt: the wording, and the end token of a tokenizer that puts one."""
        closing: list[int] = self.tokenizer(wording.after, add_special_tokens=False)["input_ids"]
        end = [self.tokenizer.eos_token_id]
        empty = self.tokenizer("", add_special_tokens=wording.special)["input_ids"]
        return closing + end if empty[-1:] == end else closing

    def _prepare(self) -> None:
        self._mend_end()
        one = getattr(self.pipeline, self.name)
        own = [(m, name, child) for m in one.modules() for name, child in m.named_children()]
        one.set_input_embeddings(one.get_input_embeddings())  # T5 reads a twin, tied by its weight
        self._changed += [of for of in own if getattr(of[0], of[1]) is not of[2]]

    def put_back(self) -> None:
        """Make the encoder what it was before this vocabulary was made."""
        for holder, name, value in self._changed:
            setattr(holder, name, value)
        self._changed.clear()

    def need(self, device: torch.device, dtype: torch.dtype) -> None:
        """Read the encoder, where it rests."""
        if getattr(self.pipeline, self.name) is None and self.source is not None:
            self.pipeline.register_modules(**{self.name: self.source.load(device, dtype)})
            self._prepare()

    def rest(self) -> None:
        """Take the encoder out of memory, where it can be read again."""
        if self.source is not None:
            setattr(self.pipeline, self.name, None)

    @property
    def bytes(self) -> int:
        """Of the encoder's weights, as it or its files hold them."""
        encoder = getattr(self.pipeline, self.name)
        if encoder is None and self.source is not None:
            return self.source.bytes
        return sum(p.numel() * p.element_size() for p in encoder.parameters())

    def rows(self) -> Tensor:
        """The table's own rows (tokens, d), as the encoder or its file has them."""
        if getattr(self.pipeline, self.name) is None and self.source is not None:
            return self.source.table()[: self.own]
        return self.table.weight[: self.own]

    @property
    def width(self) -> int:
        """Width of the table's rows."""
        return self._facts[0]

    @cached_property
    def _facts(self) -> tuple[int, float, Tensor]:
        """Width, standard deviation and mean row, which are asked for also where it rests."""
        rows = self.rows().float()
        return rows.shape[1], float(rows.std()), rows.mean(dim=0, keepdim=True)

    def _mend_end(self) -> None:
        """CLIP's old configurations name a wrong end token (2), and then the pooled state is that
        of the highest id of a prompt: an added word's, where there is one, and not the end's."""
        encoder, end = getattr(self.pipeline, self.name), self.tokenizer.eos_token_id
        if end is not None and getattr(encoder.config, "eos_token_id", None) == 2:
            for holder in (encoder.config, *encoder.modules()):
                if getattr(holder, "eos_token_id", None) == 2:
                    self._changed.append((holder, "eos_token_id", 2))
                    holder.eos_token_id = end

    @property
    def table(self) -> nn.Embedding:
        """The encoder's token table, frozen."""
        table = getattr(self.pipeline, self.name).get_input_embeddings()
        assert isinstance(table, nn.Embedding)
        return table

    @property
    def scale(self) -> float:
        """Standard deviation of the table, the scale of a random start."""
        return self._facts[1]

    @property
    def ordinary(self) -> Tensor:
        """The mean row (1, d) of the table, fp32."""
        return self._facts[2]

    def add(self, names: Collection[str]) -> None:
        """Make these concepts' tokens words.

        PerdureError for a word that the base has already, and for one that the tokenizer does not
        keep in one piece.
        """
        added = self.tokenizer.get_added_vocab()
        for name in names:
            if added.get(self.written_word(name), self.own) < self.own:
                raise PerdureError(
                    f"<{name}> is a word of the base already: choose another name for the concept."
                )
        if new := [name for name in names if self.written_word(name) not in added]:
            if self.tokenizer is self.pristine:
                self.tokenizer = copy.deepcopy(self.pristine)
            self.tokenizer.add_tokens(
                [self.written_word(name) for name in new], special_tokens=False
            )
        for name in new:
            if self.written_word(name) not in self.tokenizer.tokenize(self._written(name)):
                self.tokenizer = self.pristine  # without any word that was added
                raise PerdureError(
                    f"The tokenizer of this base does not keep <{name}> in one piece: choose "
                    "another name for the concept."
                )

    def id_of(self, name: str) -> int:
        """Token id of a concept."""
        return int(self.tokenizer.convert_tokens_to_ids(self.written_word(name)))

    def _written(self, name: str) -> str:
        """A concept's token as it stands in what the tokenizer is given."""
        small = self.wording is not None and self.wording.lower
        return f"<{name}>".lower() if small else f"<{name}>"

    def written_word(self, name: str) -> str:
        """A concept's token as the tokenizer looks for it: CLIP's lowers the case of prompts."""
        normalizer = self.pristine.backend_tokenizer.normalizer
        word = self._written(name)
        return normalizer.normalize_str(word) if normalizer else word

    def words(self, count: int, generator: torch.Generator) -> list[str]:
        """So many of the base's own words, of letters alone, drawn at random with repetition."""
        found: list[str] = []
        while len(found) < count:
            ids = torch.randint(self.own, (count,), generator=generator).tolist()
            texts = (self.pristine.decode([number]).strip() for number in ids)
            found += [text for text in texts if text.isalpha()]
        return found[:count]

    def too_long(self, prompt: str) -> int:
        """How many of a prompt's tokens stand beyond what the encoder reads."""
        return len(_cut_off(self._read([prompt]).encodings[0]))

    def _read(self, prompts: Sequence[str]) -> Any:
        """What the tokenizer makes of them, padded and cut to the encoder's length."""
        return self.tokenizer(
            [self.wording.said(prompt) if self.wording else prompt for prompt in prompts],
            add_special_tokens=self.wording is None or self.wording.special,
            padding="max_length",
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
        )

    def ids(self, prompts: Sequence[str]) -> Tensor:
        """Token ids (N, positions), padded and cut to the encoder's length.

        PerdureError where a concept stands in what is cut off.
        """
        batch = self._read(prompts)
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
            ids, scale = asked.pop(), getattr(module, "embed_scale", None)  # Gemma's has one
            for place, row in places.items():
                here = (ids == place).unsqueeze(-1)
                own = row[0] if scale is None else row[0] * scale
                output = torch.where(here, own.to(output), output)
            return output

        table = self.table
        handles = [
            table.register_forward_pre_hook(within),
            table.register_forward_hook(replace),
        ]
        setattr(self._holder, self._attribute, self.tokenizer)
        try:
            yield
        finally:
            setattr(self._holder, self._attribute, self.pristine)
            for handle in handles:
                handle.remove()

    @contextmanager
    def written(self, rows: Mapping[str, Tensor]) -> Iterator[None]:
        """Within the block the pipeline's own tokenizer and table hold these rows (1, d), so that
        it can be saved with them."""
        encoder, before = getattr(self.pipeline, self.name), self.table
        own, count = before.weight.data, before.num_embeddings
        before.weight.data = own.clone()  # resizing may change it in place, or leave it as it is
        head = encoder.get_output_embeddings()  # of a language model; the table's twin, or its own
        out: Any = before.weight if head is None else head.weight
        of_head = out.data
        if out is not before.weight:
            out.data = of_head.clone()
        tokenizer = copy.deepcopy(self.pristine)
        tokenizer.add_tokens([self.written_word(name) for name in rows], special_tokens=False)
        size = max(len(tokenizer), before.num_embeddings)
        table = encoder.resize_token_embeddings(size, mean_resizing=False)
        with torch.no_grad():
            for name, row in rows.items():
                table.weight[int(tokenizer.convert_tokens_to_ids(self.written_word(name)))] = row[0]
        setattr(self._holder, self._attribute, tokenizer)
        try:
            yield
        finally:
            setattr(self._holder, self._attribute, self.pristine)
            before.weight.data, before.num_embeddings = own, count
            encoder.set_input_embeddings(before)
            if head is not None:
                out.data = of_head
                head.weight, head.out_features = out, count
                encoder.set_output_embeddings(head)
            encoder.config.get_text_config().vocab_size = count

    def ends(self, ids: Tensor) -> tuple[int, ...]:
        """Where in its states each prompt ends, of ids (N, positions): the position of its end
        token, or of what a wording closes it with."""
        if self.wording is None:
            return tuple(row.index(self.tokenizer.eos_token_id) for row in ids.tolist())
        ends = []
        for row, before in zip(ids.tolist(), self._dropped(ids), strict=True):
            end = 1 + max(k for k, token in enumerate(row) if token != self.tokenizer.pad_token_id)
            whole = row[end - len(self._closing) : end] == self._closing  # else it was cut off
            ends.append(end - before - (len(self._closing) if whole else 0))
        return tuple(ends)

    def lengths(self, ids: Tensor) -> list[int]:
        """How many states each prompt has of its own where padding is dropped, of ids (N,
        positions)."""
        skip = self.wording.skip if self.wording else 0
        return [int(n) - skip for n in (ids != self.tokenizer.pad_token_id).sum(dim=1)]

    def spoken(self, ids: Tensor) -> list[list[tuple[int, int]]]:
        """Of each prompt the added words, (token id, position in its states), in order."""
        return [
            [(token, place - before) for place, token in enumerate(row) if token >= self.own]
            for row, before in zip(ids.tolist(), self._dropped(ids), strict=True)
        ]

    def _dropped(self, ids: Tensor) -> list[int]:
        """How many positions before each prompt's text the pipeline drops."""
        if self.wording is None:
            return [0] * len(ids)
        skip, pad = self.wording.skip, self.tokenizer.pad_token_id
        if not self.wording.packed:
            return [skip] * len(ids)
        return [skip + next(k for k, i in enumerate(row) if i != pad) for row in ids.tolist()]


def _cut_off(encoding: Any) -> list[int]:
    """Token ids that truncation took from a prompt, without those that start, end and pad."""
    return [
        token
        for part in encoding.overflowing
        for token, special in zip(part.ids, part.special_tokens_mask, strict=True)
        if not special
    ]
