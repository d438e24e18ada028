"""Pictures as cached latents, and whether the base can hold them at all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from perdure.hosts.diffusion.host import Base
from perdure.hosts.size import Size
from perdure.learning.photos import Pictures

__all__ = ["Latents", "cache", "reconstruction"]


@dataclass(frozen=True, kw_only=True)
class Latents:
    """Posterior of each picture's latents: mean and deviation, each (N, C, h, w)."""

    mean: Tensor
    std: Tensor
    shares: Tensor | None = None
    """(N, 1, h, w): how much of each place is the concept; None where it is all over."""
    captions: tuple[str | None, ...] = ()
    """What each picture shows, with `{}` for the concept; empty where none has a caption."""
    weights: tuple[float, ...] = ()
    """How much each picture counts; empty where all count alike."""
    size: Size | None = None
    """Width and height of the pictures; None is the size that is learned at."""

    def __len__(self) -> int:
        return len(self.mean)

    def sample(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """A fresh sample (len(index), C, h, w) of the posteriors of some pictures."""
        mean = self.mean[index]
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        return mean + self.std[index] * noise

    def caption(self, index: int) -> str | None:
        """Of a picture; None where it has none."""
        return self.captions[index] if self.captions else None

    def share(self, index: Tensor) -> Tensor:
        """``shares`` (len(index), 1, h, w) of some pictures."""
        if self.shares is None:
            return self.mean.new_ones(len(index), 1, *self.mean.shape[-2:])
        return self.shares[index]


def cache(base: Base, pictures: Pictures, *, flip: bool = False) -> Latents:
    """Encode pictures once; with ``flip`` also their mirror images."""
    pixels, masks, captions = pictures.tensor, pictures.masks, pictures.captions
    weights = pictures.weights
    if flip:
        pixels, captions = torch.cat([pixels, pixels.flip(-1)]), 2 * captions
        weights = 2 * weights
        masks = None if masks is None else torch.cat([masks, masks.flip(-1)])
    mean, std = base.encode(pixels)
    shares = None
    if masks is not None:
        shares = F.adaptive_avg_pool2d(masks, (mean.shape[-2], mean.shape[-1])).to(mean)
    return Latents(
        mean=mean,
        std=std,
        shares=shares,
        captions=captions if any(captions) else (),
        weights=weights,
        size=pictures.size,
    )


def reconstruction(base: Base, pictures: Pictures, latents: Latents) -> tuple[float, str]:
    """PSNR in dB of the pictures through the autoencoder, and a warning where it is far too low.

    A base says in `perdure.json` what it reaches on its own kind of pictures (`psnr`; without that,
    20 dB is asked for: a usual photographic autoencoder has 25 and more), and which these are and
    what to take for others (`pictures`).
    """
    drawn = base.decode(latents.mean[: len(pictures)]).cpu()
    error = (drawn - pictures.tensor).square().mean(dim=(1, 2, 3)) / 4
    psnr = float((-10 * error.clamp_min(1e-10).log10()).mean())
    own = float(base.hints.get("psnr", 26.0))
    if psnr >= own - 6:
        return psnr, ""
    return psnr, (
        f"The base {base.name!r} cannot even reproduce these pictures ({psnr:.1f} dB through its "
        f"autoencoder, {own:.0f} dB on its own kind of pictures), so it cannot learn them well. "
        + str(base.hints.get("pictures", "Take a base that was trained on pictures of this kind."))
    )
