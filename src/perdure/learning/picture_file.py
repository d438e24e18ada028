"""One picture file, decoded: an upright RGB picture, or one clear sentence."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from perdure.errors import PerdureError
from perdure.untrusted import FORMATS

__all__ = ["NAMED", "Tags", "read_rgb", "tags_of", "to_rgb"]

NAMED = "JPEG, PNG, WebP, AVIF, TIFF, BMP{}HEIC"
"""The formats that are read, with the last "and" or "or" to be filled in."""
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"})


def read_rgb(path: Path, max_pixels: int) -> tuple[Image.Image, Image.Image | None]:
    """One file as an upright RGB picture, and its transparency (255 is opaque) if it has some.

    Everything that can go wrong is a PerdureError.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
        if not head:
            raise PerdureError(f"{path} is empty: copy it again from its source or leave it out.")
        if _is_heif(head):
            return _read_heif(path, max_pixels)
        # Pillow warns of what it mends, and of bombs: our own limit is an error, before decoding.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                _check_pixels(path, image.size, max_pixels)
                if image.mode == "F":
                    raise PerdureError(
                        f"{path} holds fractions, of which none is known to be white: save it with"
                        " 8 or 16 bits a colour."
                    )
                return to_rgb(ImageOps.exif_transpose(image))
    except PerdureError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(path) from error
    except UnidentifiedImageError as error:
        raise PerdureError(
            f"{path} is not a picture that can be read ({NAMED.format(' or ')}): convert it or"
            " leave it out."
        ) from error
    except (PermissionError, FileNotFoundError) as error:
        raise PerdureError(
            f"{path} cannot be opened ({error.strerror}): check that you may read it."
        ) from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise PerdureError(
            f"{path} is damaged or cut short ({error}): copy it again from its source or leave"
            " it out."
        ) from error


@dataclass(frozen=True, kw_only=True)
class Tags:
    """What a file says of its picture."""

    orientation: int
    """By EXIF: 1 is upright, 2 to 8 are turned or mirrored, all others mean nothing."""
    profile: str
    """Name of its colour profile; empty for sRGB, which is what is assumed where it says none."""


def tags_of(path: Path) -> Tags:
    """Of a file that `read_rgb` has read; HEIC's are applied by its decoder."""
    with path.open("rb") as file:
        if _is_heif(file.read(64)):
            return Tags(orientation=1, profile="")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path, formats=FORMATS) as image:
            told = image.getexif().get(ExifTags.Base.Orientation, 1)
            profile = image.info.get("icc_profile")
    return Tags(
        orientation=told if isinstance(told, int) else 0,
        profile=_named(profile) if profile else "",
    )


def _named(profile: bytes) -> str:
    """What a colour profile calls itself, where that is not sRGB."""
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(BytesIO(profile))).strip()
    except (ImageCms.PyCMSError, OSError, ValueError):
        return "unreadable"
    return "" if "srgb" in name.lower() else name


def _is_heif(head: bytes) -> bool:
    """By the brands that a file begins with; an AVIF may share the first one, `mif1`."""
    brands = head[8 : int.from_bytes(head[:4])]
    return head[4:8] == b"ftyp" and brands[:4] in _HEIF_BRANDS and b"avif" not in brands


def _read_heif(path: Path, max_pixels: int) -> tuple[Image.Image, Image.Image | None]:
    try:
        import pillow_heif  # optional; used directly, so that nothing is registered with Pillow
    except ImportError as error:
        raise PerdureError(
            f"{path} is a HEIC picture, and reading those needs one more package:"
            " pip install 'perdure[heic]'."
        ) from error
    heif = pillow_heif.open_heif(path, convert_hdr_to_8bit=True)
    _check_pixels(path, heif.size, max_pixels)
    return to_rgb(heif.to_pillow())  # the decoder has applied the orientation


def _check_pixels(path: Path, size: tuple[int, int], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise _too_many_pixels(path, f"{size[0]}x{size[1]}")


def _too_many_pixels(path: Path, size: str = "far too many") -> PerdureError:
    return PerdureError(
        f"{path} claims {size} pixels and is not decoded, for it may be a decompression bomb: if"
        " it is a real picture, save a smaller version of it."
    )


def to_rgb(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The picture on white, and its transparency, or None where it has none."""
    if image.mode.startswith("I"):  # 16-bit greyscale; Pillow's own conversion would clip it
        grey = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    opaque = alpha is None or alpha.getextrema() == (255, 255)
    return image.convert("RGB"), None if opaque else alpha
