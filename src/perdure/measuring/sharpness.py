"""How sharp pictures are, by the second differences of their luminance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

__all__ = ["sharpness", "sharpness_of"]

Pictures = Sequence[Image.Image] | Tensor | np.ndarray


def sharpness_of(picture: np.ndarray) -> float:
    """Variance of the Laplacian of the luminance of uint8 (H, W, 3), 3 x 3 or larger.

    Pech-Pacheco et al. 2000, with the five-point stencil; luminance as in ITU-R BT.601, in 0..255.
    """
    grey = picture.astype(np.float64) @ (0.299, 0.587, 0.114)
    inner = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * inner).var())


def sharpness(drawn: Pictures, references: Pictures) -> float:
    """Median sharpness of ``drawn`` over that of ``references``: 1 is as sharp as they are.

    Both are pictures of one size. Where the references are flat it is not a number.
    """
    medians = [
        float(np.median([sharpness_of(np.asarray(one)) for one in pictures]))
        for pictures in (drawn, references)
    ]
    return medians[0] / medians[1] if medians[1] else float("nan")
