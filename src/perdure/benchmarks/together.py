"""Several concepts in one picture, drawn at the end of a run, and what its record says of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import cycle, islice, pairwise, product
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from perdure.bank import Bank
from perdure.benchmarks.streams import STYLE, Drawn, Photographed, Stream
from perdure.drawing.painter import Painter
from perdure.hosts.diffusion.host import Base
from perdure.learning.photos import read_pictures
from perdure.measuring.company import (
    Arrangement,
    Company,
    draw_company,
    said_of,
    score_settings,
    score_subjects,
)
from perdure.measuring.detector import likeness_in
from perdure.measuring.features import MetricEncoder
from perdure.measuring.pairs import score_pairs
from perdure.measuring.prompts import PLAIN
from perdure.measuring.scores import text_alignment
from perdure.measuring.settings import AT_ONCE

__all__ = ["ARRANGED", "groups_of", "together"]

ARRANGED: Mapping[Arrangement, str] = {
    "plain": "plain prompt",
    "boxes": "with boxes",
    "sentence": "laid out by itself",
}
"""How pairs are drawn, in the order of the sheet's rows."""
SEED = 5000
PICTURES = 4
"""Of each group."""

Group = tuple[str, ...]


def groups_of(
    stream: Stream, count: int, held: Collection[str] | None = None
) -> dict[Company, list[Group]]:
    """Up to ``count`` groups of each kind that make sense, in the stream's order.

    With ``held``, of these concepts alone.

    People stand beside their neighbours in the stream; where it has other subjects (pets, objects),
    a person beside each of these. A subject is at a place, or in a style; places do not stand
    beside each other. Photographed concepts count as people, for nobody says what they are.
    """
    kinds: dict[str, list[str]] = {}
    for one in stream.concepts:
        if held is None or one.name in held:
            kinds.setdefault(_kind(one), []).append(one.name)
    people = kinds.get("person", [])
    others = kinds.get("other", [])
    places, styles = kinds.get("place", []), kinds.get(STYLE, [])
    hosts = people or others
    pairs: list[Group] = list(pairwise(hosts))
    triples: list[Group] = list(zip(hosts, hosts[1:], hosts[2:], strict=False))
    if people and others:
        pairs += zip(cycle(people), others, strict=False)
        triples += (
            (person, *two) for person, two in zip(cycle(people), pairwise(others), strict=False)
        )
    subjects = people + others
    found: dict[Company, list[Group]] = {
        "pairs": pairs,
        "triples": triples,
        "places": [(one, place) for one, place in zip(subjects, cycle(places))] if places else [],
        "styles": list(product(subjects, styles)),
    }
    return {company: list(islice(groups, count)) for company, groups in found.items() if groups}


def _kind(one: Drawn | Photographed) -> str:
    if isinstance(one, Photographed):
        return STYLE if one.phrase != "{}" else "person"
    return one.domain if one.domain in ("person", "place", STYLE) else "other"


def together(
    base: Base,
    bank: Bank,
    encoder: MetricEncoder,
    stream: Stream,
    sources: Mapping[str, list[Path]],
    *,
    count: int,
    pictures: int = PICTURES,
) -> tuple[dict[str, Any], dict[Company, list[list[Image.Image]]]]:
    """Draw up to ``count`` groups of each kind, ``pictures`` times, and look whom they show.

    The groups are of concepts that the bank holds; whom a subject could be taken for are all of the
    stream. Returns what the record says, and of each kind of group the pictures, a row an
    arrangement; both are empty where no two of these concepts can stand beside each other.
    """
    groups = groups_of(stream, count, bank.concepts)
    if "pairs" not in groups:
        return {}, {}
    painter, nouns = Painter(base, bank), stream.nouns
    references, looks = _references(base, encoder, stream, sources)
    found: dict[str, Any] = {"pairs": [list(pair) for pair in groups["pairs"]]}
    found["company"] = {
        company: {"groups": list(map(list, own))} for company, own in groups.items()
    }
    sheets: dict[Company, list[list[Image.Image]]] = {}
    for company, own in groups.items():
        told = found["company"][company]
        said = [said_of(group, company, nouns) for group in own]
        beside = company in ("pairs", "triples")
        arrangements: list[Arrangement] = list(ARRANGED) if beside else ["sentence"]
        for arrangement in arrangements:
            draw = partial(draw_company, painter, company=company, arrangement=arrangement)
            drawn = [(g, draw(g, nouns=nouns, pictures=pictures, seed=SEED)) for g in own]
            if beside:
                score = score_subjects(encoder, references, drawn)
            else:
                in_style = looks if company == "styles" else None
                score = score_settings(encoder, references, drawn, said=said, looks=in_style)
            told[arrangement] = {k: v for k, v in asdict(score).items() if v is not None}
            row = [picture for _, shown in drawn for picture in shown]
            sheets.setdefault(company, []).append(row)
            if company == "pairs":
                halves = score_pairs(encoder, references, drawn, ordered=arrangement == "boxes")
                found[arrangement] = asdict(halves)
        if not beside and encoder.reads_texts:
            told["base_text_alignment"] = _of_the_base(base, bank, encoder, said, pictures)
    names = dict.fromkeys(name for own in groups.values() for group in own for name in group)
    found["company"]["alone"] = {
        name: _alone(painter, encoder, references, name, pictures)
        for name in names
        if name in references
    }
    return found, sheets


def _references(
    base: Base, encoder: MetricEncoder, stream: Stream, sources: Mapping[str, list[Path]]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Identity features of the real pictures of all but styles, and image embeddings of all."""
    references, looks = {}, {}
    for name, files in sources.items():
        pixels = read_pictures(files, size=base.size).tensor
        real = ((pixels + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
        looks[name] = encoder.pictures(real)
        if name not in stream.styles:
            references[name] = encoder.identities(real)
    return references, looks


def _alone(
    painter: Painter,
    encoder: MetricEncoder,
    references: Mapping[str, Tensor],
    name: str,
    pictures: int,
) -> float:
    """How like a concept is that is drawn alone, where it is seen best."""
    drawn = painter.draw(
        [PLAIN.format(f"<{name}>")] * pictures,
        seeds=range(SEED, SEED + pictures),
        batch_size=AT_ONCE,
    )
    own = {name: references[name]}
    return float(likeness_in(encoder, drawn, own).amax(dim=(1, 2)).mean())


def _of_the_base(
    base: Base, bank: Bank, encoder: MetricEncoder, said: Sequence[str], pictures: int
) -> float:
    """Text alignment of what the untouched base draws of the same words."""
    prompts = [text for text in said for _ in range(pictures)]
    seeds = [SEED + k for _ in said for k in range(pictures)]
    drawn = Painter(base, bank, upto=0).draw(prompts, seeds=seeds, batch_size=AT_ONCE)
    return text_alignment(encoder.pictures(drawn), encoder.texts(prompts))
