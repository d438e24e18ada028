"""Verbs between banks and other programs: export, adopt, push."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perdure.cli.console import console, note
from perdure.cli.fields import Given, with_options
from perdure.cli.options import (
    BankOption,
    BaseOption,
    ConfigOption,
    DeviceOption,
    DtypeOption,
    ManyConcepts,
    MethodOptions,
    method_options,
    opening,
)
from perdure.exchange.settings import ExportSettings, PushSettings

__all__ = ["adopt", "export", "push"]


@with_options(settings=ExportSettings)
def export(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    *,
    bank: BankOption = Path("bank"),
    base: BaseOption = "smallworld",
    config: ConfigOption = "",
    device: DeviceOption = "",
    dtype: DtypeOption = "",
    concept: ManyConcepts = None,
    settings: Given,
) -> None:
    """Write the bank for other programs: a folded diffusers folder, LoRAs, textual inversions."""
    from perdure.exchange.export import export as write
    from perdure.exchange.words import said_of
    from perdure.hosts.diffusion.host import Base

    opened = Base.open(base, **opening(config, device, dtype))
    made = write(opened, bank, out, concepts=concept or (), **settings)
    for sentence in said_of(made):
        console.print(sentence)


def adopt(
    source: Annotated[
        Path, typer.Argument(help="A LoRA (kohya, diffusers, PEFT) or a textual inversion.")
    ],
    bank: BankOption = Path("bank"),
    base: BaseOption = "smallworld",
    config: ConfigOption = "",
    device: DeviceOption = "",
    dtype: DtypeOption = "",
    name: Annotated[str, typer.Option(help="Of the concept; default: the file's.")] = "",
    embedding: Annotated[
        Path | None, typer.Option(help="The textual inversion that a LoRA was trained with.")
    ] = None,
    trigger: Annotated[
        str, typer.Option(help="Or the word of the base that it was trained with, such as sks.")
    ] = "",
    scale: Annotated[float, typer.Option(help="Weight of a LoRA.")] = 1.0,
    method: Annotated[str, typer.Option(help="Of a new bank, such as gated.")] = "",
    option: MethodOptions = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for another writer.")] = 0,
) -> None:
    """Take a LoRA or a textual inversion that was trained elsewhere into a bank."""
    from perdure.exchange.adopt import adopt as take
    from perdure.hosts.diffusion.host import Base

    record = take(
        Base.open(base, **opening(config, device, dtype)),
        bank,
        name or (source if source.is_dir() else source.with_suffix("")).resolve().name,
        source,
        embedding=embedding,
        trigger=trigger or None,
        scale=scale,
        method=method or None,
        options=method_options(option or []) or None,
        note=note,
        wait=wait,
    )
    adopted = record.facts["adopted"]
    console.print(
        f"adopted <{record.concepts[0]}>: rank {adopted['rank']} in {adopted['layers']} layers, "
        f"scale {scale:g}"
        if adopted["layers"]
        else f"adopted <{record.concepts[0]}>: a token"
    )


@with_options(settings=PushSettings)
def push(
    repository: Annotated[str, typer.Argument(help="On the hub: user/name.")],
    *,
    bank: BankOption = Path("bank"),
    base: BaseOption = "smallworld",
    config: ConfigOption = "",
    device: DeviceOption = "",
    dtype: DtypeOption = "",
    settings: Given,
) -> None:
    """Send a bank to the hub with a model card, for others to draw with --bank hf://user/name."""
    from perdure.exchange.push import push as send
    from perdure.hosts.diffusion.host import Base

    opened = Base.open(base, **opening(config, device, dtype))
    console.print(send(opened, bank, repository, note=note, **settings))
