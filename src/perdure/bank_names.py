"""What concepts may be called, and how a bank spells their names."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from perdure.errors import PerdureError

__all__ = ["caseless", "check_concept_name", "check_new_names", "composed", "is_name"]


def composed(name: str) -> str:
    """A name as a bank spells it: in Unicode's NFC, which some file systems do not keep."""
    return unicodedata.normalize("NFC", name)


def is_name(text: str) -> bool:
    """May a concept be called so: letters (of any script), digits, - and _, a letter first?"""
    kinds = [unicodedata.category(character) for character in text]
    return (
        0 < len(text) <= 40
        and kinds[0].startswith("L")
        and all(
            kind[0] in "LM" or kind == "Nd" or character in "-_"  # M: vowel signs and accents
            for kind, character in zip(kinds, text, strict=True)
        )
        and text == composed(text)
    )


def caseless(name: str) -> str:
    """Equal for names that a tokenizer or a file system may take for one."""
    return composed(name.casefold())


def check_concept_name(name: str) -> None:
    """Raise PerdureError where `name`, which must be `composed`, cannot be a concept's."""
    if not is_name(name):
        raise PerdureError(
            f"{name!r} cannot be a concept's name: take letters, digits, - and _, a letter first,"
            " at most 40 of them and no brackets."
        )


def check_new_names(bank: Path, concepts: Sequence[str], *, known: Sequence[str]) -> None:
    """Raise PerdureError where a name is malformed, `known` to the bank, or given twice."""
    if not concepts:
        raise PerdureError("No concept was named: give at least one name.")
    taken = {caseless(name): name for name in known}
    for name in concepts:
        check_concept_name(name)
        if name in known:
            raise PerdureError(
                f"The bank {bank} already has a concept {name!r}: choose another name, or"
                f" forget the old one first with `perdure remove {name}`."
            )
        if twin := taken.get(caseless(name)):
            how = "is given twice" if twin == name else f"differs from {twin!r} only by its case"
            raise PerdureError(f"The concept name {name!r} {how}: choose another name.")
        taken[caseless(name)] = name
