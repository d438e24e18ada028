"""Drawings as they fail, made from renders: what an identity score must count as nobody."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from perdure.measuring.shape import shuffled_in_blocks

__all__ = ["FAILURES", "blurred", "colour_shuffled", "heap", "mixed", "noisy"]


def blurred(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Out of focus, by 3 to 6 pixels."""
    radius = float(rng.uniform(3, 6))
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def noisy(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half denoised: a blurred picture under coarse and fine noise of its own contrast."""
    height, width, channels = picture.shape
    coarse = rng.normal(size=(height // 4, width // 4, channels)).repeat(4, 0).repeat(4, 1)
    noise = coarse + rng.normal(size=picture.shape)
    soft = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(2.0)))
    share = rng.uniform(0.4, 0.7)
    spoilt = (1 - share) * soft + share * (soft.mean((0, 1)) + picture.std() * noise)
    return np.clip(spoilt + 0.5, 0, 255).astype(np.uint8)


def shuffled(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pixels shuffled inside blocks of 6 to 16, at any offset."""
    return shuffled_in_blocks(picture[None], int(rng.integers(6, 17)), rng)[0]


def colour_shuffled(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The right shapes in wrong colours: channels change places and are turned over."""
    turned = picture[..., rng.permutation([1, 2, 0] if rng.random() < 0.5 else [2, 0, 1])]
    return np.where(rng.random(3) < 0.5, 255 - turned, turned).astype(np.uint8)


def heap(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A heap of the right colours: soft blobs, each of a colour of the picture's near there."""
    size = len(picture)
    y, x = np.mgrid[:size, :size]
    canvas = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(8.0)), float)
    for _ in range(40):
        at = rng.integers(0, size, 2)
        near = np.clip(at + rng.integers(-6, 7, 2), 0, size - 1)
        radius = rng.uniform(3, 9)
        spot = np.exp(-((((y - at[0]) ** 2 + (x - at[1]) ** 2) / radius**2) ** 2))[..., None]
        canvas = (1 - spot) * canvas + spot * picture[near[0], near[1]]
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)


def mixed(picture: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two pictures, one shining through the other."""
    share = rng.uniform(0.4, 0.6)
    return (share * picture + (1 - share) * other + 0.5).astype(np.uint8)


FAILURES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "blurred": blurred,
    "noisy": noisy,
    "shuffled": shuffled,
    "colour-shuffled": colour_shuffled,
    "heap": heap,
}
