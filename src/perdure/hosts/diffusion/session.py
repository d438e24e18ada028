"""What is folded, attached and spoken on a base for as long as a block lasts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from perdure.adapters import Delta, PromptDelta, Prompts, Token, outputs
from perdure.adapters.prompts import WORD
from perdure.errors import PerdureError
from perdure.hosts.diffusion.conditioning import Conditioning, Encoded, Places, joined, with_states
from perdure.hosts.diffusion.prompt_cache import PromptCache
from perdure.hosts.diffusion.regional import Boxed, Place, keys_and_values
from perdure.hosts.diffusion.rooms import Phrased, Rooms, gates_side_by_side
from perdure.hosts.diffusion.tokens import spoken_in
from perdure.hosts.frozen import acting, adding
from perdure.hosts.size import Size
from perdure.quiet import quietly

if TYPE_CHECKING:
    from perdure.hosts.diffusion.host import Base

__all__ = ["ORDINARY", "Begun", "Boxed", "Place", "Session"]

ORDINARY = (
    "a photo of a person",
    "a photo of a dog in the snow",
    "a drawing of a house",
    "a painting of a tree at night",
)
"""Prompts whose states say how large states are."""
_NEGATIVE = "negative: "
"""Stands before a negative prompt in the cache's keys."""


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A picture that a drawing begins with."""

    picture: Image.Image
    """RGB, of the size that is drawn."""
    strength: float
    """The share of the schedule that is drawn, in (0, 1]."""

    @property
    def digest(self) -> str:
        """SHA-256 of its size and pixels."""
        pixels = f"{self.picture.size}:".encode() + self.picture.tobytes()
        return hashlib.sha256(pixels).hexdigest()


class Session:
    """The one way to change a base; `Base.session` makes it and puts the base back afterwards."""

    def __init__(self, base: Base, cache: PromptCache | None = None) -> None:
        self.base, self.cache = base, cache
        self._ahead: dict[str, Encoded] = {}
        self.reading: Callable[[], None] = lambda: None
        """Tells what is attached which prompts the pass reads: see `recomputing`."""

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Target layer -> (d_out, d_in)."""
        return self.base.shapes

    def speak(self, tokens: Mapping[str, Token]) -> None:
        """Make exactly these concepts known; PerdureError where one was learned on another base."""
        self.base.tokens.set(tokens)
        self._ahead.clear()

    @contextmanager
    def aside(self, tokens: Mapping[str, Token]) -> Iterator[None]:
        """A block in which exactly these concepts are known; afterwards what is known and encoded
        ahead is what it was before."""
        known, ahead = dict(self.base.tokens.known), dict(self._ahead)
        try:
            self.speak(tokens)
            yield
        finally:
            self.speak(known)
            self._ahead |= ahead
            if ahead:
                self.base.rest_encoders()

    def fold(self, deltas: Mapping[str, Tensor]) -> None:
        """Make the weights `W_init + dW`; `{}` is the base itself."""
        self.base.fold(deltas)

    def attached(self, deltas: Mapping[str, Delta]) -> AbstractContextManager[None]:
        """A block in which these deltas run live."""
        return self.base.attached(deltas)

    @contextmanager
    def recomputing(self, wanted: bool) -> Iterator[None]:
        """A block in which the denoiser's blocks keep nothing for the way back but their inputs,
        if that is wanted (gradient checkpointing, arXiv 1604.06174). `reading` is called again
        before a block is computed a second time.

        PerdureError where the denoiser has no blocks that can.
        """
        denoiser: Any = self.base.denoiser
        if not wanted:
            yield
            return
        if not getattr(denoiser, "_supports_gradient_checkpointing", False):
            raise PerdureError(f"{self.base.name} cannot recompute: leave --recompute out.")
        denoiser.enable_gradient_checkpointing(self._again)
        try:
            yield
        finally:
            denoiser.disable_gradient_checkpointing()

    def _again(self, block: Callable[..., Any], *inputs: Any) -> Any:
        """A block of the denoiser, computed a second time on the way back, when another pass may
        have come between; nothing in it is random."""
        reading, text = self.reading, self.base.text

        @contextmanager
        def as_it_was() -> Iterator[None]:
            reading()
            self.base.text = text
            yield

        return checkpoint(
            block,
            *inputs,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), as_it_was()),
        )

    # Prompts

    def encode_ahead(self, prompts: Sequence[str]) -> None:
        """Encode prompts once and for all, fp32, without a graph: as long as the same concepts are
        spoken of, `conditioning` runs no text encoder for them. Only states may train then.

        Large text encoders rest afterwards, and what they said is in the cache, an empty negative
        prompt too: neither a resume nor drawing these prompts needs them again.
        """
        base, texts = self.base, list(dict.fromkeys(prompts))
        with torch.no_grad():
            if not base.family.large_encoders:
                encoded = self._encode(texts, base.tokens.known, 0)
                self._ahead |= {
                    text: encoded.at(torch.tensor([place])) for place, text in enumerate(texts)
                }
                return
            self._ahead |= {text: self._alone(text) for text in texts}
            self._alone_negative("", next(iter(self._ahead.values())))
        base.rest_encoders()

    @cached_property
    def state_scale(self) -> float:
        """`Base.state_scale`, without the text encoders where the cache knows it."""
        if self.cache is None:
            return self.base.state_scale
        with torch.no_grad():
            return self.base.scale_of(joined([self._alone(text) for text in ORDINARY]).states)

    def conditioning(
        self, prompts: Sequence[str], trained: Mapping[str, Token] | None = None
    ) -> Conditioning:
        """What these prompts are to the denoiser; ``trained`` tokens stand in for those known.

        A prompt that stands there several times is encoded once, and where a word has rows for
        several layers, once for each of them.
        """
        tokens = self.base.tokens
        known = {**tokens.known, **(trained or {})}
        ids = [v.ids(prompts) for v in tokens.vocabularies]
        where = self.base.family.places(tokens, ids)
        once, place = torch.unique(torch.cat(ids, dim=1), dim=0, return_inverse=True)
        places = place.tolist()
        texts = [prompts[places.index(k)] for k in range(len(once))]
        named = {name for said in where.spoken for name, _ in said}
        layers = max((len(known[name].rows) for name in named), default=1)
        by_layer, beside = [], None
        for layer in range(layers):
            if all(text in self._ahead for text in texts):
                parts = [self._ahead[text] for text in texts]
                encoded = joined(parts)
            else:
                encoded = self._encode(texts, known, layer)
            encoded = encoded.at(place.to(encoded.states.device))
            by_layer.append(with_states(encoded.states, where.spoken, known, layer))
            beside = beside or encoded.beside
        states = by_layer[0] if layers == 1 else torch.stack(by_layer).mean(dim=0)
        all_states = states[None] if layers == 1 else torch.stack(by_layer)
        features = self.base.family.features(self.base.pipeline, all_states)
        mean = features[0] if layers == 1 else features.mean(dim=0)
        return Conditioning(
            states=states,
            beside=beside or {},
            prompts=Prompts(mean, where.spoken, where.ends, where.rests),
            by_layer=features,
        )

    def _encode(self, texts: Sequence[str], known: Mapping[str, Token], layer: int) -> Encoded:
        if self.cache is not None and not any(self._has_word(text, known) for text in texts):
            found = [self.cache.get(text) for text in texts]
            parts = [part for part in found if part is not None]
            if len(parts) == len(texts):
                return self._here(joined(parts))
        self.base.need_encoders()
        with self.base.tokens.serving(known, layer):
            return self.base.family.encode(self.base.pipeline, texts)

    def _alone(self, text: str) -> Encoded:
        """A prompt without words, encoded by itself as drawing does, or from the cache."""
        if self.cache is not None and (found := self.cache.get(text)) is not None:
            return self._here(found)
        with self.base.autocast():
            encoded = self._encode([text], self.base.tokens.known, 0)
        if self.cache is not None:
            self.cache.put(text, encoded)
        return encoded

    def _encode_negative(self, texts: Sequence[str], positive: Encoded) -> Encoded | None:
        """What guidance steps away from: one text for all, without words where it is cached."""
        family, known = self.base.family, self.base.tokens.known
        if not family.guides(self.base.pipeline):
            if any(texts):
                raise PerdureError(
                    f"This {family.title} draws without a negative prompt: leave --negative out."
                )
            return None
        cached = self.cache is not None and not self._has_word(texts[0], known)
        found = self.cache.get(_NEGATIVE + texts[0]) if self.cache and cached else None
        if found is not None:
            return self._here(found).at(torch.zeros(len(texts), dtype=torch.long))
        self.base.need_encoders()
        with self.base.tokens.serving(known):
            return family.encode_negative(self.base.pipeline, texts, positive)

    def _alone_negative(self, text: str, positive: Encoded) -> None:
        with self.base.autocast():
            against = self._encode_negative([text], positive)
        if self.cache is not None and against is not None:
            self.cache.put(_NEGATIVE + text, against)

    def _has_word(self, text: str, known: Mapping[str, Token]) -> bool:
        """Does the text speak of a concept that is a word, which changes as it trains?"""
        return any(known[name].kind == WORD for name in spoken_in(text) if name in known)

    def _here(self, encoded: Encoded) -> Encoded:
        return Encoded(
            states=encoded.states.to(self.base.device),
            beside={key: t.to(self.base.device) for key, t in encoded.beside.items()},
        )

    # Denoising

    def predict(self, noised: Tensor, t: Tensor, conditioning: Conditioning, size: Size) -> Tensor:
        """What the denoiser says of noised latents of pictures of a size, shaped like them."""
        base = self.base
        base.text = base.family.text(base.pipeline, conditioning.states.shape[1], size)
        return base.family.predict(base.pipeline, noised, t.to(noised.device), conditioning, size)

    def added(self, deltas: Sequence[PromptDelta], prompts: Prompts) -> dict[str, Tensor]:
        """What these deltas add to the layers that read the encoders' states, computed once a
        prompt: see `outputs`."""
        return outputs(self.parts_of(deltas, prompt=True), prompts.states)

    def parts_of(self, deltas: Sequence[PromptDelta], *, prompt: bool) -> list[PromptDelta]:
        """The parts of layers that read the encoders' states, or those of the other layers."""
        layers = self.base.layers
        parts = []
        for delta in deltas:
            own = {
                name: factors
                for name, factors in delta.factors.items()
                if (layers[name].reads == "prompt") is prompt
            }
            if own:
                parts.append(PromptDelta(own, delta.gate))
        return parts

    @torch.no_grad()
    def region(
        self, place: Place, phrase: str, said: Callable[[Prompts], Sequence[PromptDelta]]
    ) -> Boxed | Phrased:
        """A place that attends to one phrase, in which ``said`` acts: for `draw`.

        Its keys and values are by what is folded now; where the text is a stream, the phrase is one
        more text and is read by what is folded when it is drawn.
        """
        family, pipeline = self.base.family, self.base.pipeline
        if not family.keys_apart:
            with self.base.autocast():
                own = self._spoken([phrase], self._encode([phrase], self.base.tokens.known, 0))
                deltas = said(self._prompts([phrase], own.states))
                read = own.states[None]
                if self.base.readers:
                    read = self.conditioning([phrase]).by_layer
            return Phrased(place=place, said=own, deltas=deltas, read=read)
        conditioning = self.conditioning([phrase])
        added = self.added(said(conditioning.prompts), conditioning.prompts)
        states = conditioning.by_layer[:, 0]
        return Boxed(place, keys_and_values(family.readers(pipeline), states, added))

    @torch.no_grad()
    def draw(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        negative: str = "",
        size: Size | None = None,
        said: Callable[[Prompts], Sequence[PromptDelta]] | None = None,
        by_layer: Tensor | None = None,
        regions: Sequence[Boxed | Phrased] = (),
        begun: Sequence[Begun] = (),
        **arguments: Any,
    ) -> Any:
        """The stock pipeline's pictures, one a prompt.

        All prompts are encoded as they stand, in one batch: the stock pipeline's own bits.

        Args:
            prompts: N of them.
            seeds: of each picture.
            negative: what no picture should show.
            size: of the pictures; the base's own by default.
            said: what acts in these prompts, on top of what is folded.
            by_layer: (L, N, P, d), where layers read the prompts each their own way.
            regions: see `region`; where the text is a stream, all prompts are one text then.
            begun: what each picture begins with, in place of noise alone, at one strength.
            arguments: of the pipeline, such as `num_inference_steps`.
        """
        base, count = self.base, len(prompts)
        family, pipeline, size = base.family, base.pipeline, base.fitting(size)
        if begun:
            pipeline = family.over_pictures(pipeline)
            pictures = [one.picture for one in begun]
            arguments |= {"image": pictures, "strength": begun[0].strength}
        for vocabulary in base.tokens.vocabularies:
            vocabulary.ids([*prompts, negative])  # refuses a concept that would be cut off
        once = family.large_encoders  # else what acts is taken of states in fp32
        own = None if said is None or once else self.conditioning(prompts).prompts
        with base.autocast():
            positive = self._spoken(prompts, self._encode(prompts, base.tokens.known, 0))
            if said is not None and once:
                own = self._prompts(prompts, positive.states)
            deltas = said(own) if said is not None and own is not None else ()
            against = self._encode_negative([negative] * count, positive)
            if against is not None:
                against = self._spoken([negative] * count, against)
            added = self.added(deltas, own) if own is not None else {}
            read = positive.states[None] if by_layer is None else by_layer
            boxes = [one for one in regions if isinstance(one, Boxed)]
            phrases = [one for one in regions if isinstance(one, Phrased)]
            lengths = [len(positive.states[0]), *(len(one.said.states[0]) for one in phrases)]
            if phrases:
                many = torch.zeros(count, dtype=torch.long, device=positive.states.device)
                deltas = gates_side_by_side(deltas, phrases, lengths[0], count)
                positive = family.behind([positive, *(one.said.at(many) for one in phrases)])
                if against is not None and {against.states.shape[1]} == set(lengths):
                    against = family.behind([against] * len(lengths))
                features = family.features(pipeline, positive.states)
                added = outputs(self.parts_of(deltas, prompt=True), features)
                if len(read) > 1:
                    own_reads = (one.read.expand(len(read), count, -1, -1) for one in phrases)
                    read = torch.cat([read, *own_reads], dim=2)
            base.text = family.text(pipeline, positive.states.shape[1], size)
            rooms = Rooms(
                places=tuple(one.place for one in phrases),
                lengths=tuple(lengths),
                text=base.text,
                patches=family.patches(pipeline, size),
                alone=family.alone(sum(lengths)),
                size=size,
            )
            with (
                family.passes(pipeline, count) as rows,
                adding(base.layers, added, rows),
                acting(base.layers, self.parts_of(deltas, prompt=False), rows, lambda: base.text),
                family.reading(pipeline, read, rows),
                family.attending(pipeline, boxes, rows, size),
                family.rooms(pipeline, rooms, rows),
            ):
                return family.draw(
                    pipeline,
                    positive,
                    against,
                    generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                    width=size[0],
                    height=size[1],
                    **arguments,
                )

    def draw_latents(
        self, prompts: Sequence[str], *, size: Size | str | None = None, **arguments: Any
    ) -> Tensor:
        """As `draw`: the pictures' latents (N, C, h, w), as `Base.encode` has them."""
        base, size = self.base, self.base.fitting(size)
        drawn = self.draw(prompts, size=size, output_type="latent", **arguments)
        return base.family.from_drawn(base.pipeline, drawn, size)

    def _spoken(self, prompts: Sequence[str], encoded: Encoded) -> Encoded:
        """With the states of concepts whose tokens are states in their places."""
        spoken = self.places(prompts).spoken
        states = with_states(encoded.states, spoken, self.base.tokens.known, 0)
        return Encoded(states=states, beside=encoded.beside)

    def _prompts(self, prompts: Sequence[str], states: Tensor) -> Prompts:
        """What methods see of prompts with these states."""
        where, base = self.places(prompts), self.base
        features = base.family.features(base.pipeline, states)
        return Prompts(features, where.spoken, where.ends, where.rests)

    def places(self, prompts: Sequence[str]) -> Places:
        """Where in the states of prompts known concepts are spoken of and text ends."""
        tokens = self.base.tokens
        return self.base.family.places(tokens, [v.ids(prompts) for v in tokens.vocabularies])

    def save(self, folder: Path) -> None:
        """Write the pipeline as a diffusers folder: what is folded in its weights, the words in its
        tokenizers and tables. PerdureError where a token is a state, or weights are quantised."""
        if any(layer.quantised for layer in self.base.layers.values()):
            raise PerdureError(
                "The base's weights are quantised, and nothing is folded into those: open it "
                "without quantize to export."
            )
        self.base.need_encoders()
        with self.base.tokens.written(), quietly():
            self.base.pipeline.save_pretrained(folder, safe_serialization=True)
