"""What one concept is learned from: its pictures, their masks and their captions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from perdure.hosts.diffusion.host import Base
from perdure.hosts.size import Size, buckets
from perdure.learning.captions import check_captions, named_throughout, read_captions
from perdure.learning.photos import Pictures, read_buckets, read_pictures
from perdure.learning.settings import LearnSettings

__all__ = ["digest_of", "read_source"]


def read_source(
    base: Base, concept: str, source: Path | str | Sequence[Path | str], settings: LearnSettings
) -> tuple[Pictures, ...]:
    """Pictures at the sizes that are learned, with what the settings say of masks and captions.

    One `Pictures`, or with buckets one for each size. Digests are of all three. Raises PerdureError
    as `read_pictures`, `check_captions` and `read_captions` do.
    """
    size = base.fitting(settings.size)
    if settings.fit == "buckets":
        groups = read_buckets(source, sizes=buckets(size, _unit(base, size)), masks=settings.masks)
    else:
        groups = (read_pictures(source, size=size, fit=settings.fit, masks=settings.masks),)
    if not settings.captions:
        return groups
    if isinstance(source, str | Path) and Path(source).expanduser().is_dir():
        check_captions(Path(source).expanduser())
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


def _unit(base: Base, size: Size) -> int:
    """Of buckets' sides: 64 pixels as other trainers have them, finer where pictures are small."""
    unit = base.family.multiple(base.pipeline)
    return unit * max(1, round(min(64, min(size) / 8) / unit))


def digest_of(groups: Sequence[Pictures]) -> str:
    """Of all pictures of a concept: a resume with others is refused by it."""
    if len(groups) == 1:
        return groups[0].digest
    return hashlib.sha256("".join(read.digest for read in groups).encode()).hexdigest()
