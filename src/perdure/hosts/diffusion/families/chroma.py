"""Chroma: FLUX.1's blocks over the states of T5 alone, with a negative prompt."""

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
from perdure.hosts.diffusion.passes import Rows, unnamed_passes
from perdure.hosts.diffusion.tokens import Tokens
from perdure.hosts.diffusion.vocabulary import Vocabulary
from perdure.hosts.size import Size

__all__ = ["Chroma"]

_LENGTH = 512
"""Positions of a prompt in the pipeline's call."""
_MASK = "prompt_attention_mask"


class Chroma(JointBlocks):
    """`ChromaPipeline` of diffusers: Chroma1 HD, Base and Flash.

    Its mask is ones and zeros that are added to attention, as the pipeline has it: padding weighs
    less than text, and is not left out.
    """

    title = "Chroma"
    pipelines = ("ChromaPipeline",)
    time_scale = 1.0
    image_to_image = "ChromaImg2ImgPipeline"
    encoders: ClassVar[Mapping[str, str]] = {"text_encoder": "tokenizer"}

    comfyui = "diffusers"

    def kohya(self, pipeline: Any, module: str) -> Named | None:
        return flux_1_name(pipeline.transformer, module)

    def advice(self, pipeline: Any) -> Mapping[str, Mapping[str, Any]]:
        return {"learning": {"token": STATE}, "drawing": {"steps": 35, "guidance": 5.0}}

    def vocabularies(self, pipeline: Any) -> list[Vocabulary]:
        return [Vocabulary(pipeline, "text_encoder", "tokenizer", length=_LENGTH)]

    def places(self, tokens: Tokens, ids: Sequence[Tensor]) -> Places:
        """What rests is the end token and, of the padding, the one position that is not masked."""
        first = super().places(tokens, ids)
        return Places(first.spoken, first.ends, tuple((slice(end, end + 2),) for end in first.ends))

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Encoded:
        states, _, mask, *_ = pipeline.encode_prompt(
            list(prompts),
            device=pipeline.device,
            do_classifier_free_guidance=False,
            max_sequence_length=_LENGTH,
        )
        return Encoded(states=states, beside={_MASK: mask})

    def blank(self, pipeline: Any) -> Encoded:
        return Encoded(
            states=super().blank(pipeline).states, beside={_MASK: torch.empty(1, _LENGTH)}
        )

    def encode_negative(
        self, pipeline: Any, prompts: Sequence[str], positive: Encoded
    ) -> Encoded | None:
        return self.encode(pipeline, prompts)

    def passes(self, pipeline: Any, prompts: int) -> AbstractContextManager[Rows]:
        return unnamed_passes(pipeline.transformer)

    def from_drawn(self, pipeline: Any, drawn: Tensor, size: Size) -> Tensor:
        whole: Tensor = pipeline._unpack_latents(drawn, size[1], size[0], pipeline.vae_scale_factor)
        return whole

    def predict(
        self, pipeline: Any, noised: Tensor, t: Tensor, conditioning: Conditioning, size: Size
    ) -> Tensor:
        n, channels, height, width = noised.shape
        states = self.held(pipeline, conditioning.states)
        packed = pipeline._pack_latents(self.held(pipeline, noised), *noised.shape)
        place = {"device": noised.device, "dtype": packed.dtype}
        said: Tensor = pipeline.transformer(
            hidden_states=packed,
            timestep=t.to(packed.dtype) / 1000,  # rounded first, as the pipeline does
            encoder_hidden_states=states,
            txt_ids=torch.zeros(states.shape[1], 3, **place),
            img_ids=pipeline._prepare_latent_image_ids(n, height // 2, width // 2, **place),
            attention_mask=pipeline._prepare_attention_mask(
                n, packed.shape[1], packed.dtype, self.held(pipeline, conditioning.beside[_MASK])
            ),
        ).sample
        return self.from_drawn(pipeline, said, size)
