"""Forget a concept, where the method can do without it."""

from __future__ import annotations

from pathlib import Path

from perdure.bank import Bank
from perdure.bank_names import composed
from perdure.errors import PerdureError
from perdure.learning.request import refuse_unfinished
from perdure.methods import Composed, Kept, build

__all__ = ["remove"]


def remove(bank: Bank | Path | str, concept: str) -> tuple[str, ...]:
    """Take a concept out of its bank, and out of what the method trained for all of them.

    Nothing of it is left: neither its files nor what others hold of it (sums, what later tasks cost
    it, `evaluation/`, the workspace of a learn that is done).

    Returns the concepts that remain. Raises PerdureError for a concept that the bank does not
    have, one that the others cannot do without, a learn that was interrupted, which may build on
    it, and a bank that another process writes to.
    """
    concept = composed(concept)
    bank = bank if isinstance(bank, Bank) else Bank.open(bank)
    with bank.lock(verb="remove"):
        refuse_unfinished(bank)
        kept = [Kept(concepts=names, tensors=tensors) for names, tensors in bank.kept()]
        method, composition = build(bank.method, **bank.config), None
        if isinstance(method, Composed):
            composition = method.without(bank.composition(), concept)
        try:
            if concept in bank.concepts:
                method.check_removable(kept, concept)
        except ValueError as error:
            raise PerdureError(f"{error}.") from error
        bank.clear_workspace()  # a learn that was killed when it was done has left its checkpoint
        bank.remove(concept, composition=composition)
    return bank.concepts
