"""What one concept is learned from: its pictures, their masks and their captions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from perdure.hosts.diffusion.host import Base
from perdure.learning.captions import check_captions, named_throughout, read_captions
from perdure.learning.photos import Pictures, read_pictures
from perdure.learning.settings import LearnSettings

__all__ = ["read_source"]


def read_source(
    base: Base, concept: str, source: Path | str | Sequence[Path | str], settings: LearnSettings
) -> Pictures:
    """Pictures at the size that is learned, with what the settings say of masks and captions.

    The digest is of all three. Raises PerdureError as `read_pictures`, `check_captions` and
    `read_captions` do.
    """
    read = read_pictures(
        source, size=base.fitting(settings.size), fit=settings.fit, masks=settings.masks
    )
    if not settings.captions:
        return read
    if isinstance(source, str | Path) and Path(source).expanduser().is_dir():
        check_captions(Path(source).expanduser())
    captions = read_captions(read.files, concept, settings.templates[0])
    if not any(captions):
        return read
    notes = list(read.notes)
    if lost := [file for file, text in zip(read.files, captions, strict=True) if text is None]:
        notes.append(f"{lost[0]} has no caption, and others have: a template stands in its place.")
    if words := named_throughout(captions):
        notes.append(
            f"Every caption of <{concept}> says {', '.join(words)}: what captions name is learned "
            "by those words and not by the token, so leave out what belongs to the concept."
        )
    digest = hashlib.sha256(repr((read.digest, captions)).encode()).hexdigest()
    return replace(read, captions=captions, digest=digest, notes=tuple(notes))
