"""Streams of classes: labelled pictures to train and to test, and how they fall into tasks."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from perdure.classification import datasets
from perdure.classification.drawn import drawn_identities
from perdure.classification.labelled import Split
from perdure.errors import PerdureError

__all__ = ["STREAMS", "ClassStream", "check_stream", "open_stream"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassStream:
    """Named classes, and pictures of each to train and to test."""

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes):
            twice = next(c for c in self.classes if self.classes.count(c) > 1)
            raise ValueError(f"{self.name} has two classes named {twice!r}: rename one")
        for kind, split in (("train", self.train), ("test", self.test)):
            labels = np.asarray(split.labels)
            unknown = labels[(labels < 0) | (labels >= len(self.classes))]
            if len(unknown):
                raise ValueError(
                    f"{self.name} has a {kind} picture of the class number {unknown[0]}, but "
                    f"there are {len(self.classes)} classes"
                )
            missing = sorted(set(range(len(self.classes))) - set(labels.tolist()))
            if missing:
                raise ValueError(
                    f"{self.name} has no {kind} picture of the class {self.classes[missing[0]]!r}: "
                    "add some, or remove the class"
                )

    def tasks(self, count: int, seed: int) -> tuple[tuple[int, ...], ...]:
        """Classes by number, in ``count`` tasks of one size, in an order that the seed decides.

        The order is `random.Random(seed).shuffle`, as in CODA-Prompt's public code, which leaves
        the classes unshuffled for its seed 0. ValueError where the classes cannot be shared out.
        """
        if count < 1 or len(self.classes) % count:
            fitting = [n for n in range(1, len(self.classes) + 1) if len(self.classes) % n == 0]
            raise ValueError(
                f"{len(self.classes)} classes cannot be shared out among {count} tasks: choose "
                f"one of {', '.join(map(str, fitting))}"
            )
        order = list(range(len(self.classes)))
        random.Random(seed).shuffle(order)
        size = len(order) // count
        return tuple(tuple(order[i : i + size]) for i in range(0, len(order), size))


def _drawn(name: str, each: int, split: str) -> Callable[..., ClassStream]:
    def opened(path: Path | None) -> ClassStream:
        classes, train, test = drawn_identities(each, split=split)
        return ClassStream(name=name, classes=classes, train=train, test=test)

    return opened


def _read(name: str, reader: Callable[[Path], datasets.Read]) -> Callable[..., ClassStream]:
    def opened(path: Path | None) -> ClassStream:
        assert path is not None  # `check_stream`
        classes, train, test = reader(path)
        return ClassStream(name=name, classes=classes, train=train, test=test)

    return opened


def _held_out(name: str, reader: Callable[[Path], datasets.Read]) -> Callable[..., ClassStream]:
    """To choose settings on: of the first classes' pictures to train, every fifth is a test."""

    def opened(path: Path | None) -> ClassStream:
        assert path is not None  # `check_stream`
        classes, train, _ = reader(path)
        some = train.of(range(_TUNED))
        fifth = np.arange(len(some.labels)) % 5 == 4
        return ClassStream(
            name=name, classes=classes[:_TUNED], train=some.where(~fifth), test=some.where(fifth)
        )

    return opened


_TUNED = 40
_DRAWN = {
    "smallworld-classes-100": (25, "benchmark"),
    "smallworld-classes-40-tuning": (10, "tuning"),
}

STREAMS: Mapping[str, Callable[[Path | None], ClassStream]] = MappingProxyType(
    {
        **{name: _drawn(name, each, split) for name, (each, split) in _DRAWN.items()},
        "tiny-imagenet-100": _read("tiny-imagenet-100", datasets.folder_tree),
        "tiny-imagenet-40-tuning": _held_out("tiny-imagenet-40-tuning", datasets.folder_tree),
        "cifar-100": _read("cifar-100", datasets.cifar_100),
        "imagenet-r": _read("imagenet-r", datasets.imagenet_r),
        "folders": _read("folders", datasets.folder_tree),
    }
)
"""What opens a stream, by its name, given where its data is."""


def check_stream(name: str, data: str | Path | None) -> None:
    """PerdureError where there is no stream of this name, or no data where it needs some."""
    if name not in STREAMS:
        raise PerdureError(f"There is no stream {name!r}: choose from {', '.join(STREAMS)}.")
    if name in _DRAWN:
        if data is not None:
            raise PerdureError(f"{name} is drawn as needed: leave its data out.")
    elif data is None:
        raise PerdureError(f"{name} is not part of perdure: say where its data is.")
    elif not Path(data).exists():
        raise PerdureError(f"There is no {data}: say where the data of {name} is.")


def open_stream(name: str, data: str | Path | None = None) -> ClassStream:
    """The stream of this name; ``data`` is its folder or zip file, for all but the drawn ones.

    Raises PerdureError where there is no such stream, or its data is missing or broken.
    """
    check_stream(name, data)
    try:
        return STREAMS[name](None if data is None else Path(data))
    except ValueError as error:
        raise PerdureError(f"{error}.") from error
