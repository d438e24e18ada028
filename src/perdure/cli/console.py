"""What the verbs say: lines, notes, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

if TYPE_CHECKING:
    from perdure.learning.loop import Progress as Step

__all__ = ["bar", "console", "counter", "note"]

console = Console(highlight=False, soft_wrap=True)


def note(sentence: str) -> None:
    console.print(f"note: {sentence}")


@contextmanager
def bar(title: str) -> Iterator[Callable[[Step], None]]:
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
            total = step.steps if step.known else None
            progress.update(task, completed=step.step, total=total, figures=_figures(step))

        yield report


def _lines(title: str) -> Callable[[Step], None]:
    def report(step: Step) -> None:
        if step.step % 50 == 0 or step.step == step.steps:
            of = f"/{step.steps}" if step.known else ""
            console.print(f"{title} {step.step}{of} {_figures(step)}")

    return report


def _figures(step: Step) -> str:
    left = f"{_time(step.left)} left" if step.known else "until it is learned"
    return f"loss {step.loss:.3f}  penalty {step.penalty:.3g}  norm {step.norm:.2f}  {left}"


def _time(seconds: float) -> str:
    """Such as 40 s, 12 min or 3 h 20 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def counter(title: str) -> Iterator[Callable[[int, int], None]]:
    if not console.is_terminal:
        yield lambda done, of: None
        return
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console
    ) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)
