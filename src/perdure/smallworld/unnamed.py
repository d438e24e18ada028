"""Styles that no caption names: inks on paper, for streams that teach a style as a concept."""

from __future__ import annotations

import numpy as np

from perdure.smallworld.identities import check_seed, generator
from perdure.smallworld.pen import spread
from perdure.smallworld.world import Scene, sample

__all__ = ["in_style", "style_references", "style_scenes"]

_LUMA = np.array([0.299, 0.587, 0.114])
_y, _x = np.mgrid[0:64, 0:64]


def in_style(image: np.ndarray, seed: int) -> np.ndarray:
    """A uint8 (64, 64, 3) picture in the unnamed style ``seed``.

    Two inks and a paper, a few flat tones, and hatching of one slope in the darker ones. Raises
    ValueError for a negative seed.
    """
    check_seed("seed", seed)
    rng = generator(4, seed)
    paper = 255 - 40 * rng.random(3)
    inks = np.sort(rng.uniform([[0], [60]], [[90], [210]], (2, 3)), axis=0)
    levels = int(rng.integers(6, 9))
    slope, period = spread(rng, 0, np.pi), spread(rng, 4, 8)
    tone = image @ _LUMA / 255
    tone = np.round(tone * (levels - 1)) / (levels - 1)
    across = np.cos(slope) * _x + np.sin(slope) * _y
    hatched = (across % period < period / 2) & (tone < 0.45)
    share = tone[..., None]
    printed = np.where(
        share < 0.5,
        inks[0] + (inks[1] - inks[0]) * 2 * share,
        inks[1] + (paper - inks[1]) * (2 * share - 1),
    )
    printed = np.where(hatched[..., None], 0.7 * printed + 0.3 * inks[0], printed)
    return np.clip(printed + 0.5, 0, 255).astype(np.uint8)


def style_scenes(seed: int, count: int, split: str = "benchmark") -> list[Scene]:
    """What the ``count`` pictures of `style_references` show: ``split``'s subjects, one each."""
    rng = generator(5, seed)
    scenes = []
    for _ in range(count):
        scene = sample(rng, split, two=0.0)
        while scene.context.style != "photo":
            scene = sample(rng, split, two=0.0)
        scenes.append(scene)
    return scenes


def style_references(seed: int, count: int, split: str = "benchmark") -> list[np.ndarray]:
    """The pictures of `style_scenes`, all in the unnamed style ``seed``."""
    return [in_style(scene.render(), seed) for scene in style_scenes(seed, count, split)]
