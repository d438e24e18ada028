"""Verbs that look into a bank: list, show, remove, evaluate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from perdure.cli.console import console
from perdure.cli.options import (
    BankOption,
    BaseOption,
    ConfigOption,
    DeviceOption,
    DtypeOption,
    EncoderOption,
)
from perdure.errors import PerdureError

__all__ = ["evaluate", "list_concepts", "remove", "show"]


def list_concepts(bank: BankOption = Path("bank")) -> None:
    """List the concepts of a bank in the order they were learned."""
    from perdure.bank import Bank

    opened = Bank.open(bank)
    table = Table("concept", "task", "steps", "seconds", "KiB", box=None)
    for task in opened.tasks:
        for concept in task.concepts:
            size = opened.concept_file(concept).stat().st_size / 1024
            steps = str(task.facts.get("settings", {}).get("steps", ""))
            seconds = f"{task.facts.get('seconds', 0):.0f}"
            table.add_row(f"<{concept}>", task.folder, steps, seconds, f"{size:.0f}")
    console.print(f"{bank}: {opened.method} on {opened.base}, {len(opened.concepts)} concepts")
    console.print(table)


def show(
    concept: Annotated[str, typer.Argument(help="Name of the concept, without brackets.")],
    bank: BankOption = Path("bank"),
) -> None:
    """Show everything that the bank knows of a concept."""
    from perdure.bank import Bank

    console.print_json(json.dumps(Bank.open(bank).metadata(concept)))


def remove(
    concept: Annotated[str, typer.Argument(help="Name of the concept, without brackets.")],
    bank: BankOption = Path("bank"),
) -> None:
    """Forget a concept, where the method can do without it."""
    from perdure.bank import Bank
    from perdure.methods import Kept, Together, build

    opened = Bank.open(bank)
    with opened.lock(verb="remove"):
        kept = [Kept(concepts=names, tensors=tensors) for names, tensors in opened.kept()]
        method, together = build(opened.method, **opened.config), None
        if isinstance(method, Together):
            together = method.without(opened.together(), concept)
        try:
            if concept in opened.concepts:
                method.check_removable(kept, concept)
        except ValueError as error:
            raise PerdureError(f"{error}.") from error
        opened.remove(concept, together=together)
    console.print(f"<{concept}> is gone; {len(opened.concepts)} concepts remain.")


def evaluate(
    bank: BankOption = Path("bank"),
    base: BaseOption = "smallworld",
    config: ConfigOption = "",
    device: DeviceOption = "",
    dtype: DtypeOption = "",
    references: Annotated[
        Path | None,
        typer.Option(help="Folder with a sub-folder of real pictures for each concept."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.")] = None,
    encoder: EncoderOption = "",
    pictures: Annotated[int, typer.Option(min=2, help="Drawn for each concept and moment.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="First seed.")] = 1000,
) -> None:
    """Measure what the bank remembers: matrix.json and a page, report.html."""
    from perdure.bank import Bank
    from perdure.hosts.diffusion.host import Base
    from perdure.measuring.evaluate import evaluate as measure
    from perdure.measuring.features import MetricEncoder
    from perdure.measuring.report import write_report
    from perdure.measuring.summary import bank_report

    opened = Bank.open(bank)
    model = Base.open(
        base,
        encoder=encoder or None,
        device=device or None,
        dtype=dtype or None,
        config=config or None,
    )
    found = _references(references, opened.concepts) if references else None
    result = measure(
        model,
        opened,
        MetricEncoder.of(model),
        references=found,
        pictures=pictures,
        seed=seed,
        progress=console.print,
    )
    folder = out or bank / "evaluation"
    folder.mkdir(parents=True, exist_ok=True)
    result.matrix.save(folder / "matrix.json")
    write_report(folder / "report.html", bank_report(opened, result))
    console.print(f"{folder / 'matrix.json'}\n{folder / 'report.html'}")


def _references(folder: Path, concepts: Sequence[str]) -> dict[str, Path]:
    missing = [name for name in concepts if not (folder / name).is_dir()]
    if missing:
        raise PerdureError(
            f"{folder} has no folder {missing[0]!r}: it needs one with pictures for each concept."
        )
    return {name: folder / name for name in concepts}
