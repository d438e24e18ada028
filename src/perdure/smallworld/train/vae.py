"""Stage 2: the autoencoder, 64x64x3 to 16x16x8."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from perdure import precision
from perdure.smallworld.train.data import Scenes
from perdure.smallworld.train.loop import Schedule, train
from perdure.smallworld.world import SIZE

__all__ = ["make_vae", "psnr", "train_vae", "tune_decoder"]

BATCH = 16
KL = 2e-4
LATENT_CHANNELS = 8


def make_vae() -> AutoencoderKL:
    """The untrained autoencoder."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=SIZE,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def _centre_weight() -> Tensor:
    """(64, 64), mean 1: the middle, where faces are, counts three times the border."""
    axis = torch.linspace(-1, 1, SIZE)
    bump = torch.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / 0.35)
    weight = 1 + 2 * bump
    return weight / weight.mean()


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, per picture, of pictures in [-1, 1]: (N,)."""
    error = (a.clamp(-1, 1) - b.clamp(-1, 1)).square().mean(dim=(1, 2, 3)) / 4
    return -10 * error.log10()


def train_vae(scenes: Scenes, held_out: Scenes, folder: Path, schedule: Schedule) -> AutoencoderKL:
    """Train and return the autoencoder: weighted L1, L1 of gradients, 2e-4 KL."""
    torch.manual_seed(0)
    model = make_vae()
    _train(model, scenes, held_out, folder, schedule, seed=2)
    return model


def tune_decoder(
    model: AutoencoderKL, scenes: Scenes, held_out: Scenes, folder: Path, schedule: Schedule
) -> None:
    """Train the decoder further while the encoder, and so every latent, stays as it is."""
    model.encoder.requires_grad_(False)
    assert model.quant_conv is not None
    model.quant_conv.requires_grad_(False)
    _train(model, scenes, held_out, folder, schedule, seed=4)


def _train(
    model: AutoencoderKL,
    scenes: Scenes,
    held_out: Scenes,
    folder: Path,
    schedule: Schedule,
    seed: int,
) -> None:
    pictures, weight = torch.from_numpy(scenes.pictures), _centre_weight()

    def loss_of(generator: torch.Generator, step: int) -> tuple[Tensor, Mapping[str, float]]:
        index = torch.randint(len(pictures), (BATCH,), generator=generator)
        x = pictures[index].permute(0, 3, 1, 2).float() / 127.5 - 1
        with precision.autocast(torch.device("cpu")):
            posterior = model.encode(x).latent_dist
            mean, logvar = posterior.mean.float(), posterior.logvar.float()
            noise = torch.randn(mean.shape, generator=generator)
            y = model.decode(mean + (0.5 * logvar).exp() * noise).sample
        y = y.float()
        error = ((y - x).abs() * weight).mean()
        slope = sum(((torch.diff(y, dim=d) - torch.diff(x, dim=d)).abs()).mean() for d in (2, 3))
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return error + slope + KL * kl, {"l1": error.item(), "kl": kl.item()}

    def check() -> dict[str, float]:
        x = torch.from_numpy(held_out.pictures[:256]).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.no_grad(), precision.autocast(torch.device("cpu")):
            y = model.decode(model.encode(x).latent_dist.mode()).sample.float()
        return {"psnr": psnr(x, y).mean().item(), "l2": F.mse_loss(y, x).item()}

    train(model, loss_of, schedule=schedule, folder=folder, seed=seed, check=check)
