"""PixArt Sigma: T5's states, projected once, are what cross-attentions read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from torch import Tensor, nn

from perdure.adapters.prompts import STATE
from perdure.hosts.diffusion.conditioning import Conditioning, Encoded
from perdure.hosts.diffusion.family import KEYS_VALUES, Family
from perdure.hosts.diffusion.objective import Objective, of_schedule
from perdure.hosts.diffusion.passes import Rows, all_rows, negatives_first
from perdure.hosts.diffusion.vocabulary import Vocabulary, Wording
from perdure.hosts.frozen import Reads
from perdure.hosts.size import Size

__all__ = ["PixArtSigma"]

_LENGTH = 300
"""Positions of T5 in the pipeline's call."""
_MASK = "prompt_attention_mask"
_AS_ASKED = {"use_resolution_binning": False, "clean_caption": False}
"""At the size that is asked for, not the nearest of the pipeline's list, and by the prompt as it
stands: what cleans captions takes `<rex>` for a tag and drops it."""


class PixArtSigma(Family):
    """`PixArtSigmaPipeline` of diffusers (arXiv 2403.04692)."""

    title = "PixArt Sigma"
    pipelines = ("PixArtSigmaPipeline",)
    component = "transformer"
    large_encoders = True
    encoders: ClassVar[Mapping[str, str]] = {"text_encoder": "tokenizer"}
    targets: ClassVar[Mapping[str, tuple[str, ...]]] = {
        KEYS_VALUES: ("attn2.to_k", "attn2.to_v"),
        "cross-attention": ("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"),
        "all": (),
    }

    def advice(self, pipeline: Any) -> Mapping[str, Mapping[str, Any]]:
        return {"learning": {"token": STATE}, "drawing": {"steps": 20, "guidance": 4.5}}

    def vocabularies(self, pipeline: Any) -> list[Vocabulary]:
        wording = Wording(lower=True)
        return [Vocabulary(pipeline, "text_encoder", "tokenizer", length=_LENGTH, wording=wording)]

    def reads(self, layer: str) -> Reads:
        return "prompt" if layer.endswith(self.targets[KEYS_VALUES]) else "picture"

    def readers(self, pipeline: Any) -> dict[str, nn.Module]:
        modules = self.denoiser(pipeline).named_modules()
        return {name: module for name, module in modules if name.endswith("attn2")}

    def features(self, pipeline: Any, states: Tensor) -> Tensor:
        read: Tensor = pipeline.transformer.caption_projection(self.held(pipeline, states))
        return read

    def state_width(self, pipeline: Any) -> int:
        return int(pipeline.transformer.config.caption_channels)

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Encoded:
        states, mask, _, _ = pipeline.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            device=pipeline.device,
            clean_caption=False,
            max_sequence_length=_LENGTH,
        )
        return Encoded(states=states, beside={_MASK: mask})

    def encoding(self, pipeline: Any) -> Mapping[str, Any]:
        return {"clean_caption": False}

    def encode_negative(
        self, pipeline: Any, prompts: Sequence[str], positive: Encoded
    ) -> Encoded | None:
        return self.encode(pipeline, prompts)

    def passes(self, pipeline: Any, prompts: int) -> AbstractContextManager[Rows]:
        return negatives_first(prompts)

    def objective(self, pipeline: Any, size: Size) -> Objective:
        schedule = pipeline.scheduler
        return of_schedule(schedule.alphas_cumprod, schedule.config.prediction_type)

    def size(self, pipeline: Any) -> Size:
        side = int(pipeline.transformer.config.sample_size * pipeline.vae_scale_factor)
        return side, side

    def multiple(self, pipeline: Any) -> int:
        patch = int(pipeline.vae_scale_factor * pipeline.transformer.config.patch_size)
        return max(8, patch)  # 8 is what the pipeline asks for

    def predict(
        self, pipeline: Any, noised: Tensor, t: Tensor, conditioning: Conditioning, size: Size
    ) -> Tensor:
        with self.reading(pipeline, conditioning.by_layer, all_rows):
            said: Tensor = pipeline.transformer(
                self.held(pipeline, noised),
                encoder_hidden_states=self.held(pipeline, conditioning.states),
                encoder_attention_mask=conditioning.beside.get(_MASK),
                timestep=t,
            ).sample
        return said[:, : noised.shape[1]]  # without what it says of the variance

    def call(self, prompts: int, guidance: float) -> dict[str, Any]:
        return {"guidance_scale": guidance, **_AS_ASKED}

    def draw(
        self, pipeline: Any, positive: Encoded, negative: Encoded | None, **arguments: Any
    ) -> Any:
        given = {"negative_prompt": None, **_AS_ASKED}
        return super().draw(pipeline, positive, negative, **given, **arguments)
