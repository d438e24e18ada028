"""Streams: fixed lists of concepts, drawn by smallworld or photographed, in a fixed order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from perdure.errors import PerdureError
from perdure.smallworld.samples import write_pictures, write_style
from perdure.smallworld.world import SPLITS, identity

__all__ = ["STREAMS", "Drawn", "Photographed", "Stream", "people", "stream"]

STYLE = "style"
APART = 1000
"""From an identity of one seed to that of the next, where seeds have concepts of their own."""
_FIRST = ("ada", "ben", "cleo", "dov", "eli", "fay", "gus", "hana", "ivo", "jun")


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A concept of smallworld: an identity of a domain, or an unnamed style."""

    name: str
    domain: str
    """person, pet, place, object, or style."""
    seed: int
    """Of the identity, or of the style."""

    @property
    def noun(self) -> str:
        """The class noun, for text alignment."""
        return "thing" if self.domain == STYLE else identity(self.domain, self.seed).noun

    @property
    def phrase(self) -> str:
        """How prompts speak of it; `{}` is the token."""
        return "a thing in {} style" if self.domain == STYLE else "{}"

    def write(self, folder: Path, count: int) -> list[Path]:
        """Draw ``count`` pictures into ``folder``."""
        if self.domain == STYLE:
            split = next(name for name, seeds in SPLITS.items() if self.seed in seeds)
            return write_style(folder, style=self.seed, count=count, split=split)
        return write_pictures(folder, domain=self.domain, identity=self.seed, count=count)


@dataclass(frozen=True, kw_only=True)
class Photographed:
    """A concept on disk: its name, its class noun and its picture files."""

    name: str
    noun: str
    files: tuple[str, ...]
    phrase: str = "{}"

    def write(self, folder: Path, count: int) -> list[Path]:
        """The first ``count`` of its files, where they are; nothing is copied."""
        return [Path(file) for file in self.files[:count]]


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Concepts in the order in which they are taught, and how many pictures of each."""

    name: str
    concepts: tuple[Drawn | Photographed, ...]
    pictures: int = 8
    order: int = 0
    """0: as listed; else the number of a permutation."""

    def __post_init__(self) -> None:
        names = [one.name for one in self.concepts]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise PerdureError(f"The stream {self.name} has two concepts named {twice}.")

    def ordered(self, order: int) -> Stream:
        """The same concepts in the permutation number ``order``; 0 is the order as listed.

        No two numbers are the same permutation: PerdureError where there are not so many.
        """
        if not order:
            return self
        count = len(self.concepts)
        if order >= math.factorial(count):
            raise PerdureError(
                f"The stream {self.name} has {count} concepts, so {math.factorial(count)} orders: "
                "ask for fewer."
            )
        turns = [tuple(range(count))]
        for number in range(1, order + 1):
            rng = np.random.default_rng(number)
            while (turn := tuple(rng.permutation(count).tolist())) in turns:
                pass
            turns.append(turn)
        return replace(self, concepts=tuple(self.concepts[k] for k in turns[order]), order=order)

    def anew(self, seed: int) -> Stream:
        """The same kinds of concept with the identities of run ``seed``; 0 has those listed.

        Photographs stay what they are. PerdureError where look-alikes were not chosen for it.
        """
        if not seed or not any(isinstance(one, Drawn) for one in self.concepts):
            return self
        return replace(self, concepts=tuple(_anew(one, seed, self.name) for one in self.concepts))

    def sources(self, folder: Path) -> dict[str, list[Path]]:
        """Name -> picture files; drawn ones are written below ``folder``."""
        return {one.name: one.write(folder / one.name, self.pictures) for one in self.concepts}

    @property
    def nouns(self) -> dict[str, str]:
        """Name -> class noun."""
        return {one.name: one.noun for one in self.concepts}

    @property
    def phrases(self) -> dict[str, str]:
        """Name -> how prompts speak of it."""
        return {one.name: one.phrase for one in self.concepts}

    @property
    def styles(self) -> tuple[str, ...]:
        """Names of the concepts that are styles: they have no identity to recognise."""
        return tuple(one.name for one in self.concepts if one.phrase != "{}")

    def to_json(self) -> dict[str, Any]:
        """Everything that a record says of it."""
        return asdict(self)


def _anew(one: Drawn | Photographed, seed: int, stream: str) -> Drawn | Photographed:
    if isinstance(one, Photographed):
        return one
    if one.domain != "pet":
        return replace(one, seed=one.seed + APART * seed)
    alike = next(table for table in _ALIKE.values() if one.seed in table[0])
    if seed >= len(alike):
        raise PerdureError(
            f"{stream} has look-alike pets for {len(alike)} seeds, and this is one more: ask for "
            "fewer, or for the same concepts (--concepts same)."
        )
    return replace(one, seed=alike[seed][alike[0].index(one.seed)])


def people(count: int, split: str = "benchmark") -> Stream:
    """``count`` people of ``split``, from its first identity on."""
    names = [*_FIRST, *(f"person{k + 1:02d}" for k in range(len(_FIRST), count))][:count]
    start = SPLITS[split].start
    return Stream(
        name=_titled(f"people-{count}", split),
        concepts=tuple(
            Drawn(name=name, domain="person", seed=start + k) for k, name in enumerate(names)
        ),
    )


def places(count: int, split: str = "benchmark") -> Stream:
    """``count`` buildings of ``split``."""
    start = SPLITS[split].start
    return Stream(
        name=_titled(f"places-{count}", split),
        concepts=tuple(
            Drawn(name=f"place{k + 1:02d}", domain="place", seed=start + k) for k in range(count)
        ),
    )


def people_and_places(half: int, split: str = "benchmark") -> Stream:
    """``half`` people and ``half`` buildings in turn."""
    pairs = zip(people(half, split).concepts, places(half, split).concepts, strict=True)
    return Stream(
        name=_titled(f"people+places-{2 * half}", split),
        concepts=tuple(one for pair in pairs for one in pair),
    )


_ALIKE = {  # seed by seed two dogs and two cats that the metric encoder finds alike, of 160 pets
    "benchmark": (
        (2_000_280, 2_000_299, 2_000_250, 2_000_227),
        (2_001_322, 2_001_337, 2_001_279, 2_001_292),
        (2_002_277, 2_002_283, 2_002_205, 2_002_249),
        (2_003_234, 2_003_359, 2_003_285, 2_003_288),
        (2_004_281, 2_004_342, 2_004_261, 2_004_322),
    ),
    "tuning": (
        (1_000_317, 1_000_270, 1_000_247, 1_000_253),
        (1_001_201, 1_001_262, 1_001_268, 1_001_353),
        (1_002_217, 1_002_231, 1_002_259, 1_002_344),
    ),
}


def mixed(split: str = "benchmark") -> Stream:
    """Ten concepts after CIFC's ten: two look-alike dogs, two such cats, two styles, and four."""
    start = SPLITS[split].start
    rex, rollo, tom, tilly = _ALIKE[split][0]
    return Stream(
        name=_titled("mixed-10", split),
        concepts=tuple(
            Drawn(name=name, domain=domain, seed=seed)
            for name, domain, seed in (
                ("rex", "pet", rex),
                ("trinket", "object", start),
                ("tom", "pet", tom),
                ("ada", "person", start),
                ("etching", STYLE, start),
                ("rollo", "pet", rollo),
                ("tower", "place", start),
                ("tilly", "pet", tilly),
                ("gadget", "object", start + 1),
                ("print", STYLE, start + 1),
            )
        ),
    )


def _titled(name: str, split: str) -> str:
    return name if split == "benchmark" else f"{name}-{split}"


def _both(make: Callable[[str], Stream]) -> list[Stream]:
    return [make("benchmark"), make("tuning")]


STREAMS: dict[str, Stream] = {
    one.name: one
    for pair in (
        _both(lambda split: people(3, split)),
        _both(lambda split: people(5, split)),
        _both(lambda split: people(10, split)),
        _both(lambda split: places(10, split)),
        _both(mixed),
        _both(lambda split: people_and_places(25, split)),
        _both(lambda split: people(100, split)),
    )
    for one in pair
}
"""Every stream by name; `-tuning` ones have identities of the tuning split."""


def stream(name: str, known: Sequence[str] = ()) -> Stream:
    """The stream ``name``; PerdureError, which lists them (and ``known``), where there is none."""
    if name not in STREAMS:
        raise PerdureError(
            f"There is no stream {name!r}: choose from {', '.join([*STREAMS, *known])}."
        )
    return STREAMS[name]
