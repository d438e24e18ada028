"""Which rows of a pass are the prompts', and not those that guidance steps away from; and how far a
pass is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn

__all__ = [
    "Done",
    "Rows",
    "all_rows",
    "named_passes",
    "negatives_first",
    "positives_first",
    "unnamed_passes",
    "watched",
]

Rows = Callable[[int], slice]
"""Of so many rows of the pass that runs, those of the prompts."""

Done = Callable[[Mapping[str, Any]], float]
"""What share of the noise is gone, by what the denoiser is given, by name."""


def all_rows(rows: int) -> slice:
    """A pass of the prompts alone."""
    return slice(0, rows)


def negatives_first(prompts: int) -> AbstractContextManager[Rows]:
    """One pass for both; the N prompts come last."""
    return nullcontext(lambda rows: slice(rows - prompts, rows))


def positives_first(prompts: int) -> AbstractContextManager[Rows]:
    """One pass for both; the N prompts come first."""
    return nullcontext(lambda rows: slice(0, prompts))


@contextmanager
def named_passes(denoiser: Any) -> Iterator[Rows]:
    """A pass for each, of equal sizes, which the pipeline names by the denoiser's `cache_context`:
    `cond` and `uncond`."""
    own, running = denoiser.cache_context, ["cond"]

    @contextmanager
    def watched(name: str, **given: Any) -> Iterator[None]:
        running[0] = name
        with own(name, **given):
            yield
        running[0] = "cond"

    denoiser.cache_context = watched  # hides the method
    try:
        yield lambda rows: slice(0, rows if running[0] == "cond" else 0)
    finally:
        del denoiser.cache_context


@contextmanager
def unnamed_passes(denoiser: nn.Module) -> Iterator[Rows]:
    """A pass for each, of equal sizes, that the pipeline does not name: the first is the prompts',
    and so are those that are given the very same states."""
    own: list[Tensor] = []
    running = [True]

    def watch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = kwargs["encoder_hidden_states"]
        if not own:
            own.append(given)
        running[0] = given is own[0]

    handle = denoiser.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        yield lambda rows: slice(0, rows if running[0] else 0)
    finally:
        handle.remove()


@contextmanager
def watched(denoiser: nn.Module, done: Done) -> Iterator[Callable[[], float]]:
    """A block in which one can ask what share of the noise is gone in the pass that runs."""
    running = [0.0]

    def watch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments
        running[0] = done(given)

    handle = denoiser.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        yield lambda: running[0]
    finally:
        handle.remove()
