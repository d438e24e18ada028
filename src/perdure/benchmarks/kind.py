"""What tells the records of one kind of run from those of another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from perdure.measuring.matrix import TaskMatrix
from perdure.measuring.tables import Column
from perdure.methods.protocol import Method
from perdure.settings import Settings

__all__ = ["Data", "Kind"]

Data = Mapping[str, Any]
"""A record, as its file says it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Kind:
    """How records of one kind are read, checked against each other and put into tables."""

    format: int
    methods: Mapping[str, type[Method]]
    settings: type[Settings]
    """Of the loop."""
    order: tuple[str, ...]
    """Methods as tables list them; others follow by name."""
    alike: Mapping[str, str]
    """Key of a record -> its name: what must agree for numbers to compare."""
    title: Callable[[Data], str]
    """The stream, as headings call it."""
    stream: Callable[[Data], Any]
    """What is equal for records of one stream."""
    columns: tuple[Column, ...]
    """Of the table."""
    paired: tuple[tuple[str, tuple[str, ...]], ...]
    """Methods and columns: the others are set against each of them, in a table of its own."""
    further: tuple[Column, ...]
    """Of a table beside it, and of the CSV."""
    asked: Callable[[Data], dict[str, Any]]
    """What a finished run has to share with one that is asked for not to be repeated."""
    numbers: Callable[[Data, TaskMatrix], dict[str, float]]
    """The columns' numbers of a record, without those that were not measured or have no meaning."""
    parts: Callable[[Data, TaskMatrix], dict[str, dict[str, float]]]
    """Of those numbers that are a mean over concepts: number -> concept -> value."""
    facts: Callable[[Data], dict[str, Any]]
    """What the CSV says of a run beside its method, stream and numbers."""
