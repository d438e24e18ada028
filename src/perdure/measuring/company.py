"""Several concepts in one picture: two or three subjects, one at a place, one in a style.

`detector` says whom a picture shows, wherever they stand. Subjects are recognised if they, and no
others, are what it shows; a place is the whole picture's, so it may lie behind its subject.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image
from torch import Tensor

from perdure.drawing.painter import Painter
from perdure.drawing.regions import Region
from perdure.measuring.detector import Sight, likeness_in, seen, shown, standing
from perdure.measuring.features import MetricEncoder
from perdure.measuring.scores import text_alignment
from perdure.measuring.settings import AT_ONCE

__all__ = [
    "SENTENCES",
    "Arrangement",
    "Company",
    "CompanyScore",
    "draw_company",
    "said_of",
    "score_settings",
    "score_subjects",
]

Company = Literal["pairs", "triples", "places", "styles"]
Arrangement = Literal["plain", "boxes", "sentence"]
"""One sentence with nothing laid out, boxes made by hand, or one sentence that lays itself out."""
Drawn = Sequence[tuple[Sequence[str], Sequence[Image.Image]]]
"""The concepts that were asked for together, and the pictures."""

SENTENCES: Mapping[Company, str] = {
    "pairs": "a photo of {} next to {}",
    "triples": "a photo of {} next to {} and {}",
    "places": "a photo of {} at {}",
    "styles": "a photo of {} in {} style",
}
"""What is asked for. A box has the same sentence, its own concept first and nouns in the other
places: a phrase for one subject alone makes the box a part of a single portrait."""


@dataclass(frozen=True, kw_only=True)
class CompanyScore:
    """Over all pictures of all groups."""

    all: float
    """Share of the pictures in which all the concepts asked for are recognised."""
    likeness: float
    """Mean identity cosine of the subjects asked for, each where it is seen best."""
    pictures: int
    sights: tuple[tuple[Sight, ...], ...]
    """Whom each picture shows, group after group."""
    subject: float | None = None
    """Share of the pictures in which the subject is recognised, with or without its setting."""
    setting: float | None = None
    """Share in which the place or the style is."""
    text_alignment: float | None = None
    """Cosine of the pictures with what `said_of` says of them."""


def draw_company(
    painter: Painter,
    names: Sequence[str],
    company: Company,
    arrangement: Arrangement,
    *,
    nouns: Mapping[str, str],
    pictures: int,
    seed: int,
) -> list[Image.Image]:
    """Draw the concepts ``names`` in one picture, ``pictures`` times from ``seed`` on.

    ``nouns`` are class nouns, which boxes need. ValueError for boxes of a place or a style.
    """
    sentence, tokens = SENTENCES[company], [f"<{name}>" for name in names]
    prompt, regions = sentence.format(*tokens), []
    if arrangement == "boxes":
        if company in ("places", "styles"):
            raise ValueError(f"boxes are for subjects, and {company} are the whole picture's")
        named = [f"a {nouns[name]}" for name in names]
        prompt = sentence.format(*named)
        edges = [k / len(names) for k in range(len(names) + 1)]
        regions = [
            Region(
                phrase=sentence.format(token, *named[:k], *named[k + 1 :]),
                box=(edges[k], 0.0, edges[k + 1], 1.0),
            )
            for k, token in enumerate(tokens)
        ]
    return painter.draw(
        [prompt] * pictures,
        seeds=range(seed, seed + pictures),
        regions=regions,
        layout="sentence" if arrangement == "sentence" else "none",
        closeup=None if arrangement == "sentence" else 0.0,  # boxes as older records have them
        batch_size=AT_ONCE,
    )


def said_of(names: Sequence[str], company: Company, nouns: Mapping[str, str]) -> str:
    """The sentence with class nouns in the concepts' places; without its style, which has none."""
    if company == "styles":
        return f"a photo of a {nouns[names[0]]}"
    return SENTENCES[company].format(*(f"a {nouns[name]}" for name in names))


def score_subjects(
    encoder: MetricEncoder, references: Mapping[str, Tensor], drawn: Drawn
) -> CompanyScore:
    """Look at pictures of subjects beside each other whether they are all there.

    ``references`` are the identity features (n, d) of the real pictures of every concept that a
    subject could be taken for.
    """
    names = list(references)
    found, likeness, sights = [], [], []
    for group, pictures in drawn:
        wanted = [names.index(name) for name in group]
        for each in likeness_in(encoder, pictures, references):
            sights.append(shown(each, names, len(group)))
            found.append(sorted(one.concept for one in sights[-1]) == sorted(group))
            likeness.append(statistics.fmean(standing(each, wanted)))
    return CompanyScore(
        all=statistics.fmean(found),
        likeness=statistics.fmean(likeness),
        pictures=len(found),
        sights=tuple(sights),
    )


def score_settings(
    encoder: MetricEncoder,
    references: Mapping[str, Tensor],
    drawn: Drawn,
    *,
    said: Sequence[str],
    looks: Mapping[str, Tensor] | None = None,
) -> CompanyScore:
    """Look at pictures of one subject at a place or in a style whether both are there.

    Args:
        encoder: the metric encoder.
        references: as for `score_subjects`, places among them.
        drawn: a subject and its setting, and the pictures.
        said: what each of ``drawn`` is to show in plain words.
        looks: image embeddings (n, d) of the real pictures of the styles and of all else: a style
            is there if the picture comes closest to it. None where settings are places.
    """
    names = list(references)
    found, likeness, sights, aligned = [], [], [], []
    for (group, pictures), text in zip(drawn, said, strict=True):
        subject, setting = group
        embedded = encoder.pictures(pictures)
        if encoder.reads_texts:
            words = encoder.texts([text])
            aligned.append(text_alignment(embedded, words))
        for each, whole in zip(likeness_in(encoder, pictures, references), embedded, strict=True):
            there = seen(each, names)
            sights.append(tuple(there.values()))
            likeness.append(float(each[:, names.index(subject)].max()))
            if looks is None:
                behind = setting in there
            else:
                near = {name: float((own @ whole).mean()) for name, own in looks.items()}
                behind = max(near, key=lambda name: near[name]) == setting
            found.append((subject in there, behind))
    return CompanyScore(
        all=statistics.fmean(one and other for one, other in found),
        likeness=statistics.fmean(likeness),
        pictures=len(found),
        sights=tuple(sights),
        subject=statistics.fmean(one for one, _ in found),
        setting=statistics.fmean(other for _, other in found),
        text_alignment=statistics.fmean(aligned) if aligned else None,
    )
