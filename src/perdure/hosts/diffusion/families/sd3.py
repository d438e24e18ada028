"""Stable Diffusion 3 and 3.5: two CLIP encoders and T5; the text is a stream that blocks change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch import Tensor

from perdure.adapters.prompts import STATE
from perdure.hosts.diffusion.conditioning import Conditioning, Encoded, Places
from perdure.hosts.diffusion.families.joint import JointBlocks
from perdure.hosts.diffusion.passes import Rows, negatives_first
from perdure.hosts.diffusion.tokens import Tokens
from perdure.hosts.diffusion.vocabulary import Vocabulary
from perdure.hosts.size import Size

__all__ = ["StableDiffusion3"]

_T5_LENGTH = 256
"""Positions of T5 in the pipeline's call, also where T5 is missing and they are zeros."""

_POOLED = "pooled_prompt_embeds"


class StableDiffusion3(JointBlocks):
    """`StableDiffusion3Pipeline` of diffusers (arXiv 2403.03206).

    The states are those of both CLIPs side by side, and after them T5's: a concept is spoken of at
    one position of each.
    """

    title = "Stable Diffusion 3 / 3.5"
    pipelines = ("StableDiffusion3Pipeline",)
    image_to_image = "StableDiffusion3Img2ImgPipeline"
    encoders: ClassVar[Mapping[str, str]] = {
        "text_encoder": "tokenizer",
        "text_encoder_2": "tokenizer_2",
        "text_encoder_3": "tokenizer_3",
    }
    optional = frozenset({"text_encoder_3"})
    comfyui = "diffusers"
    embeddings: ClassVar[Mapping[str, str]] = {
        "text_encoder": "clip_l",
        "text_encoder_2": "clip_g",
        "text_encoder_3": "t5xxl",
    }

    def vocabularies(self, pipeline: Any) -> list[Vocabulary]:
        clips = [
            Vocabulary(pipeline, name, self.encoders[name], length=pipeline.tokenizer_max_length)
            for name in ("text_encoder", "text_encoder_2")
        ]
        if pipeline.tokenizer_3 is None:
            return clips
        return [*clips, Vocabulary(pipeline, "text_encoder_3", "tokenizer_3", length=_T5_LENGTH)]

    def advice(self, pipeline: Any) -> Mapping[str, Mapping[str, Any]]:
        return {"learning": {"token": STATE}, "drawing": {"steps": 28, "guidance": 7.0}}

    def places(self, tokens: Tokens, ids: Sequence[Tensor]) -> Places:
        first = super().places(tokens, ids)
        if len(ids) < 3:
            return first  # zeros are what is left of T5: padding
        length, t5 = ids[0].shape[1], tokens.vocabularies[2]
        spoken = tuple(
            (*of, *((name, length + place) for name, place in also))
            for of, also in zip(first.spoken, tokens.places(t5, ids[2]), strict=True)
        )
        rests = tuple(
            (slice(end, length), slice(length + also, None))
            for end, also in zip(first.ends, t5.ends(ids[2]), strict=True)
        )
        return Places(spoken, first.ends, rests)

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Encoded:
        states, _, pooled, _ = pipeline.encode_prompt(
            list(prompts),
            None,
            None,
            device=pipeline.device,
            do_classifier_free_guidance=False,
            max_sequence_length=_T5_LENGTH,
        )
        return Encoded(states=states, beside={_POOLED: pooled})

    def blank(self, pipeline: Any) -> Encoded:
        config, length = pipeline.transformer.config, pipeline.tokenizer_max_length + _T5_LENGTH
        return Encoded(
            states=torch.empty(1, length, config.joint_attention_dim),
            beside={_POOLED: torch.empty(1, config.pooled_projection_dim)},
        )

    def encode_negative(
        self, pipeline: Any, prompts: Sequence[str], positive: Encoded
    ) -> Encoded | None:
        return self.encode(pipeline, prompts)

    def passes(self, pipeline: Any, prompts: int) -> AbstractContextManager[Rows]:
        return negatives_first(prompts)

    def text(self, pipeline: Any, positions: int, size: Size) -> slice:
        start = self.patches(pipeline, size)  # the text stands behind the picture
        return slice(start, start + positions)

    def predict(
        self, pipeline: Any, noised: Tensor, t: Tensor, conditioning: Conditioning, size: Size
    ) -> Tensor:
        said: Tensor = pipeline.transformer(
            hidden_states=self.held(pipeline, noised),
            timestep=t,
            encoder_hidden_states=self.held(pipeline, conditioning.states),
            pooled_projections=self.held(pipeline, conditioning.beside[_POOLED]),
        ).sample
        return said
