"""From pixels to what a backbone reads; in training through a random crop and a mirror."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from perdure.untrusted import parse_json

Pictures = Sequence[np.ndarray]
"""uint8 (height, width, 3) each, RGB."""

__all__ = ["Preprocessing", "coda_prompt", "from_config"]

_TRIES = 10
_RATIOS = (math.log(3 / 4), math.log(4 / 3))


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Size, mean and deviation of what a backbone reads, in units of white = 1."""

    size: int
    """Height and width."""
    shortest: int | None = None
    """Scale the shorter edge to this and crop the centre; None squeezes the whole picture."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    resample: int = 2
    """PIL's number of the filter: 2 bilinear, 3 bicubic."""

    def __post_init__(self) -> None:
        if self.size < 1 or (self.shortest is not None and self.shortest < self.size):
            raise ValueError(
                f"size is {self.size} and shortest {self.shortest}: give a size of at least 1 and "
                "a shorter edge that it can be cut from"
            )
        if min(self.std) <= 0:
            raise ValueError(f"std is {self.std}, but must be above 0")

    def plain(self, pictures: Pictures) -> Tensor:
        """(N, 3, size, size), fp32, without chance: what is predicted from."""
        return self._batch([self._whole(Image.fromarray(picture)) for picture in pictures])

    def augmented(
        self, pictures: Pictures, generator: torch.Generator, *, crop: float, flip: bool
    ) -> Tensor:
        """(N, 3, size, size), fp32: a random crop of each picture, mirrored half of the time.

        As torchvision's RandomResizedCrop: a share of the area in [crop, 1], sides in a ratio of
        3:4 to 4:3, ten tries to fit it in, else the largest centred crop. `crop=1` takes the whole.
        """
        draws = torch.rand(len(pictures), _TRIES, 4, generator=generator).numpy()
        mirrored = torch.rand(len(pictures), generator=generator).numpy() < 0.5
        images = []
        for picture, tries, mirror in zip(pictures, draws, mirrored, strict=True):
            image = Image.fromarray(picture)
            if crop < 1:
                box = _box(image.width, image.height, tries, crop)
                image = image.resize((self.size, self.size), self._filter, box=box)
            else:
                image = self._whole(image)
            if flip and mirror:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            images.append(image)
        return self._batch(images)

    def to_json(self) -> dict[str, Any]:
        """Field name -> JSON value; `from_json` makes it again."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Preprocessing:
        whole = {**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])}
        return cls(**whole)

    @property
    def _filter(self) -> Image.Resampling:
        return Image.Resampling(self.resample)

    def _whole(self, image: Image.Image) -> Image.Image:
        if self.shortest is None:
            return image.resize((self.size, self.size), self._filter)
        width, height = image.size
        short, long = min(width, height), max(width, height)
        scaled = (self.shortest, int(self.shortest * long / short))
        image = image.resize(scaled if width <= height else scaled[::-1], self._filter)
        left, top = (image.width - self.size) // 2, (image.height - self.size) // 2
        return image.crop((left, top, left + self.size, top + self.size))

    def _batch(self, images: Sequence[Image.Image]) -> Tensor:
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
        scaled = pixels.permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (scaled - mean) / std


def coda_prompt(size: int) -> Preprocessing:
    """CODA-Prompt's: squeezed to a square, mean 0 and deviation 1 (`dataloaders/utils.py`)."""
    return Preprocessing(size=size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def from_config(text: str) -> Preprocessing:
    """What a `preprocessor_config.json` of transformers says; ValueError for another scheme."""
    config = parse_json(text)
    size, crop = config.get("size"), config.get("crop_size") or {}
    if isinstance(size, int):
        size = {"shortest_edge": size} if config.get("do_center_crop") else {"height": size}
    shortest = size.get("shortest_edge")
    target = crop.get("height") if config.get("do_center_crop") else size.get("height")
    if target is None or (shortest is None and "height" not in size):
        raise ValueError(f"size {size} and crop_size {crop} are not a square that is known here")
    normalised = config.get("do_normalize", True)
    return Preprocessing(
        size=target,
        shortest=shortest,
        mean=tuple(config["image_mean"]) if normalised else (0.0, 0.0, 0.0),
        std=tuple(config["image_std"]) if normalised else (1.0, 1.0, 1.0),
        resample=config.get("resample", 2),
    )


def _box(
    width: int, height: int, tries: np.ndarray, crop: float
) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a random crop; `tries` (ten, 4) are uniform in [0, 1)."""
    for area, ratio, x, y in tries:
        share = (crop + (1 - crop) * area) * width * height
        aspect = math.exp(_RATIOS[0] + (_RATIOS[1] - _RATIOS[0]) * ratio)
        w, h = round(math.sqrt(share * aspect)), round(math.sqrt(share / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(x * (width - w + 1)), int(y * (height - h + 1))
            return left, top, left + w, top + h
    w = min(width, round(height * math.exp(_RATIOS[1])))
    h = min(height, round(width / math.exp(_RATIOS[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
