"""`perdure learn`: read what was asked, teach, say what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from perdure.cli.console import bar, console, note
from perdure.cli.fields import Given, with_options
from perdure.cli.options import (
    BankOption,
    BaseOption,
    ConfigOption,
    DeviceOption,
    DtypeOption,
    EncoderOption,
    MethodOptions,
    QuantizeOption,
    RayOption,
    method_options,
    opening,
)
from perdure.errors import PerdureError
from perdure.learning.lessons import Lesson, Lessons, read_lessons
from perdure.learning.settings import LearnSettings
from perdure.learning.weighted import Source

if TYPE_CHECKING:
    from perdure.bank import TaskRecord

__all__ = ["learn"]


@with_options(settings=LearnSettings)
def learn(
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(
            help="A folder of pictures per concept; or (with one --name) the files; or a TOML file "
            "that lists concepts."
        ),
    ] = None,
    *,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--pictures",
            help="One of several folders or files of one concept, with its weight as in "
            "photos/rex=2; again for more.",
        ),
    ] = None,
    bank: BankOption = Path("bank"),
    name: Annotated[
        list[str] | None,
        typer.Option("--name", help="Name of the concept; by default the folder's name."),
    ] = None,
    base: BaseOption = "smallworld",
    config: ConfigOption = "",
    device: DeviceOption = "",
    dtype: DtypeOption = "",
    quantize: QuantizeOption = "",
    method: Annotated[
        str, typer.Option(help="See `perdure methods`. Default: the bank's own, else gated.")
    ] = "",
    option: MethodOptions = None,
    noun: Annotated[
        str, typer.Option(help="Class noun for text alignment; never trained on.")
    ] = "",
    settings: Given,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted learn.")
    ] = False,
    discard: Annotated[
        bool, typer.Option("--discard", help="Give up an interrupted learn.")
    ] = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait for another writer.")] = 0,
    processes: Annotated[
        int,
        typer.Option(min=1, max=1000, help="Concepts learned at once, for a method without order."),
    ] = 1,
    ray: RayOption = "",
    encoder: EncoderOption = "",
    check: Annotated[
        bool, typer.Option(help="Afterwards draw the earlier concepts again and compare.")
    ] = True,
) -> None:
    """Teach the bank the concept of each folder, one after another (with joint: all at once).

    A base may advise other defaults than the ones below; smallworld does.
    """
    from perdure.bank import Bank
    from perdure.hosts.diffusion.host import Base
    from perdure.learning import learn as teaching
    from perdure.learning import many, request

    if (resume or discard) and (pictures or sources):
        raise PerdureError("--resume and --discard take no pictures: the bank knows them.")
    if discard:
        request.discard(bank)
        console.print("The interrupted learn is given up; the bank is as it was.")
        return
    told = (
        Lessons(lessons=()) if resume else _lessons(pictures or [], sources or [], name or [], noun)
    )
    opener = partial(
        Base.open, base, encoder=encoder or None, **opening(config, device, dtype, quantize)
    )
    opened = opener()
    workers: dict[str, Any] = {"processes": processes, "ray": ray or None}
    talk: dict[str, Any] = {"note": note, "wait": wait}
    if resume:
        if settings or option or method or name or noun:
            raise PerdureError("--resume goes on with the options that the learn began with.")
        pending = request.pending(Bank.open(bank))
        if (bank / ".learning" / request.MANY).exists():
            records = many.resume_many(opener, bank, **workers, **talk)
        else:
            with bar("resuming") as report:
                records = [teaching.resume(opened, bank, report=report, **talk)]
        _learned(records)
        _after(opened, bank, check, pending)
        return
    given = {"method": method or told.method, **talk}
    given["options"] = {**told.options, **method_options(option or [])}
    lessons = _new(told.lessons, bank) if _is_list(pictures or []) else told.lessons
    whole = teaching.at_once(bank, given["method"])
    apart = [lesson for lesson in lessons if lesson.settings]
    if apart and (whole or processes > 1 or ray):
        raise PerdureError(
            f"<{apart[0].name}> has settings of its own, and concepts that are learned at once "
            "share theirs: say them under [learn]."
        )
    if processes > 1 or ray:
        together = {lesson.name: lesson.pictures for lesson in lessons}
        nouns, common = _nouns(lessons), {**told.settings, **settings}
        _learned(many.learn_many(opener, bank, together, nouns=nouns, **workers, **common, **given))
        _after(opened, bank, check, together)
        return
    for task in [lessons] if whole else [[lesson] for lesson in lessons]:
        own_settings = {**told.settings, **task[0].settings, **settings}
        with bar(", ".join(f"<{lesson.name}>" for lesson in task)) as report:
            record = teaching.learn(
                opened,
                bank,
                {lesson.name: lesson.pictures for lesson in task},
                nouns=_nouns(task),
                report=report,
                **own_settings,
                **given,
            )
        _learned([record])
        _after(opened, bank, check, {lesson.name: lesson.pictures for lesson in task})


def _is_list(pictures: Sequence[Path]) -> bool:
    return len(pictures) == 1 and pictures[0].suffix.lower() == ".toml"


def _lessons(
    pictures: Sequence[Path], sources: Sequence[str], names: Sequence[str], noun: str
) -> Lessons:
    """What is to be learned of each concept."""
    if sources:
        return _weighted(pictures, sources, names, noun)
    if not pictures:
        raise PerdureError("Which pictures? Give a folder: perdure learn photos/rex --bank bank")
    for path in pictures:
        if not path.exists():
            raise PerdureError(f"There is no {path}: give a folder of pictures, or picture files.")
    if _is_list(pictures):
        if names or noun:
            raise PerdureError(f"{pictures[0]} names its concepts itself: leave --name and --noun.")
        return read_lessons(pictures[0])
    if all(path.is_dir() for path in pictures):
        given = list(names) or [_name_of(path) for path in pictures]
        if len(given) != len(pictures):
            raise PerdureError(
                f"{len(pictures)} folders came with {len(given)} names: give as many."
            )
        if len(set(given)) != len(given):
            twice = next(name for name in given if given.count(name) > 1)
            raise PerdureError(f"Two folders are named {twice}: name each one with --name.")
        pairs = zip(given, pictures, strict=True)
        return Lessons(lessons=tuple(Lesson(name=n, pictures=p, noun=noun) for n, p in pairs))
    if len(names) != 1:
        raise PerdureError("Picture files are of one concept: name it with one --name.")
    return Lessons(lessons=(Lesson(name=names[0], pictures=list(pictures), noun=noun),))


def _weighted(
    pictures: Sequence[Path], sources: Sequence[str], names: Sequence[str], noun: str
) -> Lessons:
    """One concept of several sources."""
    if pictures:
        raise PerdureError("--pictures are one concept's: give its folders all by --pictures.")
    if len(names) > 1:
        raise PerdureError("--pictures are of one concept: name it with one --name.")
    read = [Source.of(one) for one in sources]
    for one in read:
        if not one.pictures.exists():
            raise PerdureError(f"There is no {one.pictures}: give a folder, or picture files.")
    name = names[0] if names else _name_of(read[0].pictures)
    return Lessons(lessons=(Lesson(name=name, pictures=read, noun=noun),))


def _new(lessons: Sequence[Lesson], bank: Path) -> Sequence[Lesson]:
    """Those that the bank does not hold yet, so that a list can be gone on with."""
    from perdure.bank import Bank

    known = Bank.open(bank).concepts if (bank / "bank.json").exists() else ()
    for lesson in lessons:
        if lesson.name in known:
            note(f"<{lesson.name}> is learned already.")
    if not (new := [lesson for lesson in lessons if lesson.name not in known]):
        raise PerdureError(f"The bank {bank} has learned all of that list: add a concept to it.")
    return new


def _nouns(lessons: Sequence[Lesson]) -> dict[str, str]:
    return {lesson.name: lesson.noun for lesson in lessons if lesson.noun}


def _name_of(folder: Path) -> str:
    from perdure.bank import check_concept_name
    from perdure.bank_names import composed

    name = composed(folder.resolve().name)
    try:
        check_concept_name(name)
    except PerdureError as error:
        raise PerdureError(f"{error} Give another one than the folder's with --name.") from error
    return name


def _learned(records: Sequence[TaskRecord]) -> None:
    for record in records:
        names, facts = ", ".join(f"<{name}>" for name in record.concepts), record.facts
        console.print(
            f"learned {names} in {facts['seconds']:.0f} s: loss {facts['loss']:.4f}, "
            f"penalty {facts['penalty']:.4g}, adapter norm {facts['norm']:.3f}, "
            f"{facts['parameters']:,} parameters"
        )


def _after(base: Any, bank: Path, check: bool, taught: Mapping[str, Any]) -> None:
    """Whether the new concepts look like their pictures; the table of what they cost the others."""
    if not check:
        return
    from perdure.measuring.cost import MOST, what_it_cost
    from perdure.measuring.features import MetricEncoder
    from perdure.measuring.likeness import Likenesses

    try:
        encoder = MetricEncoder.of(base)
        costs = what_it_cost(base, bank, encoder)
        for one in Likenesses(base, encoder).of(bank, taught):
            if one.own <= one.ordinary:
                note(
                    f"<{one.concept}> draws nothing like its pictures (likeness {one.own:.2f}; what"
                    f" the base draws of any prompt has {one.ordinary:.2f}): forget it and learn it"
                    " again with more --steps, another --lr or better pictures."
                )
    except PerdureError as error:
        note(f"What it cost the earlier concepts is not known. {error}")
        return
    if not costs:
        return
    table = Table("earlier concept", "likeness kept", "MMD x 1000", box=None)
    for cost in costs:
        table.add_row(f"<{cost.concept}>", f"{cost.likeness_kept:.3f}", f"{1000 * cost.mmd:.1f}")
    console.print(table)
    if len(costs) >= MOST:
        note("Of many earlier concepts a few are looked at after each learn, others each time.")
