"""Write a few pictures of one drawn identity to a folder, as an owner would have photographs."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from perdure.smallworld.world import references

__all__ = ["write_pictures"]


def write_pictures(
    folder: Path, *, domain: str, identity: int, count: int = 8, seed: int = 0
) -> list[Path]:
    """Draw ``count`` pictures (64 x 64 PNG) of identity (domain, ``identity``) into ``folder``.

    Raises ValueError for an unknown domain, a negative seed or a count below 1.
    """
    pictures = references(domain, identity, count, seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{k:02d}.png" for k in range(len(pictures))]
    for path, (picture, _) in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    return paths
