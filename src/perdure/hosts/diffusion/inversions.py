"""Files of textual inversions: a concept's word as other programs have it, and theirs as a word."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from diffusers.loaders import TextualInversionLoaderMixin
from torch import Tensor

from perdure.adapters.prompts import WORD, Token
from perdure.errors import PerdureError
from perdure.quiet import quietly

if TYPE_CHECKING:
    from perdure.hosts.diffusion.host import Base

__all__ = ["inversion", "load_inversion", "read_inversion", "word_of"]


def inversion(base: Base, name: str, token: Token) -> dict[str, Tensor]:
    """The tensors of a file: of one text encoder the row (1, d) under the token, as diffusers has
    it; of several each one's row under its name, as A1111 and ComfyUI have them."""
    rows = {v.name: token.parts[f"{WORD}/{v.name}"] for v in base.tokens.vocabularies}
    keys = _keys(base, name)
    return {keys[encoder]: row.detach().cpu().float().contiguous() for encoder, row in rows.items()}


def _keys(base: Base, name: str) -> dict[str, str]:
    names = [v.name for v in base.tokens.vocabularies]
    if len(names) == 1 and names[0] not in base.family.embeddings:
        return {names[0]: f"<{name}>"}
    return {encoder: base.family.embeddings[encoder] for encoder in names}


def load_inversion(base: Base, pipeline: Any, file: Path, name: str) -> None:
    """The stock loader's reading of such a file into a pipeline of the base's kind: of several text
    encoders one call for each, as its documentation has it.

    RuntimeError where a row is not the file's afterwards.
    """
    tensors, keys = safetensors.torch.load_file(file), _keys(base, name)
    for vocabulary in base.family.vocabularies(pipeline):
        row = tensors[keys[vocabulary.name]]
        word, encoder = vocabulary.written_word(name), getattr(pipeline, vocabulary.name)
        with quietly():
            _Loader().load_textual_inversion(
                row, token=word, tokenizer=vocabulary.pristine, text_encoder=encoder
            )
        number = vocabulary.pristine.convert_tokens_to_ids(word)
        loaded = encoder.get_input_embeddings().weight[number]
        if not torch.equal(loaded, row[0].to(loaded)):
            raise RuntimeError(f"the row of <{name}> in {vocabulary.name} is not the file's")


class _Loader(TextualInversionLoaderMixin):
    """The stock loader without a pipeline: some pipelines do not inherit it."""

    hf_device_map = None
    components: Mapping[str, Any] = {}


def read_inversion(base: Base, tensors: Mapping[str, Tensor], where: str) -> Token:
    """A file's embedding as a word of every text encoder.

    Raises PerdureError where it is of another family, or of more than one vector.
    """
    vocabularies = base.tokens.vocabularies
    if len(vocabularies) == 1:
        rows = list(tensors.items())
        if len(rows) != 1:
            raise PerdureError(
                f"{where} holds {len(rows)} tensors, but {base.family.title} has one text encoder "
                "and a textual inversion one embedding."
            )
        found = {vocabularies[0].name: rows[0][1]}
    else:
        names = _keys(base, "")
        lacking = [key for key in names.values() if key not in tensors]
        if lacking or len(tensors) != len(names):
            raise PerdureError(
                f"{where} holds {', '.join(sorted(tensors))}, but a textual inversion of "
                f"{base.family.title} holds {', '.join(names.values())}."
            )
        found = {encoder: tensors[key] for encoder, key in names.items()}
    parts = {}
    for vocabulary in vocabularies:
        row = found[vocabulary.name].float()
        row = row[None] if row.ndim == 1 else row
        if row.ndim != 2 or row.shape[1] != vocabulary.width:
            raise PerdureError(
                f"{where} has an embedding of the shape {tuple(row.shape)}, but the base's "
                f"{vocabulary.name} takes rows of {vocabulary.width}: it is of another family."
            )
        if len(row) != 1:
            raise PerdureError(
                f"{where} has {len(row)} vectors, and a concept's token is one: train the textual "
                "inversion with one vector."
            )
        parts[f"{WORD}/{vocabulary.name}"] = row.contiguous()
    return Token(parts)


def word_of(base: Base, text: str) -> tuple[Token, int]:
    """The base's own words of a text as one word: their mean row in every text encoder, which of
    one word is its row; and of how many words, in the encoder with most. PerdureError for none."""
    parts, most = {}, 0
    for vocabulary in base.tokens.vocabularies:
        ids = vocabulary.pristine(text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise PerdureError(f"The trigger {text!r} holds no word that {vocabulary.name} reads.")
        rows = vocabulary.rows()[torch.tensor(ids)].float()
        parts[f"{WORD}/{vocabulary.name}"] = rows.mean(dim=0, keepdim=True).cpu().clone()
        most = max(most, len(ids))
    return Token(parts), most
