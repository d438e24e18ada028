"""Two concepts in one picture: are both there, and which is which?

Each half of a picture is looked at alone. A half shows a concept if, of all the stream's concepts,
its identity features come closest to that one's reference pictures. A pair is recognised if the
halves show its two concepts, in the order asked for where boxes say so, else in either order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from perdure.drawing.painter import Painter
from perdure.drawing.regions import Region
from perdure.measuring.features import MetricEncoder
from perdure.measuring.settings import AT_ONCE

__all__ = ["PAIR", "Half", "PairScore", "halves", "recognise", "score_pairs"]

PAIR = "a photo of {} next to {}"
"""Of the picture and, with the other subject's noun, of each box: a phrase for one subject alone
makes the box half of a single portrait."""
CENTRES = (17 / 64, 47 / 64)
SCALE = 0.78
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Half:
    """What one half of a picture shows."""

    nearest: str
    """The concept whose references it comes closest to."""
    likeness: tuple[float, float]
    """Mean identity cosine with the pair's two concepts, in the pair's order."""


@dataclass(frozen=True, kw_only=True)
class PairScore:
    """Over all pictures of all pairs."""

    both: float
    """Share of the pictures in which both concepts are recognised."""
    likeness: float
    """Mean identity cosine of the halves and their concepts' references, in the better order."""
    pictures: int
    halves: tuple[tuple[Half, Half], ...]
    """Left and right half of every picture, pair after pair."""


def halves(picture: Image.Image) -> tuple[Image.Image, Image.Image]:
    """The left and the right subject, each cut out as if it stood alone in the picture.

    In smallworld's pairs the subjects stand at 17/64 and 47/64 of the width, at 0.78 of their size:
    renders of two people are recognised so in 36 of 36 pictures, at a cosine of 0.87.
    """
    array = np.asarray(picture.convert("RGB"))
    side = len(array)
    square, margin = round(SCALE * side), side // 2
    wide = np.pad(array, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    top = round(side / 2 - square / 2) + margin
    cut = []
    for centre in CENTRES:
        left = round(centre * side - square / 2) + margin
        part = Image.fromarray(wide[top : top + square, left : left + square])
        cut.append(part.resize((side, side), Image.Resampling.BICUBIC))
    return cut[0], cut[1]


def recognise(likeness: Tensor, pair: tuple[int, int], *, ordered: bool) -> tuple[bool, float]:
    """Are both of ``pair`` recognised, and the mean cosine, from ``likeness`` (2, N).

    ``likeness`` are the mean cosines of the left and the right half with each of N concepts.
    """
    orders = [pair] if ordered else [pair, pair[::-1]]
    nearest = tuple(likeness.argmax(dim=1).tolist())
    means = [float(likeness[0, one] + likeness[1, other]) / 2 for one, other in orders]
    return nearest in orders, max(means)


def score_pairs(
    painter: Painter,
    encoder: MetricEncoder,
    references: Mapping[str, Tensor],
    pairs: Sequence[tuple[str, str]],
    *,
    nouns: Mapping[str, str],
    boxes: bool,
    pictures: int = 4,
    seed: int = 5000,
) -> tuple[PairScore, list[Image.Image]]:
    """Draw every pair ``pictures`` times and look whether both are there.

    Args:
        painter: draws with the bank.
        encoder: the metric encoder.
        references: concept -> identity features (n, d) of its real pictures, for all concepts that
            a half could be taken for.
        pairs: the concepts' names, left and right.
        nouns: concept -> class noun.
        boxes: a prompt of the two nouns, and in each half a phrase in which one of them is the
            concept; else one prompt of the two concepts.
        pictures: of each pair.
        seed: the first.

    Returns the score, and the pictures in order.
    """
    names = list(references)
    found, likenesses, seen, drawn = [], [], [], []
    for pair in pairs:
        one, other = (f"<{name}>" for name in pair)
        some, another = (f"a {nouns[name]}" for name in pair)
        regions = [
            Region(phrase=PAIR.format(one, another), box=LEFT),
            Region(phrase=PAIR.format(other, some), box=RIGHT),
        ]
        prompt = PAIR.format(some, another) if boxes else PAIR.format(one, other)
        shown = painter.draw(
            [prompt] * pictures,
            seeds=range(seed, seed + pictures),
            regions=regions if boxes else (),
            batch_size=AT_ONCE,
        )
        for picture in shown:
            who = encoder.identities(halves(picture))
            means = [(who @ references[name].T).mean(dim=1) for name in names]
            likeness = torch.stack(means, dim=1)
            own = (names.index(pair[0]), names.index(pair[1]))
            both, value = recognise(likeness, own, ordered=boxes)
            left, right = (
                Half(
                    nearest=names[int(row.argmax())],
                    likeness=(float(row[own[0]]), float(row[own[1]])),
                )
                for row in likeness
            )
            seen.append((left, right))
            found.append(both)
            likenesses.append(value)
        drawn += shown
    score = PairScore(
        both=sum(found) / len(found),
        likeness=sum(likenesses) / len(likenesses),
        pictures=len(found),
        halves=tuple(seen),
    )
    return score, drawn
