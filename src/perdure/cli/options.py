"""Options that several verbs share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from perdure.errors import PerdureError

__all__ = ["BankOption", "BaseOption", "EncoderOption", "ManyConcepts", "method_options"]

BankOption = Annotated[Path, typer.Option("--bank", help="Folder of the bank.")]
BaseOption = Annotated[
    str,
    typer.Option("--base", help="smallworld, a diffusers folder, or a hub id (SD 1.x / 2.x)."),
]
EncoderOption = Annotated[
    str, typer.Option("--encoder", help="Metric encoder: a CLIP folder or hub id.")
]
ManyConcepts = Annotated[
    list[str] | None, typer.Option("--concept", help="Which concept; give it again for more.")
]


def method_options(pairs: Sequence[str]) -> dict[str, Any]:
    """`rank=8` and the like, each value read as JSON where it is JSON."""
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise PerdureError(f"--option {pair!r} has no value: write it as name=value.")
        try:
            options[key.replace("-", "_")] = json.loads(text)
        except ValueError:
            options[key.replace("-", "_")] = text
    return options
