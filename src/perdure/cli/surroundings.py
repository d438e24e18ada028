"""Verbs that need no bank: methods, doctor, smallworld, demo."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from perdure.cli.checking import JsonOption, RepairOption, verify
from perdure.cli.console import console
from perdure.cli.options import ConfigOption, DeviceOption, DtypeOption
from perdure.errors import PerdureError

__all__ = ["demo", "doctor", "methods", "smallworld"]


def methods() -> None:
    """List the methods, their papers and their options."""
    from perdure.methods import METHODS

    for name, method in METHODS.items():
        console.print(f"{name}\n  {method.title}\n  {method.paper}")
        for item in fields(method.Config):
            console.print(f"    {item.name}={item.default!r}")


def doctor(
    base: Annotated[
        str,
        typer.Option(
            "--base",
            help="As in `perdure learn`; smallworld by default, with --bank none.",
            show_default=False,
        ),
    ] = "",
    config: ConfigOption = "",
    device: DeviceOption = "",
    dtype: DtypeOption = "",
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure smallworld's quality as well (minutes).")
    ] = False,
    pictures: Annotated[
        int, typer.Option(min=8, max=100_000, help="Pictures drawn by --measure.")
    ] = 512,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the model card and its figures.")
    ] = None,
    bank: Annotated[
        Path | None, typer.Option(help="Check this bank instead, as `perdure verify` does.")
    ] = None,
    as_json: JsonOption = False,
    mend: RepairOption = False,
) -> None:
    """Say what machine and base this is, and whether they fit; with --measure, how good it is."""
    if bank is not None:
        if measure or out:
            raise PerdureError("--measure and --out are of a base: leave them or --bank out.")
        verify(bank, base, config, device, dtype, as_json, mend)
        return
    if as_json or mend:
        raise PerdureError("--json and --repair are of a bank: name it with --bank.")
    from perdure.doctor import describe, quality

    base = base or "smallworld"
    for name, value in describe(
        base, device=device or None, dtype=dtype or None, config=config or None
    ):
        console.print(f"{name:>24}  {value}")
    if measure:
        for row in quality(
            base,
            device=device or None,
            dtype=dtype or None,
            config=config or None,
            pictures=pictures,
            out=out,
            progress=console.print,
        ):
            console.print(row)


def smallworld(
    out: Annotated[Path, typer.Argument(help="Folder for the pictures.")],
    domain: Annotated[str, typer.Option(help="person, pet, place or object.")] = "person",
    identity: Annotated[int, typer.Option(min=0, help="Seed of the identity.")] = 2_000_000,
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many pictures.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other pictures of the same.")] = 0,
) -> None:
    """Write a few pictures of one drawn identity, to learn from."""
    from perdure.smallworld.samples import write_pictures

    try:
        paths = write_pictures(out, domain=domain, identity=identity, count=count, seed=seed)
    except ValueError as error:
        raise PerdureError(f"{error}.") from error
    console.print(f"{len(paths)} pictures in {out}")


def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for everything that it makes.  [default: demo-out; quick: demo-out/quick]",
            show_default=False,
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two people, two methods, few steps: a few minutes.")
    ] = False,
    device: DeviceOption = "",
    dtype: DtypeOption = "",
) -> None:
    """Teach five people one after another, with the usual way and with C-LoRA, and compare."""
    from perdure.benchmarks.demo import QUICK, WHOLE, run_demo

    page = run_demo(
        out or (Path("demo-out") / "quick" if quick else Path("demo-out")),
        extent=QUICK if quick else WHOLE,
        device=device or None,
        dtype=dtype or None,
        say=console.print,
    )
    console.print(f"\nOpen this page:  {page.resolve()}")
