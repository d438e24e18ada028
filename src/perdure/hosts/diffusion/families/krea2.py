"""Krea 2: states of twelve depths of a Qwen3-VL are fused, then stand before the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch import Tensor

from perdure.adapters.prompts import STATE
from perdure.hosts.diffusion.conditioning import Conditioning, Encoded, Places
from perdure.hosts.diffusion.families.video_autoencoder import VideoAutoencoder
from perdure.hosts.diffusion.family import KEYS_VALUES
from perdure.hosts.diffusion.objective import Flow, Objective, flow_of, shift_by
from perdure.hosts.diffusion.passes import Rows, unnamed_passes
from perdure.hosts.diffusion.tokens import Tokens
from perdure.hosts.diffusion.vocabulary import Vocabulary, Wording
from perdure.hosts.frozen import Layer, Reads
from perdure.hosts.size import Size

__all__ = ["Krea2"]

_LENGTH = 512
"""Positions of a prompt in the pipeline's call, what closes it among them."""
_MASK = "prompt_embeds_mask"
_TURBO_MU = 1.15
"""What Turbo's times are shifted by, whatever the size of a picture."""


class Krea2(VideoAutoencoder):
    """`Krea2Pipeline` of diffusers: Krea 2 Raw and Turbo.

    States of all depths stand side by side here. The padding is between a prompt and what closes
    it, and masked.
    """

    title = "Krea 2"
    pipelines = ("Krea2Pipeline",)
    time_scale = 1.0
    component = "transformer"
    large_encoders = True
    encoders: ClassVar[Mapping[str, str]] = {"text_encoder": "tokenizer"}
    comfyui = "diffusers"
    targets: ClassVar[Mapping[str, tuple[str, ...]]] = {
        KEYS_VALUES: ("attn.to_k", "attn.to_v"),
        "cross-attention": ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        "all": (),
    }

    def advice(self, pipeline: Any) -> Mapping[str, Mapping[str, Any]]:
        drawing = {"steps": 28, "guidance": 4.5}
        if self.distilled(pipeline):
            drawing = {"steps": 8, "guidance": 0.0}
        return {"learning": {"token": STATE}, "drawing": drawing}

    def distilled(self, pipeline: Any) -> str:
        if not pipeline.config.is_distilled:
            return ""
        return (
            "This Krea 2 was distilled to eight steps (Turbo): learning here teaches the concept "
            "and undoes a little of the distillation; Raw learns better, and what was learned "
            "there is not for this one."
        )

    def vocabularies(self, pipeline: Any) -> list[Vocabulary]:
        """What closes a prompt is put behind its padding, and never cut off."""
        skip = pipeline.prompt_template_encode_start_idx
        wording = Wording(before=pipeline.prompt_template_encode_prefix, skip=skip)
        length = skip + _LENGTH - pipeline.prompt_template_encode_num_suffix_tokens
        return [Vocabulary(pipeline, "text_encoder", "tokenizer", length=length, wording=wording)]

    def layers(self, pipeline: Any, targets: str) -> dict[str, Layer]:
        """Of what fuses the text those that read its positions as a sequence."""
        return {
            name: layer
            for name, layer in super().layers(pipeline, targets).items()
            if targets == "all" or layer.reads != "picture"
        }

    def reads(self, layer: str) -> Reads:
        """What fuses the depths has each position as a row of a batch, and reads no stream."""
        if layer.startswith("transformer_blocks."):
            return "joined"
        return "text" if layer.startswith(("text_fusion.refiner_blocks.", "txt_in.")) else "picture"

    def state_width(self, pipeline: Any) -> int:
        config = pipeline.transformer.config
        return int(config.num_text_layers * config.text_hidden_dim)

    def places(self, tokens: Tokens, ids: Sequence[Tensor]) -> Places:
        """What rests is what closes a prompt, behind the padding."""
        (first,) = tokens.vocabularies
        end = first.length - (first.wording.skip if first.wording else 0)
        return Places(tokens.places(first, ids[0]), (end,) * len(ids[0]))

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Encoded:
        states, mask = pipeline.encode_prompt(
            list(prompts), device=pipeline.device, max_sequence_length=_LENGTH
        )
        return Encoded(states=states.flatten(2), beside={_MASK: mask})

    def blank(self, pipeline: Any) -> Encoded:
        return Encoded(
            states=torch.empty(1, _LENGTH, self.state_width(pipeline)),
            beside={_MASK: torch.ones(1, _LENGTH, dtype=torch.bool)},
        )

    def encode_negative(
        self, pipeline: Any, prompts: Sequence[str], positive: Encoded
    ) -> Encoded | None:
        return self.encode(pipeline, prompts)

    def passes(self, pipeline: Any, prompts: int) -> AbstractContextManager[Rows]:
        return unnamed_passes(pipeline.transformer)

    def objective(self, pipeline: Any, size: Size) -> Objective:
        if pipeline.config.is_distilled and pipeline.scheduler.config.use_dynamic_shifting:
            return Flow(shift=shift_by(pipeline.scheduler, _TURBO_MU), logit_normal=True)
        unit = self.multiple(pipeline)
        return flow_of(pipeline.scheduler, size[0] // unit * (size[1] // unit))

    def size(self, pipeline: Any) -> Size:
        return 1024, 1024

    def multiple(self, pipeline: Any) -> int:
        return int(pipeline.vae_scale_factor * pipeline.patch_size)

    def from_drawn(self, pipeline: Any, drawn: Tensor, size: Size) -> Tensor:
        whole: Tensor = pipeline._unpack_latents(drawn, size[1], size[0])
        return whole.squeeze(2)

    def predict(
        self, pipeline: Any, noised: Tensor, t: Tensor, conditioning: Conditioning, size: Size
    ) -> Tensor:
        states = _by_depth(pipeline, self.held(pipeline, conditioning.states))
        grid = (side // pipeline.patch_size for side in noised.shape[2:])
        said: Tensor = pipeline.transformer(
            hidden_states=pipeline._pack_latents(self.held(pipeline, noised), *noised.shape),
            encoder_hidden_states=states,
            timestep=self.held(pipeline, t / 1000),
            position_ids=pipeline.prepare_position_ids(states.shape[1], *grid, noised.device),
            encoder_attention_mask=conditioning.beside[_MASK],
        ).sample
        return self.from_drawn(pipeline, said, size)

    def draw(
        self, pipeline: Any, positive: Encoded, negative: Encoded | None, **arguments: Any
    ) -> Any:
        said, against = (
            one and Encoded(states=_by_depth(pipeline, one.states), beside=one.beside)
            for one in (positive, negative)
        )
        assert said is not None
        return super().draw(pipeline, said, against, **arguments)


def _by_depth(pipeline: Any, states: Tensor) -> Tensor:
    """(N, P, depths, d) of states whose depths stand side by side."""
    return states.unflatten(-1, (pipeline.transformer.config.num_text_layers, -1))
