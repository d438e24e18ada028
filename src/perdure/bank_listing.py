"""What a bank says of its concepts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perdure.bank import Bank
from perdure.bank_names import composed

__all__ = ["Listed", "list_concepts", "show"]


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A concept of a bank at a glance."""

    concept: str
    task: str
    """The folder of the task that learned it, such as `03-rex`."""
    steps: int | None
    """Of the task; None where its record does not say."""
    seconds: float
    """Of the task."""
    bytes: int
    """Of the concept's file."""


def list_concepts(bank: Bank | Path | str) -> list[Listed]:
    """The concepts in the order in which they were learned; PerdureError where there is no bank."""
    bank = bank if isinstance(bank, Bank) else Bank.open(bank)
    return [
        Listed(
            concept=concept,
            task=task.folder,
            steps=task.facts.get("steps") or task.facts.get("settings", {}).get("steps"),
            seconds=task.facts.get("seconds", 0.0),
            bytes=bank.stored_of(concept),
        )
        for task in bank.tasks
        for concept in task.concepts
    ]


def show(bank: Bank | Path | str, concept: str) -> dict[str, Any]:
    """All that the concept's file says of itself: format, method, config, base, task, facts.

    Raises PerdureError where the bank has no such concept.
    """
    bank = bank if isinstance(bank, Bank) else Bank.open(bank)
    return bank.metadata(composed(concept))
