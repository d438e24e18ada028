"""FLUX.2 klein: states of three depths of a Qwen3; single blocks whose projections are fused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from torch import Tensor, nn

from perdure.adapters.prompts import STATE
from perdure.hosts.diffusion.conditioning import Conditioning, Encoded
from perdure.hosts.diffusion.families.joint import JointBlocks
from perdure.hosts.diffusion.families.kohya_names import flux_2_name
from perdure.hosts.diffusion.family import own_modules
from perdure.hosts.diffusion.lora_files import Named
from perdure.hosts.diffusion.objective import Flow, Objective, shift_by
from perdure.hosts.diffusion.passes import Rows, named_passes
from perdure.hosts.diffusion.vocabulary import Vocabulary, Wording
from perdure.hosts.frozen import Layer
from perdure.hosts.size import Size

__all__ = ["LENGTH", "Flux2"]

LENGTH = 512
"""Positions of a prompt in the pipeline's call."""
_STEPS = 50
"""Of the schedule whose shift the times of training have."""
_GUIDANCE = 1.0
"""What a model with a guidance embedding is trained at: no pull beyond the prompt itself."""
_FUSED, _PARTS = "attn.to_qkv_mlp_proj", ("to_q", "to_k", "to_v")


class Flux2(JointBlocks):
    """`Flux2KleinPipeline` of diffusers: FLUX.2 klein 4B and 9B, and their base models.

    A single block holds queries, keys, values and the way into its feed-forward part in one linear
    layer; the parts are target layers of their own, `<layer>.to_k` and its like.
    """

    title = "FLUX.2 klein"
    pipelines = ("Flux2KleinPipeline",)
    time_scale = 1.0
    encoders: ClassVar[Mapping[str, str]] = {"text_encoder": "tokenizer"}

    comfyui = "diffusers"

    def kohya(self, pipeline: Any, module: str) -> Named | None:
        return flux_2_name(pipeline.transformer, module)

    def advice(self, pipeline: Any) -> Mapping[str, Mapping[str, Any]]:
        drawing = {"steps": 50, "guidance": 4.0}
        if self.distilled(pipeline):
            drawing = {"steps": 4, "guidance": 1.0}
        return {"learning": {"token": STATE}, "drawing": drawing}

    def distilled(self, pipeline: Any) -> str:
        if not pipeline.config.is_distilled:
            return ""
        return (
            "This FLUX.2 klein was distilled to four steps: learning here teaches the concept and "
            "undoes a little of the distillation; its base model learns better, and what was "
            "learned there is not for this one."
        )

    def vocabularies(self, pipeline: Any) -> list[Vocabulary]:
        wording = Wording.of_chat(pipeline.tokenizer, enable_thinking=False)
        return [Vocabulary(pipeline, "text_encoder", "tokenizer", length=LENGTH, wording=wording)]

    def layers(self, pipeline: Any, targets: str) -> dict[str, Layer]:
        found, width = dict[str, Layer](), pipeline.transformer.inner_dim
        parts = [part for part in _PARTS if "attn." + part in self.targets[targets]]
        own = super().layers(pipeline, targets)
        for name, module in own_modules(self.denoiser(pipeline)):
            if name in own:
                found[name] = own[name]
            elif name.endswith(_FUSED) and isinstance(module, nn.Linear):
                for part in parts:
                    start = _PARTS.index(part) * width
                    rows = slice(start, start + width)
                    found[f"{name}.{part}"] = Layer(module, "joined", rows)
        return found

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Encoded:
        states, _ = pipeline.encode_prompt(
            list(prompts), device=pipeline.device, max_sequence_length=LENGTH
        )
        return Encoded(states=states)

    def guides(self, pipeline: Any) -> bool:
        return not self.distilled(pipeline)

    def encode_negative(
        self, pipeline: Any, prompts: Sequence[str], positive: Encoded
    ) -> Encoded | None:
        return self.encode(pipeline, prompts)

    def passes(self, pipeline: Any, prompts: int) -> AbstractContextManager[Rows]:
        return named_passes(pipeline.transformer)

    def objective(self, pipeline: Any, size: Size) -> Objective:
        """At times shifted as the pipeline shifts those of a picture of the size."""
        mu = compute_empirical_mu(self.patches(pipeline, size), _STEPS)
        return Flow(shift=shift_by(pipeline.scheduler, mu), logit_normal=True)

    def to_latents(self, pipeline: Any, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Patches of two by two, by the mean and deviation of the autoencoder's batch norm."""
        posterior = pipeline.vae.encode(pictures).latent_dist
        own, spread = _statistics(pipeline.vae)
        mean, std = (pipeline._patchify_latents(z) for z in (posterior.mean, posterior.std))
        return (mean - own) / spread, std / spread

    def to_pictures(self, pipeline: Any, latents: Tensor) -> Tensor:
        own, spread = _statistics(pipeline.vae)
        whole = pipeline._unpatchify_latents(latents * spread + own)
        pictures: Tensor = pipeline.vae.decode(whole).sample
        return pictures

    def from_drawn(self, pipeline: Any, drawn: Tensor, size: Size) -> Tensor:
        own, spread = _statistics(pipeline.vae)
        patches: Tensor = pipeline._patchify_latents(drawn)
        return (patches - own) / spread

    def predict(
        self, pipeline: Any, noised: Tensor, t: Tensor, conditioning: Conditioning, size: Size
    ) -> Tensor:
        states = self.held(pipeline, conditioning.states)
        guided = pipeline.transformer.config.guidance_embeds
        of_guidance = torch.full([len(noised)], _GUIDANCE, device=noised.device)
        packed = pipeline._pack_latents(self.held(pipeline, noised))
        said: Tensor = pipeline.transformer(
            hidden_states=packed,
            timestep=t.to(packed.dtype) / 1000,  # rounded first, as the pipeline does
            guidance=of_guidance if guided else None,
            encoder_hidden_states=states,
            txt_ids=pipeline._prepare_text_ids(states).to(noised.device),
            img_ids=pipeline._prepare_latent_ids(noised).to(noised.device),
        ).sample
        return said.transpose(1, 2).reshape(noised.shape)


def _statistics(vae: Any) -> tuple[Tensor, Tensor]:
    """Mean and deviation (4 C, 1, 1) of patches of latents."""
    own = vae.bn.running_mean.view(-1, 1, 1)
    spread = torch.sqrt(vae.bn.running_var.view(-1, 1, 1) + vae.config.batch_norm_eps)
    return own, spread
