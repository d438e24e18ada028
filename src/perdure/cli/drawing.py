"""The verb that draws: `perdure generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perdure.cli.console import console, counter, note
from perdure.cli.fields import Given, with_options
from perdure.cli.options import (
    BankOption,
    BaseOption,
    ConfigOption,
    DeviceOption,
    DtypeOption,
    QuantizeOption,
    opening,
)
from perdure.drawing.settings import DrawSettings

__all__ = ["generate"]


@with_options(settings=DrawSettings(count=4))
def generate(
    prompts: Annotated[list[str], typer.Argument(help="Prompts; speak of a concept as <name>.")],
    *,
    bank: BankOption = Path("bank"),
    base: BaseOption = "smallworld",
    config: ConfigOption = "",
    device: DeviceOption = "",
    dtype: DtypeOption = "",
    quantize: QuantizeOption = "",
    out: Annotated[
        Path, typer.Option(help="Folder for the pictures, which are numbered on.")
    ] = Path("pictures"),
    settings: Given,
    box: Annotated[
        list[str] | None,
        typer.Option(
            help="Draw a phrase of its own in a box, as 'PHRASE@LEFT,TOP,RIGHT,BOTTOM' in shares "
            "of the picture's sides: 'a photo of <rex>@0,0,0.5,1'."
        ),
    ] = None,
    scale: Annotated[
        int, typer.Option(min=1, max=16, help="Enlarge this many times, pixel by pixel.")
    ] = 1,
) -> None:
    """Draw prompts with everything that the bank has learned."""
    from perdure.bank import Bank
    from perdure.drawing.painter import Painter
    from perdure.drawing.regions import read_region
    from perdure.hosts.diffusion.host import Base
    from perdure.outputs import first_free_number, output_folder

    regions = [read_region(text) for text in box or []]
    known = Bank.open(bank)
    painter = Painter(Base.open(base, **opening(config, device, dtype, quantize)), known)
    asked, folder = DrawSettings.of(settings), output_folder(out)
    with counter("drawing") as progress:
        pictures = painter.draw(prompts, regions=regions, progress=progress, **settings)
    for text in dict.fromkeys([*prompts, asked.negative, *(region.phrase for region in regions)]):
        if extra := painter.base.tokens.too_long(text):
            note(f"{text!r} is too long for this base, which did not read its last {extra} tokens.")
    first = first_free_number(folder)
    for k, picture in enumerate(pictures):
        of, number = divmod(k, asked.count)
        path = folder / f"{first + of:02d}-{asked.seed + number}.png"
        size = (picture.width * scale, picture.height * scale)
        with path.open("xb") as file:
            picture.resize(size, resample=0).save(file, "PNG")
        console.print(str(path))
