"""The verb that draws: `perdure generate`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

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
from perdure.errors import PerdureError

__all__ = ["generate"]


@with_options(settings=DrawSettings, without=("count",))
def generate(
    prompts: Annotated[
        list[str] | None,
        typer.Argument(help="Prompts; speak of a concept as <name>.", show_default=False),
    ] = None,
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
    like: Annotated[
        Path | None,
        typer.Option(
            help="A picture that was written here: draw it again, but for what is given beside it."
        ),
    ] = None,
    count: Annotated[
        str | None,
        typer.Option(
            help="Pictures of each prompt.  [default: 4; of --like 1]",
            metavar="<int>",
            show_default=False,
        ),
    ] = None,
    settings: Given,
    init: Annotated[
        Path | None,
        typer.Option(help="A picture to begin with; --strength says how much is drawn over."),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(
            help="Draw a phrase of its own in a box, as 'PHRASE@LEFT,TOP,RIGHT,BOTTOM' in shares "
            "of the picture's sides: 'a photo of <rex>@0,0,0.5,1'."
        ),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(min=1, max=16, help="Enlarge this many times, pixel by pixel.  [default: 1]"),
    ] = None,
    show_layout: Annotated[
        bool,
        typer.Option("--show-layout", help="Also write where subjects stand, a picture a prompt."),
    ] = False,
    grid: Annotated[
        bool, typer.Option("--grid", help="Also write all pictures as one, a row a prompt.")
    ] = False,
) -> None:
    """Draw prompts with everything that the bank has learned."""
    from perdure.bank import Bank
    from perdure.drawing.again import draw_like
    from perdure.drawing.facts import facts_of, read_facts, save_picture
    from perdure.drawing.layout import NoNounError
    from perdure.drawing.painter import Painter
    from perdure.drawing.plan import plan
    from perdure.drawing.regions import read_region
    from perdure.hosts.diffusion.host import Base
    from perdure.outputs import first_free_number, output_folder, possible_folder
    from perdure.sheet import contact_sheet

    facts = None if like is None else read_facts(like)
    if facts is None and not prompts:
        raise PerdureError(
            "What is to be drawn? Give a prompt: perdure generate 'a photo of <rex>' --bank bank"
        )
    regions = None if box is None else [read_region(text) for text in box]
    counted = DrawSettings.read({"count": count or ("4" if facts is None else "1")})
    given: dict[str, Any] = {"init": init, **settings, **counted}
    known, folder = Bank.open(bank), possible_folder(out)
    if facts is None:
        opened = Base.open(base, **opening(config, device, dtype, quantize))
        with counter("drawing") as progress:
            pictures = Painter(opened, known).draw(
                prompts or (), regions=regions or (), progress=progress, note=note, **given
            )
    else:
        as_then = opening(config, device, dtype or facts.dtype, quantize or facts.quantize or "")
        opened = Base.open(base, **as_then)
        with counter("drawing") as progress:
            pictures = draw_like(
                opened,
                known,
                facts,
                prompts or (),
                regions=regions,
                note=note,
                progress=progress,
                **given,
            )
    told = [one for one in map(facts_of, pictures) if one is not None]
    texts = [text for one in told for text in (one.prompt, one.negative, *one.phrases)]
    for text in dict.fromkeys(texts):
        if extra := opened.tokens.too_long(text):
            note(f"{text!r} is too long for this base, which did not read its last {extra} tokens.")
    enlarged = scale or (1 if facts is None else facts.scale)
    first, each = first_free_number(output_folder(folder)), given["count"]
    for k, (picture, one) in enumerate(zip(pictures, told, strict=True)):
        path = folder / f"{first + k // each:02d}-{one.seed}.png"
        save_picture(picture, path, scale=enlarged)
        console.print(str(path))
    if show_layout:
        painter = Painter(opened, known, upto=told[0].tasks)
        for k, one in enumerate(told[::each]):
            with suppress(NoNounError):
                laid = None if one.boxes or one.layout == "none" else painter.layout(one.prompt)
                if laid is not None:
                    path = folder / f"{first + k:02d}-layout.png"
                    save_picture(plan(laid, one.size), path)
                    console.print(str(path))
    if grid:
        path = folder / f"{first + len(pictures) // each:02d}-grid.png"
        labels = [one.prompt for one in told[::each]]
        save_picture(contact_sheet(pictures, labels, scale=enlarged), path)
        console.print(str(path))
