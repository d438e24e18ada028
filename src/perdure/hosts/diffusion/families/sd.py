"""Stable Diffusion 1 and 2: one CLIP text encoder, whose last states a U-Net reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from perdure.hosts.diffusion.conditioning import Encoded
from perdure.hosts.diffusion.families.unet import UNet
from perdure.hosts.diffusion.lora_files import Named

__all__ = ["StableDiffusion"]


class StableDiffusion(UNet):
    """`StableDiffusionPipeline` of diffusers."""

    title = "Stable Diffusion 1.x / 2.x"
    pipelines = ("StableDiffusionPipeline",)
    image_to_image = "StableDiffusionImg2ImgPipeline"
    encoders: ClassVar[Mapping[str, str]] = {"text_encoder": "tokenizer"}

    comfyui = "kohya"

    def kohya(self, pipeline: Any, module: str) -> Named | None:
        return Named("lora_unet_" + module.replace(".", "_"))

    def arguments(self, index: Mapping[str, Any]) -> dict[str, Any]:
        return {"safety_checker": None, "requires_safety_checker": False}

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Encoded:
        states, _ = pipeline.encode_prompt(
            list(prompts),
            device=pipeline.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        return Encoded(states=states)

    def encode_negative(
        self, pipeline: Any, prompts: Sequence[str], positive: Encoded
    ) -> Encoded | None:
        return self.encode(pipeline, prompts)
