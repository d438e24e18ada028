"""Pictures: a folder or a few files become one float tensor, or one clear sentence."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageChops, ImageOps

from perdure.errors import PerdureError
from perdure.hosts.size import Size
from perdure.learning.masks import check_mask, is_mask, mask_beside, subject_of
from perdure.learning.picture_file import NAMED, read_rgb, to_rgb
from perdure.untrusted import MAX_PIXELS

__all__ = [
    "MAX_PICTURES",
    "MAX_PIXELS",
    "Fit",
    "Masks",
    "Pictures",
    "Thumbnail",
    "TooSmall",
    "list_pictures",
    "listed",
    "read_buckets",
    "read_picture",
    "read_pictures",
]

Fit = Literal["crop", "letterbox"]
Masks = Literal["given", "auto", "none"]

MAX_PICTURES = 500

_READ = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".heic", ".heif"}
    | {".avif", ".tif", ".tiff", ".bmp"}
)
_NOT_READ = frozenset(
    {".cr2", ".cr3", ".dng", ".gif", ".jp2", ".jxl", ".nef", ".arw", ".raf", ".orf", ".psd", ".svg"}
)


class TooSmall(PerdureError):
    """All pictures would have to be enlarged too much."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """Pictures ready to be encoded, in the order of `files`."""

    tensor: torch.Tensor
    """float32 (N, 3, height, width), RGB in [-1, 1]."""

    files: tuple[Path, ...]
    """The N files that the tensor was read from."""

    digest: str
    """SHA-256 over the N pictures as they are encoded: a resume with others is refused by it."""

    notes: tuple[str, ...] = ()
    """Sentences for the user: what was left out, enlarged or looks alike."""

    masks: torch.Tensor | None = None
    """float32 (N, 1, height, width) in [0, 1], 1 where the concept is; None where no picture has
    one. A picture without a mask is the concept all over."""

    captions: tuple[str | None, ...] = ()
    """Of each picture, with `{}` for the concept, or None; empty where they were not read."""

    weights: tuple[float, ...] = ()
    """How much each picture counts; empty where all count alike."""

    def __len__(self) -> int:
        return len(self.files)

    @property
    def size(self) -> Size:
        """Width and height of each."""
        return self.tensor.shape[3], self.tensor.shape[2]


def read_buckets(
    source: Path | str | Sequence[Path | str], *, sizes: Sequence[Size], masks: Masks = "none"
) -> tuple[Pictures, ...]:
    """Each picture at that of ``sizes`` whose shape is nearest to its own, cropped as little.

    A `Pictures` for every size that has some, in the order of their first files. Raises as
    `read_pictures` does; PerdureError also where none is large enough for its size.
    """
    paths, notes = listed(source)
    _check_count(paths, MAX_PICTURES)
    groups: dict[Size, list[Path]] = {}
    for path in paths:
        width, height = read_rgb(path, MAX_PIXELS)[0].size

        def apart(size: Size, shape: float = width / height) -> tuple[float, int]:
            return abs(math.log(size[0] / size[1] / shape)), -size[0] * size[1]

        groups.setdefault(min(sizes, key=apart), []).append(path)
    found, refused = [], TooSmall("")
    for size, files in groups.items():
        try:
            found.append(read_pictures(files, size=size, masks=masks))
        except TooSmall as error:
            refused = error
            notes += [
                f"{file} is too small ({size[0]}x{size[1]} wanted): left out; take a larger one."
                for file in files
            ]
    if not found:
        raise refused
    found[0] = replace(found[0], notes=(*notes, *found[0].notes))
    return tuple(found)


def read_pictures(
    source: Path | str | Sequence[Path | str],
    *,
    size: int | tuple[int, int],
    fit: Fit = "crop",
    masks: Masks = "none",
    max_pixels: int = MAX_PIXELS,
    max_pictures: int = MAX_PICTURES,
) -> Pictures:
    """Read JPEG, PNG, WebP, AVIF, TIFF, BMP and (with pillow-heif) HEIC pictures as one tensor.

    Args:
        source: a folder (hidden files and sub-folders are ignored, the rest is read in the order of
            the names), one file, or several files (read in the order given).
        size: width and height in pixels; one number is a square.
        fit: "crop" keeps the centre; "letterbox" keeps the whole picture and pads it with the mean
            colour of its own edge.
        masks: "given" takes `NAME-mask.png` beside a picture, else its transparency; "auto" has one
            found for every picture that has none (with rembg). Masks that lie beside their pictures
            are never taken for pictures.
        max_pixels: a picture with more pixels is refused before it is decoded.
        max_pictures: more files than this are refused before one is opened.

    EXIF orientation is applied, transparency is laid on white, 16-bit greyscale is scaled to 8
    bits, of several frames or pages the first is taken; the picture is resized with Lanczos. Exact
    duplicates are left out, near ones are reported. A picture that has to be enlarged is reported;
    one that would have to be more than twice as large is left out.

    Raises:
        PerdureError: naming the file and the mend, for anything that cannot be read.
        ValueError: for a `size` or `fit` that does not exist.
    """
    width, height = wanted = (size, size) if isinstance(size, int) else size
    if width < 1 or height < 1:
        raise ValueError(f"size must be a positive number of pixels, not {size!r}")
    text = f"{width}x{height}"
    if fit not in ("crop", "letterbox"):
        raise ValueError(f"fit must be 'crop' or 'letterbox', not {fit!r}")

    paths, notes = listed(source)
    _check_count(paths, max_pictures)
    kept: list[tuple[Path, Image.Image, Thumbnail]] = []
    shown: list[Image.Image | None] = []
    seen: dict[str, Path] = {}
    for path in paths:
        picture, alpha = read_rgb(path, max_pixels)
        own = "{}x{}".format(*picture.size)
        pixels = hashlib.sha256(f"{own}:".encode() + picture.tobytes()).hexdigest()
        if (twin := seen.setdefault(pixels, path)) is not path:
            notes.append(f"{path} is the same picture as {twin}: left out.")
            continue

        scales = [new / old for new, old in zip(wanted, picture.size, strict=True)]
        scale = max(scales) if fit == "crop" else min(scales)
        if scale > 2:
            notes.append(
                f"{path} is too small ({own} pixels, {text} wanted): left out; take a larger"
                " version."
            )
            continue
        if scale > 1:
            notes.append(
                f"{path} is small ({own} pixels, {text} wanted): enlarged; a larger version would"
                " be learned better."
            )

        thumbnail = Thumbnail(picture)
        for other, _, its in kept:
            if thumbnail.resembles(its):
                notes.append(
                    f"{path} looks almost like {other}: kept; different pictures teach more."
                )
                break
        mask = None if masks == "none" else _mask(path, picture, alpha, masks, max_pixels)
        shown.append(mask and _fitted_mask(mask, wanted, fit, path))
        kept.append((path, _fitted(picture, wanted, fit), thumbnail))

    if not kept:
        raise TooSmall(
            f"None of the {len(paths)} pictures is large enough for {text} pixels: give larger"
            " versions, or choose a smaller --size."
        )
    pixels_NHWC = np.stack([np.asarray(square) for _, square, _ in kept])
    tensor = torch.from_numpy(pixels_NHWC).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1.0
    digest = hashlib.sha256(repr(pixels_NHWC.shape).encode() + pixels_NHWC.tobytes())
    weights = None
    if any(shown):
        whole = Image.new("L", wanted, 255)
        mask_NHW = np.stack([np.asarray(mask or whole) for mask in shown])
        digest.update(mask_NHW.tobytes())
        weights = torch.from_numpy(mask_NHW)[:, None].float() / 255
    return Pictures(
        tensor=tensor,
        files=tuple(path for path, _, _ in kept),
        digest=digest.hexdigest(),
        notes=tuple(notes),
        masks=weights,
    )


def _mask(
    path: Path, picture: Image.Image, alpha: Image.Image | None, masks: Masks, max_pixels: int
) -> Image.Image | None:
    """The grey mask of one upright picture, of its size; None where it has none."""
    if (beside := mask_beside(path)) is not None:
        painted, shown = read_rgb(beside, max_pixels)
        if shown is not None:  # what is transparent in a mask is not the concept, whatever is under
            painted = ImageChops.multiply(painted.convert("L"), shown)
        return check_mask(painted, str(beside), picture.size)
    if alpha is not None:
        return check_mask(alpha, f"The transparency of {path}", picture.size)
    if masks == "auto":
        return check_mask(subject_of(picture), f"The mask found for {path}", picture.size)
    return None


def read_picture(
    source: Path | str | Image.Image, *, size: tuple[int, int], fit: Fit = "crop"
) -> Image.Image:
    """One picture, a file or an open one, as `read_pictures` reads it, but enlarged as needed."""
    if isinstance(source, Image.Image):
        return _fitted(to_rgb(source)[0], size, fit)
    path = Path(source).expanduser()
    if path.is_dir():
        raise PerdureError(f"{path} is a folder: name one picture.")
    return _fitted(read_rgb(path, MAX_PIXELS)[0], size, fit)


def listed(source: Path | str | Sequence[Path | str]) -> tuple[list[Path], list[str]]:
    """The files to read, and notes about those that are passed over."""
    sources = [source] if isinstance(source, (str, Path)) else list(source)
    paths = [Path(item).expanduser() for item in sources]
    if not paths:
        raise PerdureError("No pictures were given: name a folder of pictures or picture files.")
    for path in paths:
        if not path.exists():
            raise PerdureError(
                f"{path} does not exist: name a folder of pictures or picture files."
            )
    if len(paths) == 1 and paths[0].is_dir():
        return list_pictures(paths[0])
    for path in paths:
        if path.is_dir():
            raise PerdureError(
                f"{path} is a folder: name either one folder alone or picture files."
            )
    return [path for path in paths if not is_mask(path, paths)], []


def _check_count(paths: Sequence[Path], most: int) -> None:
    if len(paths) > most:
        raise PerdureError(
            f"{len(paths)} pictures were given, at most {most} are read: a concept needs"
            " only a few, so choose the best of them."
        )


def list_pictures(folder: Path) -> tuple[list[Path], list[str]]:
    """The picture files of a folder by name, and notes about those that are passed over.

    PerdureError where it has none or cannot be listed.
    """
    try:
        visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise PerdureError(
            f"The folder {folder} cannot be listed ({error.strerror}): check its permissions."
        ) from error
    files = sorted((path for path in visible if path.is_file()), key=lambda path: path.name)
    paths = [path for path in files if path.suffix.lower() in _READ]
    paths = [path for path in paths if not is_mask(path, paths)]
    notes = [
        f"{path} is left out: only {NAMED.format(' and ')} are read; convert it."
        for path in files
        if path.suffix.lower() in _NOT_READ
    ]
    if not paths:
        raise PerdureError(
            f"The folder {folder} has no pictures ({NAMED.format(' or ')}) in it; sub-folders are"
            " not searched: name the folder that holds them."
        )
    return paths, notes


def _fitted(picture: Image.Image, wanted: tuple[int, int], fit: Fit) -> Image.Image:
    lanczos = Image.Resampling.LANCZOS
    if fit == "crop":
        return ImageOps.fit(picture, wanted, lanczos)
    scale = min(new / old for new, old in zip(wanted, picture.size, strict=True))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    small = picture.resize((width, height), lanczos)
    pixels = np.asarray(small)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = (round(float(mean)) for mean in edge.mean(axis=0))
    padded = Image.new("RGB", wanted, (red, green, blue))
    padded.paste(small, ((wanted[0] - width) // 2, (wanted[1] - height) // 2))
    return padded


def _fitted_mask(mask: Image.Image, wanted: tuple[int, int], fit: Fit, path: Path) -> Image.Image:
    """As the picture; a border that letterboxing adds is not the concept."""
    if fit == "letterbox":
        return ImageOps.pad(mask, wanted, Image.Resampling.BOX, color=0)
    cropped = ImageOps.fit(mask, wanted, Image.Resampling.BOX)
    if not np.asarray(cropped).any():
        raise PerdureError(
            f"A crop about the centre of {path} leaves nothing of its masked subject: take "
            "--fit letterbox, or crop it by hand."
        )
    return cropped


class Thumbnail:
    """An 8x8 grey thumbnail and its average hash (which half of the pixels is the brighter one)."""

    def __init__(self, picture: Image.Image) -> None:
        small = picture.convert("L").resize((8, 8), Image.Resampling.LANCZOS)
        self.grey = np.asarray(small).astype(np.int64)
        self.bits = self.grey > self.grey.mean()

    def resembles(self, other: Thumbnail) -> bool:
        """At most 2 of 64 bits differ, and the grey levels by less than 4 of 255 on average."""
        bits = int((self.bits != other.bits).sum())
        return bits <= 2 and float(np.abs(self.grey - other.grey).mean()) < 4.0
