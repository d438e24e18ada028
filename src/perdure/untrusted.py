"""What others may have written, JSON and pictures: opened with bounds; all else is one error."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

__all__ = ["FORMATS", "MAX_PIXELS", "open_picture", "parse_json", "read_json"]

MAX_PIXELS = 89_478_485  # where Pillow, too, begins to suspect a decompression bomb
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP")
"""Of pictures; Pillow's others are rare, and one of them (EPS) runs a program."""


def read_json(path: Path) -> Any:
    """A file's JSON. OSError where it cannot be read, ValueError for all else."""
    return parse_json(path.read_text(encoding="utf-8"))


def parse_json(text: str | bytes) -> Any:
    """ValueError for all that is no JSON, lists in lists without end among it."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


@contextmanager
def open_picture(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """A picture file or its bytes, not yet decoded; its first frame is what is decoded.

    Raises ValueError, with the reason, for whatever goes wrong with it in the block, too.
    """
    try:
        # Pillow warns of what it mends, and of bombs: our own limit is an error, before decoding.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = io.BytesIO(source) if isinstance(source, bytes) else source
            with Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise ValueError(f"it claims {image.width}x{image.height} pixels")
                yield image
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ValueError(f"{error}" or type(error).__name__) from error
