"""Sana: a language model's states, projected once, are what cross-attentions read."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from perdure.adapters.prompts import STATE
from perdure.hosts.diffusion.conditioning import Conditioning, Encoded
from perdure.hosts.diffusion.family import KEYS_VALUES, Family
from perdure.hosts.diffusion.objective import Objective, flow_of
from perdure.hosts.diffusion.passes import Rows, negatives_first
from perdure.hosts.diffusion.vocabulary import Vocabulary, Wording
from perdure.hosts.frozen import Reads
from perdure.hosts.size import Size

__all__ = ["Sana"]

_LENGTH = 300
"""States of a prompt in the pipeline's call."""
_MASK = "prompt_attention_mask"


class Sana(Family):
    """`SanaPipeline` of diffusers (arXiv 2410.10629), Sana and Sana 1.5."""

    title = "Sana"
    pipelines = ("SanaPipeline",)
    component = "transformer"
    large_encoders = True
    encoders: ClassVar[Mapping[str, str]] = {"text_encoder": "tokenizer"}
    negatives_alone = True
    targets: ClassVar[Mapping[str, tuple[str, ...]]] = {
        KEYS_VALUES: ("attn2.to_k", "attn2.to_v"),
        "cross-attention": ("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"),
        "all": (),
    }

    def advice(self, pipeline: Any) -> Mapping[str, Mapping[str, Any]]:
        return {"learning": {"token": STATE}, "drawing": {"steps": 20, "guidance": 4.5}}

    def vocabularies(self, pipeline: Any) -> list[Vocabulary]:
        """The prompt follows an instruction; of all states the first and the last 299 are taken."""
        pipeline.tokenizer.padding_side = "right"  # as the pipeline sets it in every call
        asked = "\n".join(_instruction(pipeline))
        tokens = len(pipeline.tokenizer.encode(asked))
        length = tokens + _LENGTH - 2
        wording = Wording(before=asked, lower=True, skip=length - _LENGTH)
        return [Vocabulary(pipeline, "text_encoder", "tokenizer", length=length, wording=wording)]

    def reads(self, layer: str) -> Reads:
        return "prompt" if layer.endswith(self.targets[KEYS_VALUES]) else "picture"

    def readers(self, pipeline: Any) -> dict[str, nn.Module]:
        modules = self.denoiser(pipeline).named_modules()
        return {name: module for name, module in modules if name.endswith("attn2")}

    def features(self, pipeline: Any, states: Tensor) -> Tensor:
        transformer = pipeline.transformer
        read: Tensor = transformer.caption_norm(
            transformer.caption_projection(self.held(pipeline, states))
        )
        return read

    def state_width(self, pipeline: Any) -> int:
        return int(pipeline.transformer.config.caption_channels)

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Encoded:
        return self._encode(pipeline, prompts, _instruction(pipeline))

    def blank(self, pipeline: Any) -> Encoded:
        return Encoded(states=torch.empty(1, _LENGTH, self.state_width(pipeline)))

    def encoding(self, pipeline: Any) -> Mapping[str, Any]:
        return {"clean_caption": False, "complex_human_instruction": _instruction(pipeline)}

    def encode_negative(
        self, pipeline: Any, prompts: Sequence[str], positive: Encoded
    ) -> Encoded | None:
        self.refuse_concepts(prompts)
        return self._encode(pipeline, prompts, [])

    def _encode(self, pipeline: Any, prompts: Sequence[str], asked: Sequence[str]) -> Encoded:
        states, mask, _, _ = pipeline.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            device=pipeline.device,
            max_sequence_length=_LENGTH,
            complex_human_instruction=list(asked),
        )
        return Encoded(states=states, beside={_MASK: mask})

    def passes(self, pipeline: Any, prompts: int) -> AbstractContextManager[Rows]:
        return negatives_first(prompts)

    def objective(self, pipeline: Any, size: Size) -> Objective:
        return flow_of(pipeline.scheduler)

    def size(self, pipeline: Any) -> Size:
        side = int(pipeline.transformer.config.sample_size * pipeline.vae_scale_factor)
        return side, side

    def multiple(self, pipeline: Any) -> int:
        return 32  # what the pipeline asks for

    def to_latents(self, pipeline: Any, pictures: Tensor) -> tuple[Tensor, Tensor]:
        mean = pipeline.vae.encode(pictures).latent * pipeline.vae.config.scaling_factor
        return mean, torch.zeros_like(mean)

    def predict(
        self, pipeline: Any, noised: Tensor, t: Tensor, conditioning: Conditioning, size: Size
    ) -> Tensor:
        with self.reading(pipeline, conditioning.by_layer, lambda rows: slice(0, rows)):
            said: Tensor = pipeline.transformer(
                self.held(pipeline, noised),
                encoder_hidden_states=self.held(pipeline, conditioning.states),
                encoder_attention_mask=conditioning.beside.get(_MASK),
                timestep=t * pipeline.transformer.config.timestep_scale,
            ).sample
        return said

    def call(self, prompts: int, guidance: float) -> dict[str, Any]:
        return {"guidance_scale": guidance, "use_resolution_binning": False}

    def draw(
        self, pipeline: Any, positive: Encoded, negative: Encoded | None, **arguments: Any
    ) -> Any:
        """At the size that is asked for, not the nearest of the pipeline's list."""
        given = {"negative_prompt": None, "use_resolution_binning": False}
        return super().draw(pipeline, positive, negative, **given, **arguments)


def _instruction(pipeline: Any) -> list[str]:
    """What the pipeline's call puts before a prompt."""
    call = inspect.signature(type(pipeline).__call__)
    return list(call.parameters["complex_human_instruction"].default)
