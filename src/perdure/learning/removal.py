"""Forget a concept, where the method can do without it."""

from __future__ import annotations

from pathlib import Path

from perdure.bank import Bank
from perdure.bank_names import composed
from perdure.errors import PerdureError
from perdure.methods import Composed, Kept, build

__all__ = ["remove"]


def remove(bank: Bank | Path | str, concept: str) -> tuple[str, ...]:
    """Take a concept out of its bank, and out of what the method trained for all of them.

    Returns the concepts that remain. Raises PerdureError for a concept that the bank does not
    have, one that the others cannot do without, and a bank that another process writes to.
    """
    concept = composed(concept)
    bank = bank if isinstance(bank, Bank) else Bank.open(bank)
    with bank.lock(verb="remove"):
        kept = [Kept(concepts=names, tensors=tensors) for names, tensors in bank.kept()]
        method, composition = build(bank.method, **bank.config), None
        if isinstance(method, Composed):
            composition = method.without(bank.composition(), concept)
        try:
            if concept in bank.concepts:
                method.check_removable(kept, concept)
        except ValueError as error:
            raise PerdureError(f"{error}.") from error
        bank.remove(concept, composition=composition)
    return bank.concepts
