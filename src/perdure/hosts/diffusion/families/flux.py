"""FLUX.1: double-stream blocks, then single ones that read text and picture in one sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch import Tensor

from perdure.adapters.prompts import STATE
from perdure.hosts.diffusion.conditioning import Conditioning, Encoded, Places
from perdure.hosts.diffusion.families.joint import JointBlocks
from perdure.hosts.diffusion.families.kohya_names import flux_1_name
from perdure.hosts.diffusion.lora_files import Named
from perdure.hosts.diffusion.passes import Rows, positives_first
from perdure.hosts.diffusion.tokens import Tokens
from perdure.hosts.diffusion.vocabulary import Vocabulary
from perdure.hosts.size import Size

__all__ = ["Flux"]

_LENGTH = 512
"""Positions of T5 in the pipeline's call."""
_POOLED = "pooled_prompt_embeds"
_GUIDANCE = 1.0
"""What a model with a guidance embedding is trained at: no pull beyond the prompt itself."""


class Flux(JointBlocks):
    """`FluxPipeline` of diffusers: FLUX.1 dev (and Krea dev) and schnell.

    The states are T5's; of CLIP the denoiser is given the pooled vector alone.
    """

    title = "FLUX.1"
    pipelines = ("FluxPipeline",)
    time_scale = 1.0
    image_to_image = "FluxImg2ImgPipeline"
    encoders: ClassVar[Mapping[str, str]] = {
        "text_encoder": "tokenizer",
        "text_encoder_2": "tokenizer_2",
    }

    comfyui = "diffusers"
    embeddings: ClassVar[Mapping[str, str]] = {"text_encoder": "clip_l", "text_encoder_2": "t5xxl"}

    def kohya(self, pipeline: Any, module: str) -> Named | None:
        return flux_1_name(pipeline.transformer, module)

    def advice(self, pipeline: Any) -> Mapping[str, Mapping[str, Any]]:
        drawing = {"steps": 28, "guidance": 3.5}
        if self.distilled(pipeline):
            drawing = {"steps": 4, "guidance": 0.0}
        return {"learning": {"token": STATE}, "drawing": drawing}

    def distilled(self, pipeline: Any) -> str:
        if pipeline.transformer.config.guidance_embeds:
            return ""
        return (
            "This is a FLUX.1 that was distilled to four steps (schnell): learning here teaches "
            "the concept and undoes a little of the distillation, so keep the steps few."
        )

    def vocabularies(self, pipeline: Any) -> list[Vocabulary]:
        return [
            Vocabulary(pipeline, "text_encoder", "tokenizer", length=pipeline.tokenizer_max_length),
            Vocabulary(pipeline, "text_encoder_2", "tokenizer_2", length=_LENGTH),
        ]

    def places(self, tokens: Tokens, ids: Sequence[Tensor]) -> Places:
        t5 = tokens.vocabularies[1]
        return Places(tokens.places(t5, ids[1]), t5.ends(ids[1]))

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Encoded:
        states, pooled, _ = pipeline.encode_prompt(
            list(prompts), device=pipeline.device, max_sequence_length=_LENGTH
        )
        return Encoded(states=states, beside={_POOLED: pooled})

    def blank(self, pipeline: Any) -> Encoded:
        config = pipeline.transformer.config
        return Encoded(
            states=torch.empty(1, _LENGTH, config.joint_attention_dim),
            beside={_POOLED: torch.empty(1, config.pooled_projection_dim)},
        )

    def guides(self, pipeline: Any) -> bool:
        return False

    def encode_negative(
        self, pipeline: Any, prompts: Sequence[str], positive: Encoded
    ) -> Encoded | None:
        return None

    def passes(self, pipeline: Any, prompts: int) -> AbstractContextManager[Rows]:
        return positives_first(prompts)

    def from_drawn(self, pipeline: Any, drawn: Tensor, size: Size) -> Tensor:
        return self._unpacked(pipeline, drawn, size)

    def _unpacked(self, pipeline: Any, packed: Tensor, size: Size) -> Tensor:
        whole: Tensor = pipeline._unpack_latents(
            packed, size[1], size[0], pipeline.vae_scale_factor
        )
        return whole

    def predict(
        self, pipeline: Any, noised: Tensor, t: Tensor, conditioning: Conditioning, size: Size
    ) -> Tensor:
        n, channels, height, width = noised.shape
        states = self.held(pipeline, conditioning.states)
        packed = pipeline._pack_latents(self.held(pipeline, noised), *noised.shape)
        place = {"device": noised.device, "dtype": packed.dtype}
        guided = pipeline.transformer.config.guidance_embeds
        said: Tensor = pipeline.transformer(
            hidden_states=packed,
            timestep=t.to(packed.dtype) / 1000,  # rounded first, as the pipeline does
            guidance=torch.full([n], _GUIDANCE, device=noised.device) if guided else None,
            pooled_projections=self.held(pipeline, conditioning.beside[_POOLED]),
            encoder_hidden_states=states,
            txt_ids=torch.zeros(states.shape[1], 3, **place),
            img_ids=pipeline._prepare_latent_image_ids(n, height // 2, width // 2, **place),
        ).sample
        return self._unpacked(pipeline, said, size)
