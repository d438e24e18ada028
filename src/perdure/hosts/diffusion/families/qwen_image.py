"""Qwen-Image: joint blocks over the states of a vision-language model; an autoencoder of videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch import Tensor

from perdure.adapters.prompts import STATE
from perdure.hosts.diffusion.conditioning import Conditioning, Encoded
from perdure.hosts.diffusion.families.joint import JointBlocks
from perdure.hosts.diffusion.families.video_autoencoder import VideoAutoencoder
from perdure.hosts.diffusion.lora_files import Named
from perdure.hosts.diffusion.passes import Rows, named_passes
from perdure.hosts.diffusion.vocabulary import Vocabulary, Wording
from perdure.hosts.size import Size

__all__ = ["QwenImage"]

_LENGTH = 512
"""Most states of a prompt in the pipeline's call."""
_SENTENCE = 32
"""States of a sentence."""
_MASK = "prompt_embeds_mask"
_NOTHING = " "
"""What an empty negative prompt is: without one the pipeline does not guide."""


class QwenImage(VideoAutoencoder, JointBlocks):
    """`QwenImagePipeline` of diffusers (arXiv 2508.02324)."""

    title = "Qwen-Image"
    pipelines = ("QwenImagePipeline",)
    time_scale = 1.0
    image_to_image = "QwenImageImg2ImgPipeline"
    encoders: ClassVar[Mapping[str, str]] = {"text_encoder": "tokenizer"}
    embedder, feed_forward = "txt_in", ".txt_mlp."

    comfyui = "diffusers"

    def kohya(self, pipeline: Any, module: str) -> Named | None:
        return Named("lora_unet_" + module.replace(".", "_"))

    def advice(self, pipeline: Any) -> Mapping[str, Mapping[str, Any]]:
        return {"learning": {"token": STATE}, "drawing": {"steps": 50, "guidance": 4.0}}

    def vocabularies(self, pipeline: Any) -> list[Vocabulary]:
        before, _, after = pipeline.prompt_template_encode.partition("{}")
        skip = pipeline.prompt_template_encode_start_idx
        wording = Wording(before=before, after=after, skip=skip, packed=True)
        length = skip + _LENGTH
        return [Vocabulary(pipeline, "text_encoder", "tokenizer", length=length, wording=wording)]

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Encoded:
        states, mask = pipeline.encode_prompt(
            list(prompts), device=pipeline.device, max_sequence_length=_LENGTH
        )
        if mask is None:
            mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
        return Encoded(states=states, beside={_MASK: mask})

    def blank(self, pipeline: Any) -> Encoded:
        return Encoded(states=torch.empty(1, _SENTENCE, self.state_width(pipeline)))

    def encode_negative(
        self, pipeline: Any, prompts: Sequence[str], positive: Encoded
    ) -> Encoded | None:
        return self.encode(pipeline, [prompt or _NOTHING for prompt in prompts])

    def passes(self, pipeline: Any, prompts: int) -> AbstractContextManager[Rows]:
        return named_passes(pipeline.transformer)

    def from_drawn(self, pipeline: Any, drawn: Tensor, size: Size) -> Tensor:
        return self._unpacked(pipeline, drawn, size)

    def _unpacked(self, pipeline: Any, packed: Tensor, size: Size) -> Tensor:
        whole: Tensor = pipeline._unpack_latents(
            packed, size[1], size[0], pipeline.vae_scale_factor
        )
        return whole.squeeze(2)

    def predict(
        self, pipeline: Any, noised: Tensor, t: Tensor, conditioning: Conditioning, size: Size
    ) -> Tensor:
        n, channels, height, width = noised.shape
        mask = conditioning.beside.get(_MASK)
        packed = pipeline._pack_latents(self.held(pipeline, noised), *noised.shape)
        said: Tensor = pipeline.transformer(
            hidden_states=packed,
            timestep=t.to(packed.dtype) / 1000,  # rounded first, as the pipeline does
            encoder_hidden_states_mask=None if mask is None or mask.all() else mask,
            encoder_hidden_states=self.held(pipeline, conditioning.states),
            img_shapes=[[(1, height // 2, width // 2)]] * n,
        ).sample
        return self._unpacked(pipeline, said, size)

    def call(self, prompts: int, guidance: float) -> dict[str, Any]:
        return {"true_cfg_scale": guidance, "negative_prompt": [_NOTHING] * prompts}

    def draw(
        self, pipeline: Any, positive: Encoded, negative: Encoded | None, **arguments: Any
    ) -> Any:
        scale = arguments.pop("guidance_scale")
        return super().draw(pipeline, positive, negative, true_cfg_scale=scale, **arguments)
