"""What `perdure suggest` says: what of a concept's pictures stands in the way, and what follows.

Plain measures alone; where nothing measures a thing honestly, that is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from perdure.hosts.diffusion.host import Base
from perdure.hosts.size import Size
from perdure.learning.advice import advised, make_settings
from perdure.learning.captions import read_captions
from perdure.learning.masks import mask_beside
from perdure.learning.photos import MAX_PIXELS, Thumbnail
from perdure.learning.picture_file import read_rgb, tags_of
from perdure.learning.sources import files_of
from perdure.learning.weighted import Given
from perdure.measuring.faces import count_faces, faces_installed
from perdure.methods import DEFAULT

__all__ = ["Finding", "Suggestion", "blur", "suggest"]

BLURRED = 0.55
"""`blur` above it: the DreamBooth photographs of ten subjects have 0.20 to 0.48, and blurred by a
Gaussian of 1.5 pixels 0.55 to 0.78, at 256 pixels."""
_SHORT = 256
"""Pixels of a picture's shorter side when its blur is measured, or fewer where it has fewer."""
_LOST = 0.25
"""A crop that loses more of a picture than this loses some of what is to be learned."""
_FEW = 3
_UPRIGHT = 1


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that stands in the way, and the pictures that it is true of."""

    about: str
    files: tuple[str, ...]
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """What was found, and the settings that follow; `to_json` for programs."""

    base: str
    size: Size
    """Width and height that are learned."""
    pictures: int
    findings: tuple[Finding, ...]
    unknown: tuple[str, ...]
    """What nothing here can tell, in a sentence each."""
    settings: dict[str, Any]
    """Fields of `LearnSettings` that are not as the base advises."""
    because: dict[str, str]
    """Why, for each of them; and what the steps come to."""

    def to_json(self) -> dict[str, Any]:
        """Field -> JSON value."""
        return asdict(self)


def blur(picture: Image.Image) -> float:
    """How blurred a picture is, from 0 (sharp) to 1.

    How much of the differences between neighbouring pixels survives a blur of the picture, in the
    direction in which more does: what is blurred already loses little (Crete et al. 2007, "The blur
    effect"). A box of 7 pixels, on the luminance, at a shorter side of at most 256 pixels.
    """
    scale = min(1.0, _SHORT / min(picture.size))
    size = (round(picture.width * scale), round(picture.height * scale))
    grey = np.asarray(picture.convert("L").resize(size, Image.Resampling.LANCZOS), np.float64)
    return max(_surviving(grey), _surviving(grey.T))


def _surviving(grey: np.ndarray) -> float:
    """Of differences along the columns: the share that is left after blurring along them."""
    sums = np.cumsum(np.pad(grey, ((1, 0), (0, 0))), axis=0)
    softened = (sums[7:] - sums[:-7]) / 7
    before = np.abs(np.diff(grey[3:-3], axis=0))
    after = np.abs(np.diff(softened, axis=0))
    total = float(before.sum())
    return 1.0 if not total else 1 - float(np.maximum(0, before - after).sum()) / total


def suggest(source: Given, base: Base, *, method: str | None = None) -> Suggestion:
    """Look at the pictures of one concept, and say which settings follow for a base.

    Args:
        source: a folder, or picture files; nothing is changed.
        base: what it is to be taught to.
        method: the bank's; `gated` by default.

    Near-duplicates, blur, size, shapes and what a file's tags say are measured. Several subjects
    are counted by faces where dlib is installed (`perdure[faces]`), and are else unknown. Raises
    PerdureError as `read_pictures` does.
    """
    files, _, notes = files_of(source)
    findings = [Finding(about="not read", files=(), sentence=note) for note in notes]
    shown = [read_rgb(file, MAX_PIXELS)[0] for file in files]
    size = base.size
    findings += _alike(files, shown)
    findings += _blurred(files, shown)
    small, largest = _small(files, shown, size)
    findings += small
    shapes, lost = _shapes(files, shown, size)
    findings += shapes
    findings += _tags(files)
    several, unknown = _several(files, shown)
    findings += several
    if len(files) < _FEW:
        sentence = f"{len(files)} is few: three to fifteen in different light and places are best."
        findings.append(Finding(about="number", files=(), sentence=sentence))

    advice = make_settings(advised(base.hints, method or DEFAULT), {})
    settings: dict[str, Any] = {}
    because: dict[str, str] = {}
    if lost > _LOST:
        settings["fit"] = "buckets"
        because["fit"] = f"a crop loses up to {lost:.0%} of a picture"
    unit = base.family.multiple(base.pipeline)
    if small and 2 * len(small[0].files) > len(files) and (side := largest // unit * unit):
        settings["size"] = f"{side}x{side}"
        because["size"] = "most pictures are smaller than the base's, and nothing is enlarged there"
    if steps := advice.steps:
        seen = steps * advice.batch_size * advice.accumulate / len(files)
        because["steps"] = (
            f"{steps}, as the base advises: each picture is learned {seen:.0f} times; the number "
            "of pictures does not change what a concept needs"
        )
    masked = sum(mask_beside(file) is not None for file in files)
    captioned = sum(text is not None for text in read_captions(files, "x"))
    for name, count in (("masks", masked), ("captions", captioned)):
        if count:
            because[name] = f"{count} of {len(files)} pictures have one beside them, and it is used"
    return Suggestion(
        base=base.name,
        size=size,
        pictures=len(files),
        findings=tuple(findings),
        unknown=unknown,
        settings=settings,
        because=because,
    )


def _alike(files: Sequence[Path], shown: Sequence[Image.Image]) -> Iterator[Finding]:
    """Groups of pictures that look almost like one another."""
    groups: list[tuple[Thumbnail, list[str]]] = []
    for file, picture in zip(files, shown, strict=True):
        own = Thumbnail(picture)
        for other, names in groups:
            if own.resembles(other):
                names.append(file.name)
                break
        else:
            groups.append((own, [file.name]))
    for _, names in groups:
        if len(names) > 1:
            sentence = "look almost alike: keep one of them, for different pictures teach more"
            yield Finding(about="near-duplicates", files=tuple(names), sentence=sentence)


def _blurred(files: Sequence[Path], shown: Sequence[Image.Image]) -> Iterator[Finding]:
    found = tuple(f.name for f, p in zip(files, shown, strict=True) if blur(p) > BLURRED)
    if found:
        sentence = "blurred, or of one tone: what is soft is learned as soft"
        yield Finding(about="blurred", files=found, sentence=sentence)


def _small(
    files: Sequence[Path], shown: Sequence[Image.Image], size: Size
) -> tuple[list[Finding], int]:
    """Pictures that a crop would enlarge; the side of the largest square in each of them."""
    largest = min(min(picture.size) for picture in shown)
    found = tuple(
        file.name
        for file, picture in zip(files, shown, strict=True)
        if max(new / old for new, old in zip(size, picture.size, strict=True)) > 1
    )
    if not found:
        return [], largest
    wanted = f"{size[0]}x{size[1]}"
    sentence = f"smaller than {wanted}: take larger versions; more than half as small is left out"
    return [Finding(about="too small", files=found, sentence=sentence)], largest


def _shapes(
    files: Sequence[Path], shown: Sequence[Image.Image], size: Size
) -> tuple[list[Finding], float]:
    """Whether shapes are mixed; the largest share of a picture that a crop loses."""
    shape = size[0] / size[1]
    own = [picture.width / picture.height for picture in shown]
    lost = [1 - min(one, shape) / max(one, shape) for one in own]
    wide, high = (sum(one > 1.1 for one in own), sum(one < 1 / 1.1 for one in own))
    if max(lost) <= _LOST and not (wide and high):
        return [], max(lost)
    names = tuple(f.name for f, share in zip(files, lost, strict=True) if share > _LOST)
    rest = len(own) - wide - high
    sentence = (
        f"{wide} wide, {high} upright, {rest} about square: a crop cuts up to {max(lost):.0%}"
    )
    return [Finding(about="shapes", files=names, sentence=sentence)], max(lost)


def _tags(files: Sequence[Path]) -> Iterator[Finding]:
    """What files say of themselves that other programs may read otherwise."""
    tags = [tags_of(file) for file in files]
    turned = tuple(f.name for f, t in zip(files, tags, strict=True) if t.orientation in range(2, 9))
    odd = tuple(
        f.name for f, t in zip(files, tags, strict=True) if t.orientation not in range(1, 9)
    )
    other = [f"{f.name} ({t.profile})" for f, t in zip(files, tags, strict=True) if t.profile]
    if turned:
        sentence = "turned upright by their EXIF tag: look whether they stand upright in a viewer"
        yield Finding(about="EXIF", files=turned, sentence=sentence)
    if odd:
        sentence = "have an EXIF orientation that does not exist, and are read as they lie"
        yield Finding(about="EXIF", files=odd, sentence=sentence)
    if other:
        sentence = "have colours of another profile than sRGB, read as if it were: convert to sRGB"
        yield Finding(about="colours", files=tuple(other), sentence=sentence)


def _several(
    files: Sequence[Path], shown: Sequence[Image.Image]
) -> tuple[list[Finding], tuple[str, ...]]:
    """Pictures with several faces; what can't be told of subjects."""
    things = "whether a picture shows several animals or things: look yourself, or give masks"
    if not faces_installed():
        people = (
            "whether a picture shows several people (pip install 'perdure[faces]' counts faces)"
        )
        return [], (people, things)
    found = tuple(f.name for f, n in zip(files, count_faces(shown), strict=True) if n > 1)
    if not found:
        return [], (things,)
    sentence = "show several faces: crop to the one that is meant, or give masks"
    return [Finding(about="several subjects", files=found, sentence=sentence)], (things,)
