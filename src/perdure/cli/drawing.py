"""Verbs that draw: `perdure generate` and `perdure export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perdure.cli.console import console, counter
from perdure.cli.options import (
    BankOption,
    BaseOption,
    ConfigOption,
    DeviceOption,
    DtypeOption,
    ManyConcepts,
)

__all__ = ["export", "generate"]


def generate(
    prompts: Annotated[list[str], typer.Argument(help="Prompts; speak of a concept as <name>.")],
    bank: BankOption = Path("bank"),
    base: BaseOption = "smallworld",
    config: ConfigOption = "",
    device: DeviceOption = "",
    dtype: DtypeOption = "",
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("pictures"),
    count: Annotated[int, typer.Option(min=1, help="Pictures of each prompt.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first picture.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="Guidance scale.")] = None,
    negative: Annotated[str, typer.Option(help="What the pictures should not show.")] = "",
    box: Annotated[
        list[str] | None,
        typer.Option(
            help="Draw a phrase of its own in a box, as 'PHRASE@LEFT,TOP,RIGHT,BOTTOM' in shares "
            "of the picture's sides: 'a photo of <rex>@0,0,0.5,1'."
        ),
    ] = None,
    scale: Annotated[int, typer.Option(min=1, help="Enlarge this many times, pixel by pixel.")] = 1,
) -> None:
    """Draw prompts with everything that the bank has learned."""
    from perdure.bank import Bank
    from perdure.drawing.painter import Painter
    from perdure.drawing.regions import read_region
    from perdure.hosts.diffusion.host import Base

    regions = [read_region(text) for text in box or []]
    known = Bank.open(bank)
    painter = Painter(
        Base.open(base, device=device or None, dtype=dtype or None, config=config or None), known
    )
    wanted = [prompt for prompt in prompts for _ in range(count)]
    seeds = [seed + k for _ in prompts for k in range(count)]
    with counter("drawing") as progress:
        pictures = painter.draw(
            wanted,
            seeds=seeds,
            steps=steps,
            guidance=guidance,
            negative=negative,
            regions=regions,
            progress=progress,
        )
    out.mkdir(parents=True, exist_ok=True)
    for k, (picture, one) in enumerate(zip(pictures, seeds, strict=True)):
        path = out / f"{k // count:02d}-{one}.png"
        size = (picture.width * scale, picture.height * scale)
        picture.resize(size, resample=0).save(path)
        console.print(str(path))


def export(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    bank: BankOption = Path("bank"),
    base: BaseOption = "smallworld",
    config: ConfigOption = "",
    device: DeviceOption = "",
    dtype: DtypeOption = "",
    concept: ManyConcepts = None,
    check: Annotated[
        bool, typer.Option(help="Open the folder with the stock loader and compare pictures.")
    ] = True,
) -> None:
    """Fold the bank into an ordinary diffusers folder."""
    from perdure.drawing.painter import Painter
    from perdure.drawing.stock import stock_difference
    from perdure.hosts.diffusion.host import Base

    painter = Painter(
        Base.open(base, device=device or None, dtype=dtype or None, config=config or None), bank
    )
    painter.save_folded(out, spoken=concept or ())
    console.print(f"{out}: open it with StableDiffusionPipeline.from_pretrained")
    if check:
        names = list(concept or painter.tokens)[-2:]
        largest = stock_difference(painter, out, [f"a photo of <{name}>" for name in names])
        console.print(
            f"Checked: the stock pipeline draws {' and '.join(f'<{name}>' for name in names)} as "
            f"the bank does (largest difference {largest} of 255)."
        )
