"""Identities: a domain and a seed decide every parameter that makes a subject this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from perdure.smallworld.objects import describe_object, sample_object
from perdure.smallworld.people import describe_person, sample_person
from perdure.smallworld.pets import describe_pet, sample_pet
from perdure.smallworld.places import describe_place, sample_place
from perdure.smallworld.vocabulary import DOMAINS, refuse

Coarse = tuple[str, list[str], list[str]]
_SAMPLE: dict[str, Callable[[np.random.Generator], dict[str, Any]]] = {
    "person": sample_person,
    "pet": sample_pet,
    "place": sample_place,
    "object": sample_object,
}
_DESCRIBE: dict[str, Callable[[Mapping[str, Any]], Coarse]] = {
    "person": describe_person,
    "pet": describe_pet,
    "place": describe_place,
    "object": describe_object,
}


def phrase(noun: str, adjectives: Sequence[str], features: Sequence[str]) -> str:
    """A noun phrase with its article: "an orange cat", "a house with a red roof and a star"."""
    head = " ".join([*adjectives, noun])
    head = f"{'an' if head[0] in 'aeiou' else 'a'} {head}"
    if not features:
        return head
    *first, last = features
    return f"{head} with {', '.join(first)} and {last}" if first else f"{head} with {last}"


def generator(*entropy: int) -> np.random.Generator:
    """A generator that depends on these non-negative integers alone."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


def check_seed(field: str, seed: int) -> None:
    """Raise ValueError, naming field and value, for a negative seed."""
    if seed < 0:
        raise ValueError(f"{field}: {seed} is negative; give an integer of 0 or more")


@dataclass(frozen=True)
class Identity:
    """One subject of the small world, the same in every picture of it.

    Raises ValueError for a domain outside ``DOMAINS`` or a negative seed.
    """

    domain: str
    seed: int

    def __post_init__(self) -> None:
        if self.domain not in DOMAINS:
            raise refuse("domain", self.domain, DOMAINS)
        check_seed("seed", self.seed)

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        """About fifteen to thirty numbers, ARGB colours and names of kinds. Do not change them."""
        return _SAMPLE[self.domain](generator(1, DOMAINS.index(self.domain), self.seed))

    @cached_property
    def coarse(self) -> Coarse:
        """What words can say: noun, adjectives, features."""
        return _DESCRIBE[self.domain](self.parameters)

    @property
    def noun(self) -> str:
        """The coarse noun: "person", "cat", "castle", "mug"."""
        return self.coarse[0]

    @property
    def description(self) -> str:
        """All coarse words in one phrase: "a person with short red hair and a beard"."""
        return phrase(*self.coarse)


def identity(domain: str, seed: int) -> Identity:
    """The identity of a domain and a seed; raises ValueError like ``Identity``."""
    return Identity(domain, seed)
