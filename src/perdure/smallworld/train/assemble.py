"""The last stage: put the trained parts into folders that the stock libraries load."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPTextModel

from perdure.quiet import StableDiffusionPipeline
from perdure.smallworld.train.clip import MEAN, STD, IdentityClip
from perdure.smallworld.train.data import Scenes
from perdure.smallworld.train.unet import make_scheduler
from perdure.smallworld.train.vocabulary import make_tokenizer
from perdure.smallworld.world import SIZE

__all__ = ["assemble", "make_text_encoder", "normalise_latents", "write_encoder"]


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, scenes: Scenes, count: int = 4000) -> None:
    """Fold each latent channel's mean and deviation into `quant_conv` and `post_quant_conv`.

    Afterwards latents have mean 0 and deviation 1 a channel (the stock pipeline knows one scale for
    all channels), and reconstructions are what they were.
    """
    assert vae.quant_conv is not None and vae.post_quant_conv is not None
    x = torch.from_numpy(scenes.pictures[:count]).permute(0, 3, 1, 2)
    means = [vae.encode(part.float() / 127.5 - 1).latent_dist.mean for part in x.split(100)]
    z = torch.cat(means).double()
    mean = z.mean(dim=(0, 2, 3)).float()
    std = z.std(dim=(0, 2, 3)).float()
    channels = len(mean)
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.weight[:channels] /= std[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / std
    quant.bias[channels:] -= 2 * std.log()  # the second half is the log of the variance
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= std[None, :, None, None]


def assemble(
    clip: IdentityClip, vae: AutoencoderKL, unet: UNet2DConditionModel, folder: Path
) -> None:
    """Write ``folder``/base (a Stable Diffusion pipeline) and ``folder``/encoder (CLIP) in fp16."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=make_text_encoder(clip),
        tokenizer=make_tokenizer(),
        unet=unet,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16)
    pipeline.save_pretrained(folder / "base", safe_serialization=True)
    _open_in_fp32(folder / "base" / "text_encoder" / "config.json")
    write_encoder(clip, folder / "encoder")


def write_encoder(clip: IdentityClip, folder: Path) -> None:
    """Write the metric encoder: CLIP in fp16, its tokenizer and processor, the identity head."""
    clip.clip.half().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
    ).save_pretrained(folder)
    head: Tensor = clip.identity.weight.detach().half().contiguous()
    save_file({"weight": head}, folder / "identity_head.safetensors")
    _open_in_fp32(folder / "config.json")


def _open_in_fp32(config: Path) -> None:
    """transformers opens weights as the configuration says, diffusers in fp32: let them agree."""
    config.write_text(config.read_text().replace('"dtype": "float16"', '"dtype": "float32"'))


def make_text_encoder(clip: IdentityClip) -> CLIPTextModel:
    """CLIP's text tower as the pipeline's text encoder."""
    encoder = CLIPTextModel(clip.clip.config.text_config)
    encoder.load_state_dict(clip.clip.text_model.state_dict())
    encoder.eval()
    return encoder
