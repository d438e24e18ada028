"""Is a bank whole: `perdure verify`, which `perdure doctor --bank` is too."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from perdure.cli.console import console, note
from perdure.cli.options import (
    BankOption,
    ConfigOption,
    DeviceOption,
    DtypeOption,
    opening,
)
from perdure.errors import PerdureError

__all__ = ["JsonOption", "RepairOption", "verify"]

RepairOption = Annotated[
    bool,
    typer.Option(
        "--repair", help="Rebuild bank.json from the concepts' files, into a new file beside it."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Say it as JSON.")]
_HURT = 1
"""Exit status where something is hurt."""


def verify(
    bank: BankOption = Path("bank"),
    base: Annotated[
        str, typer.Option("--base", help="Compare shapes with this base, too.", show_default=False)
    ] = "",
    config: ConfigOption = "",
    device: DeviceOption = "",
    dtype: DtypeOption = "",
    as_json: JsonOption = False,
    mend: RepairOption = False,
) -> None:
    """Check every file of a bank: checksums, agreement, numbers, shapes; exit status 1 if hurt."""
    if mend:
        if base or as_json:
            raise PerdureError("--repair writes a file and checks nothing: give --bank alone.")
        _repair(bank)
        return
    from perdure.bank_checking import check_bank
    from perdure.hosts.diffusion.host import Base

    opened = Base.open(base, **opening(config, device, dtype)) if base else None
    found = check_bank(bank, opened)
    sound = all(one.kind != "hurt" for one in found)
    if as_json:
        said = {
            "bank": str(bank),
            "base": str(opened.identity) if opened else None,
            "sound": sound,
            "findings": [asdict(one) for one in found],
        }
        console.print_json(json.dumps(said))
    else:
        for one in found:
            console.print(f"{one.kind:>12}  {one.says}", markup=False)
        against = f", and it fits {base}" if base else ""
        console.print(f"{bank} is whole{against}." if sound else f"{bank} is hurt.", markup=False)
    if not sound:
        raise typer.Exit(_HURT)


def _repair(bank: Path) -> None:
    """Rebuild bank.json beside the old one, and say how to use it."""
    from perdure.bank_repair import rebuild

    made = rebuild(bank)
    for sentence in made.notes:
        note(sentence)
    names = ", ".join(f"<{name}>" for name in made.concepts)
    console.print(f"{made.file} lists {names}.", markup=False)
    console.print(
        f"Nothing else was touched. To use it, keep the old bank.json elsewhere, if it is there, "
        f"and rename this one: mv {made.file} {bank / 'bank.json'}",
        markup=False,
    )
