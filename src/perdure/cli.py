"""The command line: one typed function per verb; the work is done elsewhere."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from perdure.errors import PerdureError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perdure.learning.loop import Progress as Step

app = typer.Typer(
    help="Teach one text-to-image model concept after concept; it keeps them all.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
console = Console(highlight=False, soft_wrap=True)

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


@app.command()
def learn(
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(help="A folder of pictures per concept, or (with one --name) the files."),
    ] = None,
    bank: BankOption = Path("bank"),
    name: Annotated[
        list[str] | None,
        typer.Option("--name", help="Name of the concept; by default the folder's name."),
    ] = None,
    base: BaseOption = "smallworld",
    method: Annotated[
        str, typer.Option(help="See `perdure methods`. Default: the bank's own, else c-lora.")
    ] = "",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="An option of the method, such as rank=8."),
    ] = None,
    noun: Annotated[
        str, typer.Option(help="Class noun for text alignment; never trained on.")
    ] = "",
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures in one pass.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Passes in one optimiser step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of the deltas.")] = None,
    token_lr: Annotated[float | None, typer.Option(help="Learning rate of the token.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="AdamW's, on the deltas.")] = None,
    schedule: Annotated[str | None, typer.Option(help="constant or cosine, to zero.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    template: Annotated[
        list[str] | None, typer.Option("--template", help="Training prompt; {} is the token.")
    ] = None,
    fit: Annotated[str | None, typer.Option(help="crop or letterbox.")] = None,
    flip: Annotated[bool | None, typer.Option(help="Learn mirrored pictures as well.")] = None,
    prior: Annotated[
        str | None, typer.Option(help="Prior preservation: a prompt like 'a photo of a person'.")
    ] = None,
    prior_pictures: Annotated[int | None, typer.Option(help="How many prior pictures.")] = None,
    prior_weight: Annotated[float | None, typer.Option(help="Weight of the prior's loss.")] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Steps between checkpoints.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted learn.")
    ] = False,
    discard: Annotated[
        bool, typer.Option("--discard", help="Give up an interrupted learn.")
    ] = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait for another writer.")] = 0,
    processes: Annotated[
        int, typer.Option(min=1, help="Concepts learned at once, for a method without order.")
    ] = 1,
    ray_address: Annotated[
        str, typer.Option(help="Learn on this Ray cluster (pip install perdure[ray]).")
    ] = "",
    encoder: EncoderOption = "",
    check: Annotated[
        bool, typer.Option(help="Afterwards draw the earlier concepts again and compare.")
    ] = True,
) -> None:
    """Teach the bank the concept of each folder, one after another (with joint: all at once)."""
    from perdure.base.base import Base
    from perdure.learning import learn as teaching

    if (resume or discard) and pictures:
        raise PerdureError("--resume and --discard take no pictures: the bank knows them.")
    if discard:
        teaching.discard(bank)
        console.print("The interrupted learn is given up; the bank is as it was.")
        return
    tasks = [] if resume else _tasks(pictures or [], name or [])
    opened = Base.open(base, encoder=encoder or None)
    given: dict[str, Any] = {
        "steps": steps,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "lr": lr,
        "token_lr": token_lr,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "seed": seed,
        "templates": tuple(template) if template else None,
        "fit": fit,
        "flip": flip,
        "prior": prior,
        "prior_pictures": prior_pictures,
        "prior_weight": prior_weight,
        "checkpoint_every": checkpoint_every,
    }
    given = {key: value for key, value in given.items() if value is not None}
    if resume:
        if given or option or method or name or noun:
            raise PerdureError("--resume goes on with the options that the learn began with.")
        if (bank / ".learning" / teaching.MANY).exists():
            from perdure.learning.many import resume_many

            records = resume_many(
                base,
                bank,
                processes=processes,
                ray_address=ray_address or None,
                note=_note,
                wait=wait,
            )
            for record in records:
                _learned(record.concepts, record.facts)
            _after(opened, bank, encoder, check)
            return
        with _bar("resuming") as report:
            record = teaching.resume(opened, bank, report=report, note=_note, wait=wait)
        _learned(record.concepts, record.facts)
        _after(opened, bank, encoder, check)
    if tasks and teaching.at_once(bank, method or None):
        tasks = [{name: source for task in tasks for name, source in task.items()}]
    if processes > 1 or ray_address:
        from perdure.learning.many import learn_many

        concepts = {name: source for task in tasks for name, source in task.items()}
        records = learn_many(
            base,
            bank,
            concepts,
            processes=processes,
            ray_address=ray_address or None,
            method=method or None,
            options=_options(option or []),
            nouns=dict.fromkeys(concepts, noun) if noun else {},
            note=_note,
            wait=wait,
            **given,
        )
        for record in records:
            _learned(record.concepts, record.facts)
        _after(opened, bank, encoder, check)
        return
    for task in tasks:
        with _bar(", ".join(f"<{concept}>" for concept in task)) as report:
            record = teaching.learn(
                opened,
                bank,
                task,
                method=method or None,
                options=_options(option or []),
                nouns=dict.fromkeys(task, noun) if noun else {},
                report=report,
                note=_note,
                wait=wait,
                **given,
            )
        _learned(record.concepts, record.facts)
        _after(opened, bank, encoder, check)


@app.command()
def generate(
    prompts: Annotated[list[str], typer.Argument(help="Prompts; speak of a concept as <name>.")],
    bank: BankOption = Path("bank"),
    base: BaseOption = "smallworld",
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
    from perdure.base.base import Base
    from perdure.drawing.painter import Painter
    from perdure.drawing.regions import read_region

    regions = [read_region(text) for text in box or []]
    known = Bank.open(bank)
    painter = Painter(Base.open(base), known)
    wanted = [prompt for prompt in prompts for _ in range(count)]
    seeds = [seed + k for _ in prompts for k in range(count)]
    with _counter("drawing") as progress:
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


@app.command("list")
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


@app.command()
def show(
    concept: Annotated[str, typer.Argument(help="Name of the concept, without brackets.")],
    bank: BankOption = Path("bank"),
) -> None:
    """Show everything that the bank knows of a concept."""
    from perdure.bank import Bank

    console.print_json(json.dumps(Bank.open(bank).metadata(concept)))


@app.command()
def remove(
    concept: Annotated[str, typer.Argument(help="Name of the concept, without brackets.")],
    bank: BankOption = Path("bank"),
) -> None:
    """Forget a concept, where the method can do without it."""
    from perdure.bank import Bank
    from perdure.methods import Kept, Together, build

    opened = Bank.open(bank)
    with opened.lock(verb="remove"):
        opened.metadata(concept)
        kept = [Kept(concepts=names, tensors=tensors) for names, tensors in opened.kept()]
        method, together = build(opened.method, **opened.config), None
        if isinstance(method, Together):
            together = method.without(opened.together(), concept)
        try:
            method.check_removable(kept, concept)
        except ValueError as error:
            raise PerdureError(f"{error}.") from error
        opened.remove(concept, together=together)
    console.print(f"<{concept}> is gone; {len(opened.concepts)} concepts remain.")


@app.command()
def evaluate(
    bank: BankOption = Path("bank"),
    base: BaseOption = "smallworld",
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
    from perdure.base.base import Base
    from perdure.measuring.evaluate import evaluate as measure
    from perdure.measuring.features import MetricEncoder
    from perdure.measuring.report import write_report
    from perdure.measuring.summary import bank_report

    opened = Bank.open(bank)
    model = Base.open(base, encoder=encoder or None)
    found = _references(references, opened.concepts) if references else None
    result = measure(
        model,
        opened,
        MetricEncoder.open(model.encoder),
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


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    bank: BankOption = Path("bank"),
    base: BaseOption = "smallworld",
    concept: ManyConcepts = None,
    check: Annotated[
        bool, typer.Option(help="Open the folder with the stock loader and compare pictures.")
    ] = True,
) -> None:
    """Fold the bank into an ordinary diffusers folder."""
    from perdure.base.base import Base
    from perdure.drawing.painter import Painter
    from perdure.drawing.stock import stock_difference

    painter = Painter(Base.open(base), bank)
    painter.save_folded(out, spoken=concept or ())
    console.print(f"{out}: open it with StableDiffusionPipeline.from_pretrained")
    if check:
        names = list(concept or painter.rows)[-2:]
        largest = stock_difference(painter, out, [f"a photo of <{name}>" for name in names])
        console.print(
            f"Checked: the stock pipeline draws {' and '.join(f'<{name}>' for name in names)} as "
            f"the bank does (largest difference {largest} of 255)."
        )


@app.command()
def methods() -> None:
    """List the methods, their papers and their options."""
    from perdure.methods import METHODS

    for name, method in METHODS.items():
        console.print(f"{name}\n  {method.title}\n  {method.paper}")
        for item in fields(method.Config):
            console.print(f"    {item.name}={item.default!r}")


@app.command()
def doctor(
    base: BaseOption = "smallworld",
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure smallworld's quality as well (minutes).")
    ] = False,
    pictures: Annotated[int, typer.Option(min=8, help="Pictures drawn by --measure.")] = 512,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the model card and its figures.")
    ] = None,
) -> None:
    """Say what machine and base this is, and whether they fit; with --measure, how good it is."""
    from perdure.doctor import describe, quality

    for name, value in describe(base):
        console.print(f"{name:>24}  {value}")
    if measure:
        for row in quality(base, pictures=pictures, out=out, progress=console.print):
            console.print(row)


@app.command()
def smallworld(
    out: Annotated[Path, typer.Argument(help="Folder for the pictures.")],
    domain: Annotated[str, typer.Option(help="person, pet, place or object.")] = "person",
    identity: Annotated[int, typer.Option(help="Seed of the identity.")] = 2_000_000,
    count: Annotated[int, typer.Option(help="How many pictures.")] = 8,
    seed: Annotated[int, typer.Option(help="Another seed, other pictures of the same.")] = 0,
) -> None:
    """Write a few pictures of one drawn identity, to learn from."""
    from perdure.smallworld.pictures import write_pictures

    try:
        paths = write_pictures(out, domain=domain, identity=identity, count=count, seed=seed)
    except ValueError as error:
        raise PerdureError(f"{error}.") from error
    console.print(f"{len(paths)} pictures in {out}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that it makes.")] = Path(
        "demo-out"
    ),
) -> None:
    """Teach five people one after another, with the usual way and with C-LoRA, and compare."""
    from perdure.benchmarks.demo import run_demo

    page = run_demo(out, say=console.print)
    console.print(f"\nOpen this page:  {page.resolve()}")


def _tasks(pictures: Sequence[Path], names: Sequence[str]) -> list[dict[str, Path | list[Path]]]:
    """Concept -> its folder or files, of each task."""
    if not pictures:
        raise PerdureError("Which pictures? Give a folder: perdure learn photos/rex --bank bank")
    for path in pictures:
        if not path.exists():
            raise PerdureError(f"There is no {path}: give a folder of pictures, or picture files.")
    if all(path.is_dir() for path in pictures):
        given = list(names) or [path.resolve().name for path in pictures]
        if len(given) != len(pictures):
            raise PerdureError(
                f"{len(pictures)} folders came with {len(given)} names: give as many."
            )
        if len(set(given)) != len(given):
            twice = next(name for name in given if given.count(name) > 1)
            raise PerdureError(f"Two folders are named {twice}: name each one with --name.")
        return [{name: path} for name, path in zip(given, pictures, strict=True)]
    if len(names) != 1:
        raise PerdureError("Picture files are of one concept: name it with one --name.")
    return [{names[0]: list(pictures)}]


def _source(files: list[Path]) -> Path | list[Path]:
    return files[0] if len(files) == 1 and files[0].is_dir() else files


def _options(pairs: Sequence[str]) -> dict[str, Any]:
    """`rank=8` and the like, each value read as JSON where it is JSON."""
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise PerdureError(f"--option {pair!r} has no value: write it as name=value.")
        try:
            options[key.replace("-", "_")] = json.loads(text)
        except ValueError:
            options[key.replace("-", "_")] = text
    return options


def _references(folder: Path, concepts: Sequence[str]) -> dict[str, Path]:
    missing = [name for name in concepts if not (folder / name).is_dir()]
    if missing:
        raise PerdureError(
            f"{folder} has no folder {missing[0]!r}: it needs one with pictures for each concept."
        )
    return {name: folder / name for name in concepts}


def _learned(concepts: Sequence[str], facts: dict[str, Any]) -> None:
    names = ", ".join(f"<{name}>" for name in concepts)
    console.print(
        f"learned {names} in {facts['seconds']:.0f} s: loss {facts['loss']:.4f}, "
        f"penalty {facts['penalty']:.4g}, adapter norm {facts['norm']:.3f}, "
        f"{facts['parameters']:,} parameters"
    )


def _after(base: Any, bank: Path, encoder: str, check: bool) -> None:
    """The table of what this concept cost the others."""
    if not check:
        return
    from perdure.measuring.cost import what_it_cost
    from perdure.measuring.features import MetricEncoder

    try:
        costs = what_it_cost(base, bank, MetricEncoder.open(encoder or base.encoder))
    except PerdureError as error:
        _note(f"What it cost the earlier concepts is not known. {error}")
        return
    if not costs:
        return
    table = Table("earlier concept", "likeness kept", "MMD x 1000", box=None)
    for cost in costs:
        table.add_row(f"<{cost.concept}>", f"{cost.likeness_kept:.3f}", f"{1000 * cost.mmd:.1f}")
    console.print(table)


def _note(sentence: str) -> None:
    console.print(f"note: {sentence}")


@contextmanager
def _bar(title: str) -> Iterator[Callable[[Step], None]]:
    """A progress bar on a terminal, a line now and then elsewhere."""
    if not console.is_terminal:
        yield _lines(title)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=None, figures="")

        def report(step: Step) -> None:
            progress.update(task, completed=step.step, total=step.steps, figures=_figures(step))

        yield report


def _lines(title: str) -> Callable[[Step], None]:
    def report(step: Step) -> None:
        if step.step % 50 == 0 or step.step == step.steps:
            console.print(f"{title} {step.step}/{step.steps} {_figures(step)}")

    return report


def _figures(step: Step) -> str:
    return (
        f"loss {step.loss:.3f}  penalty {step.penalty:.3g}  norm {step.norm:.2f}  "
        f"{step.left:.0f} s left"
    )


@contextmanager
def _counter(title: str) -> Iterator[Callable[[int, int], None]]:
    if not console.is_terminal:
        yield lambda done, of: None
        return
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console
    ) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)


def main() -> None:
    """Entry point: what the user can mend is one sentence and exit status 2."""
    _quiet()
    try:
        app()
    except PerdureError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"perdure: {error}", markup=False
        )
        sys.exit(2)
    except KeyboardInterrupt:
        Console(stderr=True).print(
            "Interrupted; nothing is lost: go on with `perdure learn --resume`."
        )
        sys.exit(130)


def _quiet() -> None:
    """Libraries' own progress bars and advice are not for perdure's users."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.filterwarnings("ignore", module=r"(diffusers|transformers|torch)(\..*)?")


if __name__ == "__main__":
    main()
