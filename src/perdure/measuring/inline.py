"""Pictures inside a page."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from perdure.measuring.contents import Picture

__all__ = ["image"]

SMALL = 128  # pictures up to this side are shown times three, pixel by pixel
LARGEST = 384


def image(picture: Picture, largest: int = LARGEST) -> dict[str, Any]:
    """A picture as a WebP data URI with its width, height and whether it is small.

    One larger than ``largest`` is shrunk to that side.
    """
    if isinstance(picture, Tensor):
        picture = picture.detach().cpu().numpy()
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(
                f"a picture must be uint8 (H, W, 3), got {picture.dtype} {picture.shape}"
            )
        picture = Image.fromarray(picture)
    picture = picture.convert("RGB")
    if max(picture.size) > largest:
        picture = picture.copy()
        picture.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    picture.save(data, "WEBP", lossless=True)
    return {
        "uri": "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode("ascii"),
        "width": picture.width,
        "height": picture.height,
        "small": max(picture.size) <= SMALL,
    }
