"""What a learn was asked for, as it lies in a bank's workspace until it is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from perdure.bank import Bank
from perdure.durable import replace_file
from perdure.errors import PerdureError
from perdure.learning.advice import make_settings
from perdure.learning.settings import LearnSettings
from perdure.untrusted import read_json

__all__ = [
    "MANY",
    "REQUEST",
    "Task",
    "discard",
    "interrupted",
    "pending",
    "refuse_unfinished",
    "sources_in",
    "unreadable",
]

MANY = "many.json"
"""What `learn_many` was asked for; it lies in the workspace until all of it is done."""

REQUEST = "request.json"
"""What a learn was asked for; it lies in the workspace until it is kept."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One learning step as asked for, and all that a resume needs to go on with it."""

    sources: Mapping[str, tuple[str, ...]]
    """Concept name -> its picture folder, or its picture files."""
    method: str
    config: Mapping[str, Any]
    settings: LearnSettings
    digests: Mapping[str, str]
    """Concept name -> digest of its pictures, so that a resume cannot go on with others."""
    nouns: Mapping[str, str]
    """Concept name -> class noun, for measuring alone."""
    fingerprint: str
    """Of the bank when the task began."""
    dtype: str = ""
    """What the base computes in; a resume in another would not end in the same bits."""
    apart: bool = False
    """Leave out what the method trains for the whole bank."""

    def save(self, path: Path) -> None:
        """Write the request, atomically."""
        values = {**asdict(self), "settings": self.settings.to_json()}
        replace_file(path, json.dumps(values).encode())

    @classmethod
    def load(cls, path: Path) -> Task:
        """Read what `save` wrote; PerdureError where it is something else."""
        with unreadable(path):
            values = read_json(path)
            values["settings"] = make_settings(values["settings"], {})
            values["sources"] = sources_in(values)
            for name in ("config", "digests", "nouns"):
                dict(values[name])
            return cls(**values)


def sources_in(request: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Concept -> its folder or files, of a request as it was read."""
    return {f"{name}": tuple(map(str, files)) for name, files in request["sources"].items()}


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """What a file of the workspace raises that is not as it was written, as PerdureErrors."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PerdureError(
            f"{path} cannot be read ({error!r}), so that learn cannot be gone on with: give it up"
            f" with `perdure learn --discard --bank {path.parent.parent}`."
        ) from error


def discard(bank: Bank | Path | str) -> None:
    """Give up an interrupted learn; the bank's concepts are untouched."""
    bank = bank if isinstance(bank, Bank) else Bank.open(bank)
    with bank.lock(verb="discard"):
        bank.clear_workspace()


def interrupted(bank: Bank) -> tuple[str, ...]:
    """Concepts of the learn that was cut short in this bank; empty where there is none."""
    return tuple(pending(bank))


def pending(bank: Bank) -> dict[str, tuple[str, ...]]:
    """Concept -> its pictures, of the learn that was cut short in this bank; empty where there is
    none."""
    if (many := bank.workspace / MANY).exists():
        with unreadable(many):
            return sources_in(read_json(many))
    path = bank.workspace / REQUEST
    if not path.exists():
        return {}
    sources = dict(Task.load(path).sources)
    return {} if sources.keys() <= set(bank.concepts) else sources


def refuse_unfinished(bank: Bank) -> None:
    """PerdureError where a learn was cut short in this bank."""
    if names := ", ".join(f"<{name}>" for name in interrupted(bank)):
        raise PerdureError(
            f"A learn of {names} was interrupted in {bank.path}: go on with "
            f"`perdure learn --resume --bank {bank.path}`, or give it up with --discard."
        )
