"""What a grid of runs is made of: the typed options of `perdure bench` and `perdure classify`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from perdure.settings import Commas, Count, Limits, Settings

__all__ = ["BenchSettings", "ClassBenchSettings"]

UpToThousand = Annotated[int, Limits(least=1, most=1000)]
Names = Annotated[tuple[str, ...], Commas]


@dataclass(frozen=True, kw_only=True)
class BenchSettings(Settings):
    """Options of a grid over a stream of concepts."""

    called: ClassVar[str] = "benchmark"

    method: Names = ("lora", "c-lora", "lora-independent")
    """Names with commas between, or all."""
    seeds: UpToThousand = 1
    """How many seeds of everything random: 0, 1, ..."""
    concepts: Literal["fresh", "same"] = "fresh"
    """Whether each seed teaches identities of its own, so that a result is not of a few concepts,
    or all the same ones. Photographs are the same always."""
    orders: UpToThousand = 1
    """How many orders of the stream: as listed, and further permutations."""
    pictures: Annotated[int, Limits(least=2, most=10_000)] = 16
    """Drawn of each concept at each moment."""
    moments: Literal["all", "milestones"] | None = None
    """When concepts are scored, as in `evaluate`; where not given, all of a stream of up to 20
    concepts, and milestones of a longer one."""
    pairs: Annotated[int, Limits(least=0, most=10_000)] = 4
    """Pairs, triples, subjects at a place and subjects in a style that are drawn together at the
    end, so many of each."""
    held_out: bool = True
    """Draw the held-out prompts as well, as in `evaluate`."""


@dataclass(frozen=True, kw_only=True)
class ClassBenchSettings(Settings):
    """Options of a grid over a stream of classes."""

    called: ClassVar[str] = "benchmark"

    method: Names = ("c-lora",)
    """Names with commas between, or all."""
    tasks: Count = 10
    """How many tasks the classes are shared among."""
    seeds: UpToThousand = 3
    """How many seeds of everything random, the order of the classes too: 0, 1, ..."""
    data: str | None = None
    """Folder or zip file of the stream's pictures."""
    backbone: str = "smallworld"
    """smallworld, photographs, or a folder or hub id of a ViT or CLIP."""
    preprocessing: Literal["backbone", "coda-prompt"] = "backbone"
    """What makes pictures the tower's input: its own configuration, or CODA-Prompt's way."""
    device: str = "cpu"
    """cpu, cuda and the like."""
