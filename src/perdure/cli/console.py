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
def counter(title: str) -> Iterator[Callable[[int, int], None]]:
    if not console.is_terminal:
        yield lambda done, of: None
        return
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console
    ) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)
