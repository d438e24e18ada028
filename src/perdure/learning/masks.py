"""Masks: which part of a picture the concept is; the loss is of that part alone.

`rex-mask.png` beside `rex.jpg` (white is the concept), or the picture's own transparency.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from perdure.errors import PerdureError

__all__ = ["check_mask", "is_mask", "mask_beside", "subject_of"]

_ENDING = "-mask"


def is_mask(path: Path, others: Sequence[Path]) -> bool:
    """Is ``path`` the mask of one of ``others``: `rex-mask.png` beside a picture `rex`?"""
    if path.suffix.lower() != ".png" or not path.stem.endswith(_ENDING):
        return False
    whole = path.stem.removesuffix(_ENDING)
    return any(other.stem == whole and other.parent == path.parent for other in others)


def mask_beside(picture: Path) -> Path | None:
    """The mask file that lies beside ``picture``, or None."""
    path = picture.with_name(f"{picture.stem}{_ENDING}.png")
    return path if path.exists() else None


def check_mask(mask: Image.Image, name: str, size: tuple[int, int]) -> Image.Image:
    """``mask`` in grey, 255 where the concept is; ``name`` is what an error calls it.

    Raises PerdureError where it is not of its picture's ``size``, or shows nothing.
    """
    grey = mask.convert("L")
    if grey.size != size:
        raise PerdureError(
            f"{name} has {grey.width}x{grey.height} pixels and its picture {size[0]}x{size[1]}: "
            "save the mask at the picture's size."
        )
    if not np.asarray(grey).any():
        raise PerdureError(f"{name} shows no subject: paint it white, or take the mask away.")
    return grey


def subject_of(picture: Image.Image) -> Image.Image:
    """The subject that `rembg` finds in an RGB picture, as a grey mask.

    Raises PerdureError where that package is not installed.
    """
    try:
        import rembg
    except ImportError as error:
        raise PerdureError(
            "Finding masks needs one more package: pip install 'perdure[masks]'; or paint them, as "
            "NAME-mask.png beside NAME.jpg."
        ) from error
    found: Image.Image = rembg.remove(picture, only_mask=True)
    return found
