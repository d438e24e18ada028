"""A bank on a pipeline that somebody else made.

The pipeline keeps its parts, and its call does what it did. Its `encode_prompt` learns the bank's
words, and what acts in a prompt acts where the denoiser is given its states: see `recognised.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import wraps
from itertools import zip_longest
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from perdure.adapters.prompts import STATE
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.hosts.diffusion.recognised import Recognised, Speaker, States
from perdure.hosts.diffusion.tokens import spoken_in

__all__ = ["Attached", "texts_of"]

_HELD: WeakSet[nn.Module] = WeakSet()
"""Denoisers that a bank is attached to."""


class Attached:
    """A bank on a base's parts, until `release`; on a pipeline of them where one is given."""

    def __init__(self, base: Base, speaker: Speaker, pipeline: Any = None) -> None:
        """
        Args:
            base: around a pipeline of its own family, with these parts.
            speaker: what the bank answers.
            pipeline: of the same parts, whose calls and `encode_prompt` are to know the concepts.

        PerdureError where a bank is attached to the same denoiser already.
        """
        denoiser = base.denoiser
        if denoiser in _HELD:
            raise PerdureError("This pipeline has a bank attached already: detach that one first.")
        self.base, self.speaker, self.pipeline = base, speaker, pipeline
        self._calling = self._encoded = False
        with ExitStack() as changed:
            changed.callback(base.release)
            self.session = changed.enter_context(base.session(targets=speaker.targets))
            speaker.fold(self.session, ())
            self.recognised = Recognised(self.session, speaker)
            if speaker.live:
                changed.callback(self.recognised.install(denoiser))
            if pipeline is not None:
                self._kind = type(pipeline)
                changed.callback(setattr, pipeline, "__class__", self._kind)
                pipeline.__class__ = self._speaking(self._kind)
            _HELD.add(denoiser)
            changed.callback(_HELD.discard, denoiser)
            self._changed = changed.pop_all()

    def begin(self) -> None:
        """A new call: see `Recognised.begin`."""
        self.recognised.begin()

    def is_compiled(self, holder: Any) -> bool:
        """Does a holder of the same parts run the denoiser compiled?"""
        denoiser = self.base.denoiser
        given = getattr(holder, self.base.family.component)
        return given is not denoiser or denoiser._compiled_call_impl is not None

    def release(self) -> None:
        """Make everything what it was, to the bit."""
        self._changed.close()

    def _speaking(self, kind: Any) -> Any:
        """The pipeline's class, but for its call and its `encode_prompt`."""

        @wraps(kind.__call__)
        def call(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
            return self._call(args, kwargs)

        @wraps(kind.encode_prompt)
        def encode_prompt(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
            return self._encode(args, kwargs)

        own = {"__call__": call, "encode_prompt": encode_prompt}
        own |= {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
        return type(kind.__name__, (kind,), own)

    def _call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        self.begin()
        bound = inspect.signature(self._kind.__call__).bind(self.pipeline, *args, **kwargs)
        if (states := bound.arguments.get("prompt_embeds")) is not None:
            texts = self.recognised.texts_of(states)
            self.session.speak(self.speaker.tokens_of(texts))
            self.speaker.fold(self.session, texts)
        self._calling, self._encoded = True, False
        # Hooks that come and go are not traced: what acts in passes acts in a plain denoiser.
        plain = torch.compiler.set_stance("force_eager") if self.speaker.live else nullcontext()
        try:
            with plain:
                return self._kind.__call__(*bound.args, **bound.kwargs)
        finally:
            self._calling = False
            self.begin()

    def _encode(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        own = self._kind.encode_prompt
        bound = inspect.signature(own).bind(self.pipeline, *args, **kwargs)
        given = bound.arguments
        ready = given.get("prompt_embeds") is not None
        texts = [] if ready else texts_of(given.get("prompt"))
        negatives = texts_of(given.get("negative_prompt"))
        _check_others(given, texts, "prompt")
        _check_others(given, negatives, "negative_prompt")
        second = self._calling and self._encoded  # of a pipeline that encodes twice: the negatives
        self._encoded = True
        if second:
            texts, negatives = [], texts
        if self.speaker.tokens_of([*texts, *negatives]):
            given |= self._as_learned(own, given)
        with self.speaking(self.pipeline, texts, negatives):
            first, *rest = own(*bound.args, **bound.kwargs)
        if second:
            return self.avoided(first, negatives), *rest
        if texts:
            first = self.heard(first, texts, rest)
        if negatives:
            rest = [self.avoided(p, negatives) if _alike(p, first) else p for p in rest]
        return first, *rest

    @contextmanager
    def speaking(
        self, holder: Any, texts: Sequence[str], negatives: Sequence[str]
    ) -> Iterator[None]:
        """A block in which a holder's tokenizers know the words of prompts, and of those that
        guidance steps away from, and the text encoders read their rows."""
        base, tokens = self.base, self.base.tokens
        said = [*texts, *negatives]
        base.family.refuse_concepts(negatives)
        self.session.speak(self.speaker.tokens_of(said))
        if texts:
            self.speaker.fold(self.session, texts)
        if not tokens.known:
            yield
            return
        for vocabulary in tokens.vocabularies:
            vocabulary.ids(said)  # refuses a concept that would be cut off
        with ExitStack() as stack:
            stack.enter_context(tokens.serving(tokens.known))
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            for name in base.family.encoders.values():
                if (own := getattr(holder, name, None)) is not None:
                    stack.callback(setattr, holder, name, own)
                    setattr(holder, name, getattr(base.pipeline, name))
            yield

    def heard(
        self, states: States, texts: Sequence[str], beside: Sequence[Any] | None = None
    ) -> States:
        """The states of prompts, as `encode_prompt` returns them, as they are to be drawn; with
        what it returns ``beside`` them, methods see of them what the family sees."""
        states = self._with_states(states, texts)
        positions = None
        if beside is not None:
            positions = self._positions(texts, (states, *beside))
        self.recognised.hear(states, texts, positions)
        return states

    def _positions(self, texts: Sequence[str], returned: tuple[Any, ...]) -> int:
        """How many states the family makes of what `encode_prompt` has returned."""
        own = self.base.pipeline
        own.encode_prompt = lambda *args, **kwargs: returned  # hides the method
        try:
            return self.base.family.encode(own, texts).states.shape[1]
        finally:
            del own.encode_prompt

    def avoided(self, states: States, texts: Sequence[str]) -> States:
        """The same of prompts that guidance steps away from, in which nothing acts."""
        states = self._with_states(states, texts)
        if texts and self.base.tokens.known:
            self.recognised.avoid(states)
        return states

    @torch.no_grad()
    def _with_states(self, states: States, texts: Sequence[str]) -> States:
        """With those of concepts whose tokens are states in their places."""
        known, rows = self.base.tokens.known, list(states)
        if not any(token.kind == STATE for token in known.values()):
            return states
        spoken = self.session.places(texts).spoken
        for n, row in enumerate(rows):
            for name, place in spoken[n * len(texts) // len(rows)]:
                if known[name].kind == STATE and place < len(row):
                    row = row.clone() if row is rows[n] else row
                    row[place] = known[name].parts[STATE][0].to(row).view_as(row[place])
            rows[n] = row
        return torch.stack(rows) if isinstance(states, Tensor) else rows

    def _as_learned(self, own: Any, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """What must be given beside prompts that speak of concepts; PerdureError where the user
        asks for something else."""
        wanted = self.base.family.encoding(self.base.pipeline)
        for name, value in wanted.items():
            calls = (inspect.signature(call) for call in (own, self._kind.__call__))
            usual = [call.parameters[name].default for call in calls if name in call.parameters]
            if given.get(name, value) not in (value, *usual):
                raise PerdureError(
                    f"Concepts were learned with the pipeline's own {name}: leave it out, or speak "
                    "of no concept."
                )
        return wanted


def texts_of(given: Any) -> list[str]:
    """Prompts as pipelines take them: one, several, or none."""
    if given is None:
        return []
    return [given] if isinstance(given, str) else list(given)


def _alike(part: Any, states: States) -> bool:
    """Are these states of prompts, too?"""
    if isinstance(states, Tensor):
        return isinstance(part, Tensor) and (part.dim(), part.shape[-1]) == (
            states.dim(),
            states.shape[-1],
        )
    return isinstance(part, list) and len(part) > 0


def _check_others(given: Mapping[str, Any], texts: Sequence[str], of: str) -> None:
    """PerdureError where another prompt, for one of the encoders, speaks of other concepts."""
    for name in (f"{of}_2", f"{of}_3"):
        others = texts_of(given.get(name))
        for text, other in zip_longest(texts, others, fillvalue="") if others else ():
            if spoken_in(text) != spoken_in(other):
                raise PerdureError(
                    f"{name} speaks of other concepts than {of}: name the same ones in both, or "
                    f"leave {name} out."
                )
