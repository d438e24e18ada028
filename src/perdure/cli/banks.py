"""Verbs that look into a bank: list, show, remove, evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from perdure.cli.console import console
from perdure.cli.fields import Given, with_options
from perdure.cli.options import (
    BankOption,
    BaseOption,
    ConfigOption,
    DeviceOption,
    DtypeOption,
    EncoderOption,
    QuantizeOption,
    opening,
)
from perdure.errors import PerdureError
from perdure.hub import spelt
from perdure.measuring.settings import EvaluateSettings

__all__ = ["evaluate", "list_concepts", "remove", "show"]

ConceptArgument = Annotated[
    str, typer.Argument(help="Name of the concept, without brackets.", show_default=False)
]


def list_concepts(bank: BankOption = Path("bank")) -> None:
    """List the concepts of a bank in the order they were learned."""
    from perdure.bank import Bank
    from perdure.bank_listing import list_concepts as listing

    opened = Bank.open(bank)
    table = Table("concept", "task", "steps", "seconds", "KiB", box=None)
    for one in listing(opened):
        steps = "" if one.steps is None else str(one.steps)
        size = f"{one.bytes / 1024:.0f}"
        table.add_row(f"<{one.concept}>", one.task, steps, f"{one.seconds:.0f}", size)
    console.print(f"{bank}: {opened.method} on {opened.base}, {len(opened.concepts)} concepts")
    console.print(table)


def show(
    what: Annotated[
        str,
        typer.Argument(
            help="A concept of the bank, without brackets, or a PNG that `generate` wrote.",
            show_default=False,
        ),
    ],
    bank: BankOption = Path("bank"),
) -> None:
    """Show everything that the bank knows of a concept, or a picture of how it was drawn."""
    from perdure.bank_names import composed, is_name

    if is_name(composed(what)):  # which no name of a PNG is: it has a dot in it
        from perdure.bank_listing import show as shown

        console.print_json(json.dumps(shown(bank, what)))
        return
    if not Path(what).suffix and not Path(what).exists():
        raise PerdureError(
            f"{what!r} is neither a concept's name nor a picture: `perdure list` shows the "
            "concepts, and pictures are PNGs."
        )
    from perdure.drawing.facts import read_facts

    facts = read_facts(what)
    console.print(facts.parameters, markup=False)
    console.print_json(json.dumps(facts.to_json()))


def remove(concept: ConceptArgument, bank: BankOption = Path("bank")) -> None:
    """Forget a concept, where the method can do without it."""
    from perdure.learning.removal import remove as forget

    remain = forget(bank, concept)
    console.print(f"<{concept}> is gone; {len(remain)} concepts remain.")


@with_options(settings=EvaluateSettings)
def evaluate(
    *,
    bank: BankOption = Path("bank"),
    base: BaseOption = "smallworld",
    config: ConfigOption = "",
    device: DeviceOption = "",
    dtype: DtypeOption = "",
    quantize: QuantizeOption = "",
    references: Annotated[
        Path | None,
        typer.Option(help="Folder with a sub-folder of real pictures for each concept."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.")] = None,
    encoder: EncoderOption = "",
    settings: Given,
) -> None:
    """Measure what the bank remembers: matrix.json and a page, report.html."""
    from perdure.bank import Bank
    from perdure.hosts.diffusion.host import Base
    from perdure.measuring.evaluate import evaluate as measure
    from perdure.measuring.features import MetricEncoder
    from perdure.measuring.report import write_report
    from perdure.measuring.summary import bank_report
    from perdure.outputs import output_folder, possible_folder

    opened = Bank.open(bank)
    model = Base.open(base, encoder=encoder or None, **opening(config, device, dtype, quantize))
    if out is None and spelt(bank):
        raise PerdureError(f"{bank} is only read: name a folder for the results with --out.")
    folder = possible_folder(out or bank / "evaluation")
    if out and any((folder / name).exists() for name in ("matrix.json", "report.html")):
        raise PerdureError(f"{folder} has results in it already: choose another folder.")
    result = measure(
        model,
        opened,
        MetricEncoder.of(model),
        references=references,
        progress=console.print,
        **settings,
    )
    output_folder(folder)
    result.matrix.save(folder / "matrix.json")
    write_report(folder / "report.html", bank_report(opened, result))
    console.print(f"{folder / 'matrix.json'}\n{folder / 'report.html'}")
