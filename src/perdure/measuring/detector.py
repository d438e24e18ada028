"""Where in a picture does each concept stand? Its likeness in windows of several sizes.

Each window is enlarged as if its subject stood alone, and its identity features are compared with
every concept's reference pictures. What a picture shows of so many subjects are the windows, apart
from each other, that come closest to any concept at all: nobody says beforehand whom to look for,
so one subject drawn twice, or a stranger, does not pass for two concepts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from perdure.measuring.features import MetricEncoder

__all__ = [
    "APART",
    "LEAST",
    "WINDOWS",
    "Sight",
    "Window",
    "cut",
    "likeness_in",
    "seen",
    "shown",
    "standing",
]

LEAST = 0.5
"""The identity cosine from which on a window shows a concept."""
APART = 0.25
"""How far the centres of two windows must be apart, across or down, to be two subjects'."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A square part of a picture."""

    x: float
    y: float
    """Its centre, as shares of the picture's width and height."""
    side: float
    """As a share of the picture's shorter side."""


WINDOWS = tuple(
    Window(x=x, y=y, side=side)
    for side in (0.42, 0.52, 0.64, 0.8)
    for x in (0.14, 0.23, 0.32, 0.41, 0.5, 0.59, 0.68, 0.77, 0.86)
    for y in (0.38, 0.52)
) + (Window(x=0.5, y=0.5, side=1.0),)
"""Three subjects side by side have a third of the width each; one alone has all of it. Centres are
a little above the middle, where what stands on the ground has its face: lower ones see clothes."""


@dataclass(frozen=True, kw_only=True)
class Sight:
    """A concept, where it was seen."""

    concept: str
    likeness: float
    """Mean identity cosine of the window and the concept's references."""
    window: Window


def cut(picture: Image.Image, windows: Sequence[Window] = WINDOWS) -> list[Image.Image]:
    """The windows, each of the size of the picture's shorter side; beyond the picture's edge its
    last pixels go on."""
    array = np.asarray(picture.convert("RGB"))
    height, width = array.shape[:2]
    short = min(height, width)
    wide = Image.fromarray(np.pad(array, ((short, short), (short, short), (0, 0)), mode="edge"))
    parts = []
    for one in windows:
        x, y, half = short + one.x * width, short + one.y * height, one.side * short / 2
        box = (x - half, y - half, x + half, y + half)
        parts.append(wide.resize((short, short), Image.Resampling.BICUBIC, box=box))
    return parts


def likeness_in(
    encoder: MetricEncoder, pictures: Sequence[Image.Image], references: Mapping[str, Tensor]
) -> Tensor:
    """Mean identity cosines (pictures, windows, concepts), concepts in the order of ``references``.

    ``references`` are the identity features (n, d) of each concept's real pictures.
    """
    found = []
    for picture in pictures:
        features = encoder.identities(cut(picture))
        found.append(torch.stack([(features @ own.T).mean(1) for own in references.values()], 1))
    return torch.stack(found)


def shown(likeness: Tensor, names: Sequence[str], count: int) -> tuple[Sight, ...]:
    """Up to ``count`` subjects that a picture shows, the clearest first, from ``likeness``
    (windows, concepts): the windows closest to any concept, of at least `LEAST`, one after another
    and each apart from those before."""
    best, who = likeness.max(dim=1)
    free = torch.ones(len(best), dtype=torch.bool)
    sights = []
    for _ in range(count):
        open_to = best.masked_fill(~free, -1.0)
        at = int(open_to.argmax())
        if open_to[at] < LEAST:
            break
        sights.append(
            Sight(concept=names[int(who[at])], likeness=float(best[at]), window=WINDOWS[at])
        )
        free &= _APART[at]
    return tuple(sights)


def seen(likeness: Tensor, names: Sequence[str]) -> dict[str, Sight]:
    """Every concept that some window shows, one over the other or not, where it is seen best, from
    ``likeness`` (windows, concepts): a window shows what it is closest to, from `LEAST` on."""
    best, who = likeness.max(dim=1)
    found: dict[str, Sight] = {}
    for at in best.argsort(descending=True).tolist():
        name = names[int(who[at])]
        if best[at] >= LEAST and name not in found:
            found[name] = Sight(concept=name, likeness=float(best[at]), window=WINDOWS[at])
    return found


def standing(likeness: Tensor, wanted: Sequence[int]) -> tuple[float, ...]:
    """How like each of the ``wanted`` concepts is what stands where it is seen best, from
    ``likeness`` (windows, concepts); no window serves two of them.

    Of all orders in which they can choose, each the best window that is left, the one of the
    highest sum; -1 where no window is left.
    """
    found: list[dict[int, float]] = []
    for order in permutations(wanted):
        free = torch.ones(len(likeness), dtype=torch.bool)
        chosen = {}
        for concept in order:
            value, at = likeness[:, concept].masked_fill(~free, -1.0).max(dim=0)
            chosen[concept] = float(value)
            free &= _APART[int(at)]
        found.append(chosen)
    best = max(found, key=lambda one: sum(one.values()))
    return tuple(best[concept] for concept in wanted)


_PLACES = torch.tensor([[one.x, one.y] for one in WINDOWS])
_APART = (_PLACES[:, None] - _PLACES[None]).abs().amax(dim=-1) > APART - 1e-6
