"""Write a few pictures of one drawn subject to a folder, as an owner would have photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from perdure.durable import replacing
from perdure.errors import PerdureError
from perdure.outputs import output_folder
from perdure.smallworld.unnamed import style_references
from perdure.smallworld.world import references

__all__ = ["write_pictures", "write_style"]


def write_pictures(
    folder: Path | str, *, domain: str, identity: int, count: int = 8, seed: int = 0
) -> list[Path]:
    """Draw ``count`` pictures (64 x 64 PNG) of identity (domain, ``identity``) into ``folder``.

    Raises ValueError for an unknown domain, a negative seed or a count below 1, and PerdureError
    where a file of that name is another picture.
    """
    return _write(folder, [picture for picture, _ in references(domain, identity, count, seed)])


def write_style(
    folder: Path | str, *, style: int, count: int = 8, split: str = "benchmark"
) -> list[Path]:
    """Draw ``count`` pictures of ``split``'s subjects in the unnamed style ``style``."""
    return _write(folder, style_references(style, count, split))


def _write(folder: Path | str, pictures: Sequence[np.ndarray]) -> list[Path]:
    folder = output_folder(folder)
    paths = [folder / f"{k:02d}.png" for k in range(len(pictures))]
    missing = [place for place in zip(paths, pictures, strict=True) if not _there(*place)]
    for path, picture in missing:
        with replacing(path) as partial:
            Image.fromarray(picture).save(partial, "PNG")
    return paths


def _there(path: Path, picture: np.ndarray) -> bool:
    """Is this picture there already? PerdureError where another file is in its place."""
    if not path.exists():
        return False
    try:
        with Image.open(path) as found:
            same = np.array_equal(np.asarray(found), picture)
    except OSError:
        same = False
    if not same:
        raise PerdureError(f"{path} is there and another picture: choose another folder.")
    return True
