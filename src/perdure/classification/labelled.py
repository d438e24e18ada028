"""Labelled pictures: decoded when they are looked at, never changed by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from PIL import Image

from perdure.errors import PerdureError
from perdure.untrusted import open_picture

__all__ = ["EncodedPictures", "Pictures", "Selected", "Split", "as_pictures", "decode"]

Pictures = Sequence[np.ndarray]
"""uint8 (height, width, 3) each, RGB."""


def decode(source: bytes | Path, name: str) -> np.ndarray:
    """The pixels (H, W, 3) of a picture file; PerdureError where it is none."""
    try:
        with open_picture(source) as image:
            return np.asarray(image.convert("RGB"))
    except ValueError as error:
        raise PerdureError(
            f"{name} cannot be read as a picture ({error}): mend or remove it."
        ) from error


class _Lazy(Sequence[np.ndarray]):
    """A sequence of pictures that are made one by one."""

    def picture(self, index: int) -> np.ndarray:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> Pictures: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Selected(self, range(len(self))[index])
        return self.picture(range(len(self))[index])


class EncodedPictures(_Lazy):
    """Pictures held as the bytes or the paths of their files, in order."""

    def __init__(self, sources: Sequence[bytes | Path], names: Sequence[str]) -> None:
        self.sources, self.names = sources, names

    def __len__(self) -> int:
        return len(self.sources)

    def picture(self, index: int) -> np.ndarray:
        return decode(self.sources[index], self.names[index])


class Selected(_Lazy):
    """Some of the pictures, by their indices."""

    def __init__(self, pictures: Pictures, indices: Sequence[int]) -> None:
        self.pictures, self.indices = pictures, indices

    def __len__(self) -> int:
        return len(self.indices)

    def picture(self, index: int) -> np.ndarray:
        return self.pictures[int(self.indices[index])]


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Pictures and, for each, the index of its class."""

    pictures: Pictures
    labels: np.ndarray

    def __post_init__(self) -> None:
        if len(self.pictures) != len(self.labels):
            raise ValueError(f"{len(self.pictures)} pictures came with {len(self.labels)} labels")

    def of(self, classes: Sequence[int]) -> Split:
        """The pictures of these classes, in the order that they lie in."""
        return self.where(np.isin(self.labels, classes))

    def where(self, chosen: np.ndarray) -> Split:
        """The pictures where ``chosen``, a bool for each, is true, in the order that they lie in"""
        indices = np.flatnonzero(chosen)
        pictures = Selected(self.pictures, indices.tolist())
        return Split(pictures=pictures, labels=self.labels[indices])


def as_pictures(images: Any) -> Pictures:
    """What a user has as pictures: uint8 (N, H, W, 3), or a sequence of arrays or PIL pictures.

    Raises ValueError that names the first one that is not a picture.
    """
    if isinstance(images, _Lazy):
        return images
    if isinstance(images, np.ndarray) and images.ndim != 4:
        raise ValueError(f"images must be uint8 (N, height, width, 3), got {images.shape}")
    if not len(images):
        raise ValueError("images is empty: give at least one picture")
    return [_as_array(image, index) for index, image in enumerate(images)]


def _as_array(image: Any, index: int) -> np.ndarray:
    array = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(
            f"images[{index}] must be a PIL picture or uint8 (height, width, 3), "
            f"got {array.dtype} {array.shape}"
        )
    return array
