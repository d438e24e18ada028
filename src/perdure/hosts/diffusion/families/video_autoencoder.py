"""What families have in common whose autoencoder is Qwen-Image's, one of videos."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from perdure.hosts.diffusion.family import Family

__all__ = ["VideoAutoencoder"]


class VideoAutoencoder(Family):
    """A picture is a video of one frame; latents by mean and deviation of the configuration."""

    def to_latents(self, pipeline: Any, pictures: Tensor) -> tuple[Tensor, Tensor]:
        posterior = pipeline.vae.encode(pictures.unsqueeze(2)).latent_dist
        own, spread = _statistics(pipeline.vae, pictures)
        return (posterior.mean.squeeze(2) - own) / spread, posterior.std.squeeze(2) / spread

    def to_pictures(self, pipeline: Any, latents: Tensor) -> Tensor:
        own, spread = _statistics(pipeline.vae, latents)
        frames: Tensor = pipeline.vae.decode((latents * spread + own).unsqueeze(2)).sample
        return frames[:, :, 0]


def _statistics(vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (C, 1, 1) of latents, by the autoencoder's configuration."""
    own, spread = (
        like.new_tensor(values).view(-1, 1, 1)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return own, spread
