"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["BankOption", "BaseOption", "EncoderOption", "ManyConcepts"]

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
