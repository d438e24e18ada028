"""Prompts that are recognised by their states, and what acts in them in whatever pass they come."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from perdure.adapters import PromptDelta, Prompts, Token
from perdure.errors import PerdureError
from perdure.hosts.diffusion.session import Boxed, Session
from perdure.hosts.frozen import acting, adding

__all__ = ["Recognised", "Speaker", "States"]

States = Tensor | Sequence[Tensor]
"""Of N prompts: (N, P, ...), or (P, ...) each where prompts are as long as they are."""


class Speaker(Protocol):
    """What a bank answers of prompts."""

    @property
    def targets(self) -> str:
        """The set of target layers."""

    @property
    def live(self) -> bool:
        """Does anything act in the passes themselves, beside what is folded?"""

    def tokens_of(self, texts: Sequence[str]) -> Mapping[str, Token]:
        """The tokens that texts speak of; PerdureError where one cannot be drawn as it stands."""

    def fold(self, session: Session, texts: Sequence[str]) -> None:
        """Fold what these prompts are drawn with; PerdureError where no one fold is for all."""

    def said(self, prompts: Prompts) -> Sequence[PromptDelta]:
        """What acts in prompts."""

    def by_layer(self, session: Session, texts: Sequence[str]) -> Tensor | None:
        """(L, N, P, d), where layers read the prompts each their own way."""

    def regions(self, session: Session, text: str) -> Sequence[Boxed]:
        """What parts of a picture read in the place of a prompt; none where all read that."""


@dataclass(frozen=True, kw_only=True)
class _Heard:
    text: str
    spoken: tuple[tuple[str, int], ...]
    end: int
    rest: tuple[slice, ...]
    positions: int
    """How many states of it methods see; a pipeline may have padded them further."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Run:
    """Rows of a pass that stand side by side, and what acts in them."""

    rows: slice
    positions: int
    live: Sequence[PromptDelta]
    added: Mapping[str, Tensor]
    by_layer: Tensor | None
    regions: Sequence[Boxed]


class Recognised:
    """Rows of states by their values, and hooks that act on those rows of a pass.

    So it does not matter where a pipeline puts the prompts in a pass and where those that guidance
    steps away from, how often it repeats them, or who keeps them meanwhile. A pass without such a
    row runs the base's own code.
    """

    def __init__(self, session: Session, speaker: Speaker) -> None:
        self.session, self.speaker = session, speaker
        self._heard: dict[bytes, _Heard] = {}
        self._avoided: set[bytes] = set()
        self._given: Sequence[Tensor] = ()
        self._runs: Sequence[_Run] = ()
        self._open = ExitStack()

    def install(self, denoiser: nn.Module) -> Callable[[], None]:
        """Act in the denoiser's passes, until what is returned is called."""
        before = denoiser.register_forward_pre_hook(self._before, with_kwargs=True)
        after = denoiser.register_forward_hook(self._after, always_call=True)

        def remove() -> None:
            before.remove()
            after.remove()
            self._open.close()

        return remove

    def begin(self) -> None:
        """A new call: nothing is avoided, nothing computed yet."""
        self._avoided.clear()
        self._given, self._runs = (), ()

    @torch.no_grad()
    def hear(self, states: States, texts: Sequence[str], positions: int | None = None) -> None:
        """Remember whose states these are, several rows a prompt.

        Args:
            states: of known concepts, as they will come to the denoiser.
            texts: the prompts.
            positions: how many of each methods see; all of them by default.

        PerdureError where a concept stands beyond them.
        """
        where, rows = self.session.places(texts), list(states)
        for n, row in enumerate(rows):
            k = n * len(texts) // len(rows)
            for name, place in where.spoken[k]:
                if place >= len(row):
                    raise PerdureError(
                        f"<{name}> stands in what the pipeline cuts off of {texts[k]!r}: shorten "
                        "it, speak of the concept earlier, or leave max_sequence_length out."
                    )
            heard = _Heard(
                text=texts[k],
                spoken=where.spoken[k],
                end=where.ends[k],
                rest=where.rests[k] if where.rests else (slice(where.ends[k], None),),
                positions=positions or len(row),
            )
            for key in _keys([row, row.to(self.session.base.dtype)]):
                self._heard[key] = heard

    def avoid(self, states: States) -> None:
        """In this call these are prompts that guidance steps away from, in which nothing acts."""
        self._avoided |= set(_keys(states))

    def texts_of(self, states: States) -> list[str]:
        """The prompts whose states these are, as far as they are known."""
        return [heard.text for key in _keys(states) if (heard := self._heard.get(key))]

    @torch.no_grad()
    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        base, family = self.session.base, self.session.base.family
        call = inspect.signature(type(module).forward)
        given = call.bind(module, *args, **kwargs).arguments
        states = given.get(family.states)
        parts = [states] if isinstance(states, Tensor) else list(states or ())
        if [id(part) for part in parts] != [id(part) for part in self._given]:
            self._given, self._runs = parts, self._runs_of(parts if states is None else states)
        self._open.close()
        for run in self._runs:
            rows = _always(run.rows)
            text = _always(family.text_of(base.pipeline, run.positions, given))
            self._open.enter_context(adding(base.layers, run.added, rows))
            self._open.enter_context(acting(base.layers, run.live, rows, text))
            if run.regions:
                size = family.size_of(base.pipeline, given)
                now = partial(family.done, base.pipeline, given)
                attending = family.attending(base.pipeline, run.regions, rows, size, now)
                self._open.enter_context(attending)
            if run.by_layer is not None:
                reading = family.reading(base.pipeline, run.by_layer, rows)
                self._open.enter_context(reading)

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._open.close()

    def _runs_of(self, states: States) -> list[_Run]:
        keys = _keys(states)
        heard = [None if key in self._avoided else self._heard.get(key) for key in keys]
        regions = {
            one.text: self.speaker.regions(self.session, one.text)
            for one in heard
            if one is not None and len(one.spoken) > 1
        }
        runs, start = [], 0

        def alike(one: _Heard | None) -> tuple[bool, str]:
            return one is not None, one.text if one is not None and regions.get(one.text) else ""

        for (known, laid), group in groupby(heard, key=alike):
            of = list(group)
            speaking = [n for n, one in enumerate(of, start) if one is not None and one.spoken]
            start += len(of)
            if known and speaking:
                rows = slice(speaking[0], speaking[-1] + 1)
                here = [one for one in heard[rows] if one is not None]
                runs.append(self._run(states[rows], here, rows, regions.get(laid, ())))
        return runs

    def _run(
        self, states: States, heard: Sequence[_Heard], rows: slice, regions: Sequence[Boxed]
    ) -> _Run:
        session, base = self.session, self.session.base
        whole = states if isinstance(states, Tensor) else pad_sequence(list(states), True)
        positions = min(whole.shape[1], max(one.positions for one in heard))
        seen = whole[:, :positions].flatten(2).to(next(base.denoiser.parameters()).device)
        prompts = Prompts(
            base.family.features(base.pipeline, seen),
            tuple(one.spoken for one in heard),
            tuple(one.end for one in heard),
            tuple(one.rest for one in heard),
        )
        deltas = self.speaker.said(prompts)
        added = session.added(deltas, prompts)
        return _Run(
            rows=rows,
            positions=positions,
            live=session.parts_of(deltas, prompt=False),
            added={name: extra.to(whole.device) for name, extra in added.items()},
            by_layer=self.speaker.by_layer(session, [one.text for one in heard]),
            regions=regions,
        )


def _keys(states: States) -> list[bytes]:
    """Of each row of states, whatever dtype holds its values."""
    return [
        hashlib.sha256(row.detach().float().cpu().contiguous().numpy().tobytes()).digest()
        for row in states
    ]


def _always(where: slice) -> Callable[..., slice]:
    return lambda *of: where
