"""Stages that start from the shipped weights, train one part further and write it back in place.

`vision` leaves the text tower and the base alone, `shape` writes a second encoder beside the first,
`decoder` leaves every latent as it is, and `further` trains the U-Net; so none of them makes
another part stale.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file
from transformers import CLIPModel

from perdure.quiet import StableDiffusionPipeline
from perdure.smallworld.train.assemble import write_encoder
from perdure.smallworld.train.clip import IdentityClip
from perdure.smallworld.train.data import Scenes
from perdure.smallworld.train.loop import Schedule, leads
from perdure.smallworld.train.unet import train_unet
from perdure.smallworld.train.vae import tune_decoder
from perdure.smallworld.train.vision import train_vision

__all__ = ["improve_decoder", "improve_unet", "improve_vision"]


def _pipeline(weights: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(
        weights / "base", dtype=torch.float32, use_safetensors=True
    )


def improve_vision(folder: Path, schedule: Schedule, weights: Path) -> None:
    """The metric encoder's image tower and identity head."""
    model = IdentityClip()
    shipped = CLIPModel.from_pretrained(
        weights / "encoder", dtype=torch.float32, use_safetensors=True
    )
    model.clip.load_state_dict(shipped.state_dict())
    head = load_file(weights / "encoder" / "identity_head.safetensors")["weight"]
    model.identity.weight.data.copy_(head)
    train_vision(model, folder, schedule)
    if leads():
        write_encoder(model, weights / "encoder")


def improve_decoder(
    scenes: Scenes, held_out: Scenes, folder: Path, schedule: Schedule, weights: Path
) -> None:
    """The autoencoder's way back from latents to pictures."""
    vae = _pipeline(weights).vae
    tune_decoder(vae, scenes, held_out, folder, schedule)
    if leads():
        vae.half().save_pretrained(weights / "base" / "vae")


def improve_unet(
    scenes: Scenes, folder: Path, schedule: Schedule, weights: Path, seed: int
) -> None:
    """The U-Net, on the shipped autoencoder and text encoder."""
    pipeline = _pipeline(weights)
    pipeline.unet.set_attn_processor(AttnProcessor())
    parts = pipeline.vae, pipeline.text_encoder
    unet = train_unet(*parts, scenes, folder, schedule, start=pipeline.unet, seed=seed)
    if leads():
        unet.half().save_pretrained(weights / "base" / "unet")
