"""`perdure suggest`: one screen about a concept's pictures, before anything is learned."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.checking import JsonOption
from perdure.cli.console import console
from perdure.cli.options import BaseOption, ConfigOption, DeviceOption, DtypeOption, opening
from perdure.errors import PerdureError

if TYPE_CHECKING:
    from perdure.suggestions import Finding

__all__ = ["suggest"]

_ABOUT = ("near-duplicates", "blurred", "too small", "shapes", "EXIF", "colours")
"""Looked for in every picture, and said also where nothing was found."""
_NAMES = 4
"""File names of one finding that are said."""


def suggest(
    pictures: Annotated[
        list[Path], typer.Argument(help="The folder of one concept's pictures, or the files.")
    ],
    *,
    base: BaseOption = "smallworld",
    config: ConfigOption = "",
    device: DeviceOption = "",
    dtype: DtypeOption = "",
    method: Annotated[
        str, typer.Option(help="The bank's method, whose settings a base may advise.")
    ] = "gated",
    as_json: JsonOption = False,
) -> None:
    """Look at one concept's pictures: what stands in the way, and which settings follow."""
    from perdure.hosts.diffusion.host import Base
    from perdure.methods import METHODS
    from perdure.suggestions import suggest as look

    if method not in METHODS:
        raise PerdureError(f"There is no method {method!r}: `perdure methods` lists them.")
    for path in pictures:
        if not path.exists():
            raise PerdureError(f"There is no {path}: give a folder of pictures, or picture files.")
    opened = Base.open(base, **opening(config, device, dtype))
    told = look(pictures[0] if len(pictures) == 1 else pictures, opened, method=method)
    if as_json:
        console.print_json(json.dumps(told.to_json()))
        return
    console.print(f"{told.pictures} pictures, learned at {told.size[0]}x{told.size[1]} by {base}\n")
    found = [finding.about for finding in told.findings]
    for about in dict.fromkeys([*_ABOUT, *found]):
        own = [_line(finding) for finding in told.findings if finding.about == about]
        for line in own or ["nothing found"]:
            console.print(f"{about:>17}  {line}", markup=False)
    for sentence in told.unknown:
        console.print(f"{'not known':>17}  {sentence}", markup=False)
    console.print("\nWhat follows")
    for name, why in told.because.items():
        console.print(f"{name:>17}  {_said(told.settings.get(name), why)}", markup=False)
    words = [f"--{name} {value}" for name, value in told.settings.items()]
    if base != "smallworld":
        words.insert(0, f"--base {shlex.quote(base)}")
    which = " ".join(shlex.quote(str(path)) for path in pictures)
    console.print(f"\n    perdure learn {' '.join([which, *words])}", markup=False)


def _line(finding: Finding) -> str:
    names = ", ".join(finding.files[:_NAMES])
    more = len(finding.files) - _NAMES
    names += f" and {more} more" if more > 0 else ""
    return f"{names}: {finding.sentence}" if names else finding.sentence


def _said(value: object, why: str) -> str:
    return why if value is None else f"{value}: {why}"
