"""What one concept is learned from: its pictures, their weights, masks and captions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from perdure.hosts.diffusion.host import Base
from perdure.hosts.size import Size, buckets
from perdure.learning.captions import check_captions, named_throughout, read_captions
from perdure.learning.photos import Pictures, listed, read_buckets, read_pictures
from perdure.learning.settings import LearnSettings
from perdure.learning.weighted import Given, Source

__all__ = ["digest_of", "files_of", "read_source"]


def files_of(source: Given) -> tuple[list[Path], list[float], list[str]]:
    """The picture files of a concept, the weight of each, and notes about what is passed over."""
    several = [source] if isinstance(source, str | Path) else list(source)
    sources = [Source.of(one) for one in several]
    if not any(one.pictures.is_dir() for one in sources):
        files, notes = listed([one.pictures for one in sources])
        weight_of = {one.pictures: one.weight for one in sources}
        return files, [weight_of[file] for file in files], notes
    files, weights, notes = [], [], []
    for one in sources:
        own, said = listed(one.pictures)
        files += own
        weights += [one.weight] * len(own)
        notes += said
    return files, weights, notes


def read_source(
    base: Base, concept: str, source: Given, settings: LearnSettings
) -> tuple[Pictures, ...]:
    """Pictures at the sizes that are learned, with what the settings say of masks and captions.

    One `Pictures`, or with buckets one for each size. Digests are of all that is learned from.
    Raises PerdureError as `read_pictures`, `check_captions` and `read_captions` do.
    """
    given, weights, notes = files_of(source)
    size = base.fitting(settings.size)
    if settings.fit == "buckets":
        groups = read_buckets(given, sizes=buckets(size, _unit(base, size)), masks=settings.masks)
    else:
        groups = (read_pictures(given, size=size, fit=settings.fit, masks=settings.masks),)
    if notes:
        groups = (replace(groups[0], notes=(*notes, *groups[0].notes)), *groups[1:])
    if set(weights) != {1.0}:
        groups = tuple(_weighed(read, dict(zip(given, weights, strict=True))) for read in groups)
    if not settings.captions:
        return groups
    for one in [source] if isinstance(source, str | Path) else source:
        if (folder := Source.of(one).pictures).is_dir():
            check_captions(folder)
    files = [file for read in groups for file in read.files]
    captions = read_captions(files, concept, settings.templates[0])
    if not any(captions):
        return groups
    notes = []
    if lost := [file for file, text in zip(files, captions, strict=True) if text is None]:
        notes.append(f"{lost[0]} has no caption, and others have: a template stands in its place.")
    if words := named_throughout(captions):
        notes.append(
            f"Every caption of <{concept}> says {', '.join(words)}: what captions name is learned "
            "by those words and not by the token, so leave out what belongs to the concept."
        )
    told, captioned = iter(captions), []
    for read in groups:
        own = tuple(islice(told, len(read)))
        digest = hashlib.sha256(repr((read.digest, own)).encode()).hexdigest()
        captioned.append(replace(read, captions=own, digest=digest))
    captioned[0] = replace(captioned[0], notes=(*captioned[0].notes, *notes))
    return tuple(captioned)


def _weighed(read: Pictures, weight_of: dict[Path, float]) -> Pictures:
    weights = tuple(weight_of[file] for file in read.files)
    digest = hashlib.sha256(repr((read.digest, weights)).encode()).hexdigest()
    return replace(read, weights=weights, digest=digest)


def _unit(base: Base, size: Size) -> int:
    """Of buckets' sides: 64 pixels as other trainers have them, finer where pictures are small."""
    unit = base.family.multiple(base.pipeline)
    return unit * max(1, round(min(64, min(size) / 8) / unit))


def digest_of(groups: Sequence[Pictures]) -> str:
    """Of all pictures of a concept: a resume with others is refused by it."""
    if len(groups) == 1:
        return groups[0].digest
    return hashlib.sha256("".join(read.digest for read in groups).encode()).hexdigest()
