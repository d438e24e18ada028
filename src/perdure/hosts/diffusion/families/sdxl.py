"""Stable Diffusion XL: two CLIP encoders side by side, a pooled vector, and the picture's size."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from perdure.hosts.diffusion.conditioning import Conditioning, Encoded
from perdure.hosts.diffusion.families.unet import UNet
from perdure.hosts.diffusion.lora_files import Named
from perdure.hosts.size import Size

__all__ = ["StableDiffusionXL"]

_POOLED = "pooled_prompt_embeds"
_ATTENTION = re.compile(r"(down_blocks|mid_block|up_blocks)(?:\.(\d+))?\.attentions\.(\d+)\.(.+)")


class StableDiffusionXL(UNet):
    """`StableDiffusionXLPipeline` of diffusers (arXiv 2307.01952)."""

    title = "Stable Diffusion XL"
    pipelines = ("StableDiffusionXLPipeline",)
    image_to_image = "StableDiffusionXLImg2ImgPipeline"
    encoders: ClassVar[Mapping[str, str]] = {
        "text_encoder": "tokenizer",
        "text_encoder_2": "tokenizer_2",
    }

    comfyui = "kohya"
    embeddings: ClassVar[Mapping[str, str]] = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}

    def kohya(self, pipeline: Any, module: str) -> Named | None:
        """The attentions by the blocks of the original U-Net, which its trainers train."""
        found = _ATTENTION.fullmatch(module)
        if found is None:
            return None
        kind, block, number, rest = found.groups()
        of_block = pipeline.unet.config.layers_per_block + 1
        place = "middle_block_1"
        if kind != "mid_block":
            before = int(block) * of_block + int(number)
            down = kind == "down_blocks"
            place = f"input_blocks_{1 + before}_1" if down else f"output_blocks_{before}_1"
        return Named(f"lora_unet_{place}_{rest.replace('.', '_')}")

    def arguments(self, index: Mapping[str, Any]) -> dict[str, Any]:
        return {"add_watermarker": False}

    def over_pictures(self, pipeline: Any) -> Any:
        begun = super().over_pictures(pipeline)
        begun.watermark = None  # as `arguments` asks
        return begun

    def to_latents(self, pipeline: Any, pictures: Tensor) -> tuple[Tensor, Tensor]:
        with _widened(pipeline.vae):
            mean, deviation = super().to_latents(pipeline, pictures.to(pipeline.vae.dtype))
        own, spread = _statistics(pipeline.vae, mean)
        return (mean - own * pipeline.vae.config.scaling_factor) / spread, deviation / spread

    def to_pictures(self, pipeline: Any, latents: Tensor) -> Tensor:
        own, spread = _statistics(pipeline.vae, latents)
        latents = latents * spread + own * pipeline.vae.config.scaling_factor
        with _widened(pipeline.vae):
            return super().to_pictures(pipeline, latents.to(pipeline.vae.dtype))

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Encoded:
        states, _, pooled, _ = pipeline.encode_prompt(
            list(prompts),
            device=pipeline.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        return Encoded(states=states, beside={_POOLED: pooled})

    def blank(self, pipeline: Any) -> Encoded:
        width = pipeline.text_encoder_2.config.projection_dim
        pooled = {_POOLED: torch.empty(1, width)}
        return Encoded(states=super().blank(pipeline).states, beside=pooled)

    def encode_negative(
        self, pipeline: Any, prompts: Sequence[str], positive: Encoded
    ) -> Encoded | None:
        if not any(prompts) and pipeline.config.force_zeros_for_empty_prompt:
            pooled = torch.zeros_like(positive.beside[_POOLED])
            return Encoded(states=torch.zeros_like(positive.states), beside={_POOLED: pooled})
        return self.encode(pipeline, prompts)

    def beside(self, pipeline: Any, conditioning: Conditioning, size: Size) -> dict[str, Tensor]:
        """The pooled vectors, and the time ids of a picture that was neither scaled nor cropped."""
        pooled = conditioning.beside[_POOLED]
        width, height = size
        ids = pipeline._get_add_time_ids(
            (height, width),
            (0, 0),
            (height, width),
            dtype=pooled.dtype,
            text_encoder_projection_dim=pipeline.text_encoder_2.config.projection_dim,
        )
        return {"text_embeds": pooled, "time_ids": ids.to(pooled.device).repeat(len(pooled), 1)}


class _widened:
    """A block in which an autoencoder that overflows in fp16 computes in fp32."""

    def __init__(self, vae: Any) -> None:
        narrow = vae.dtype == torch.float16 and vae.config.force_upcast
        self.vae = vae if narrow else None

    def __enter__(self) -> None:
        if self.vae is not None:
            self.vae.float()

    def __exit__(self, *error: object) -> None:
        if self.vae is not None:
            self.vae.half()


def _statistics(vae: Any, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (C, 1, 1) that the autoencoder's configuration names, else 0 and 1."""
    mean, std = (getattr(vae.config, name, None) for name in ("latents_mean", "latents_std"))
    if mean is None or std is None:
        return latents.new_zeros(()), latents.new_ones(())
    own, spread = (latents.new_tensor(values).view(-1, 1, 1) for values in (mean, std))
    return own, spread
