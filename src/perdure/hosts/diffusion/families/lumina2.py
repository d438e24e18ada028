"""Lumina-Image 2.0: one sequence, in which a picture follows its own prompt's last position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from perdure.adapters.prompts import STATE
from perdure.errors import PerdureError
from perdure.hosts.diffusion.conditioning import Conditioning, Encoded, Places
from perdure.hosts.diffusion.family import KEYS_VALUES, Family
from perdure.hosts.diffusion.objective import Objective, flow_of
from perdure.hosts.diffusion.passes import Rows, unnamed_passes
from perdure.hosts.diffusion.tokens import Tokens
from perdure.hosts.diffusion.vocabulary import Vocabulary, Wording
from perdure.hosts.frozen import Layer, Reads
from perdure.hosts.size import Size

__all__ = ["Lumina2"]

_LENGTH = 256
"""Positions of a prompt in the pipeline's call, the system prompt's among them."""
_START = " <Prompt Start> "
"""What the pipeline puts between the system prompt and the prompt."""
_MASK = "prompt_attention_mask"
_PLACES = 300
"""Of words, in the published model's table of positions."""


class Lumina2(Family):
    """`Lumina2Pipeline` of diffusers (arXiv 2503.21758).

    States end here with the longest prompt of a batch: in the sequence that layers read, a prompt's
    picture follows its own last position, and nothing of the padding is there.
    """

    title = "Lumina-Image 2.0"
    pipelines = ("Lumina2Pipeline",)
    time_scale = 0.0
    component = "transformer"
    large_encoders = True
    encoders: ClassVar[Mapping[str, str]] = {"text_encoder": "tokenizer"}
    negatives_alone = True
    targets: ClassVar[Mapping[str, tuple[str, ...]]] = {
        KEYS_VALUES: ("attn.to_k", "attn.to_v"),
        "cross-attention": ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        "all": (),
    }

    def advice(self, pipeline: Any) -> Mapping[str, Mapping[str, Any]]:
        return {"learning": {"token": STATE}, "drawing": {"steps": 30, "guidance": 4.0}}

    def vocabularies(self, pipeline: Any) -> list[Vocabulary]:
        wording = Wording(before=pipeline.system_prompt + _START, packed=True)
        return [Vocabulary(pipeline, "text_encoder", "tokenizer", length=_LENGTH, wording=wording)]

    def layers(self, pipeline: Any, targets: str) -> dict[str, Layer]:
        """Of the refiners those of the text; the picture's see no prompt."""
        return {
            name: layer
            for name, layer in super().layers(pipeline, targets).items()
            if targets == "all" or layer.reads != "picture"
        }

    def reads(self, layer: str) -> Reads:
        """What embeds the states reads them behind a norm, not as they are."""
        if layer.startswith(("context_refiner.", "time_caption_embed.caption_embedder.")):
            return "text"
        joined = layer.startswith("layers.") and ".norm1." not in layer
        return "joined" if joined else "picture"

    def state_width(self, pipeline: Any) -> int:
        return int(pipeline.transformer.config.cap_feat_dim)

    def places(self, tokens: Tokens, ids: Sequence[Tensor]) -> Places:
        """Nothing rests: nothing closes a prompt, and behind it its picture begins."""
        first = super().places(tokens, ids)
        return Places(first.spoken, first.ends, ((),) * len(first.ends))

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Encoded:
        states, mask, _, _ = pipeline.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            device=pipeline.device,
            max_sequence_length=_LENGTH,
        )
        return _cut(states, mask)

    def behind(self, parts: Sequence[Encoded]) -> Encoded:
        """Without what pads the first ones, since the picture begins where a text ends."""
        whole = super().behind([_cut(part.states, part.beside[_MASK]) for part in parts])
        if (count := whole.states.shape[1]) > _PLACES:
            raise PerdureError(
                f"{self.title} knows {_PLACES} places of words, and the prompt and the phrases of "
                f"its regions have {count}: shorten them, or leave the layout out (--layout none)."
            )
        return whole

    def blank(self, pipeline: Any) -> Encoded:
        states = super().blank(pipeline).states
        return Encoded(
            states=states, beside={_MASK: torch.ones(states.shape[:2], dtype=torch.long)}
        )

    def encoding(self, pipeline: Any) -> Mapping[str, Any]:
        return {"system_prompt": None}

    def encode_negative(
        self, pipeline: Any, prompts: Sequence[str], positive: Encoded
    ) -> Encoded | None:
        self.refuse_concepts(prompts)
        _, _, states, mask = pipeline.encode_prompt(
            None,
            negative_prompt=list(prompts),
            prompt_embeds=positive.states,
            prompt_attention_mask=positive.beside[_MASK],
            device=pipeline.device,
            max_sequence_length=_LENGTH,
        )
        return _cut(states, mask)

    def passes(self, pipeline: Any, prompts: int) -> AbstractContextManager[Rows]:
        return unnamed_passes(pipeline.transformer)

    def objective(self, pipeline: Any, size: Size) -> Objective:
        """Where the schedule shifts dynamically, the pipeline takes channels for positions."""
        return flow_of(pipeline.scheduler, pipeline.transformer.config.in_channels)

    def size(self, pipeline: Any) -> Size:
        side = int(pipeline.default_image_size)
        return side, side

    def multiple(self, pipeline: Any) -> int:
        return int(pipeline.vae_scale_factor * 2)

    def predict(
        self, pipeline: Any, noised: Tensor, t: Tensor, conditioning: Conditioning, size: Size
    ) -> Tensor:
        """The denoiser's own time runs the other way, and so does what it says."""
        said: Tensor = pipeline.transformer(
            hidden_states=self.held(pipeline, noised),
            timestep=1 - t / 1000,
            encoder_hidden_states=self.held(pipeline, conditioning.states),
            encoder_attention_mask=conditioning.beside[_MASK],
        ).sample
        return -said

    def draw(
        self, pipeline: Any, positive: Encoded, negative: Encoded | None, **arguments: Any
    ) -> Any:
        length = max(_LENGTH, positive.states.shape[1])
        against = None if negative is None else _filled(negative, length)
        return super().draw(pipeline, _filled(positive, length), against, **arguments)


def _cut(states: Tensor, mask: Tensor) -> Encoded:
    """The states (N, P, d) as far as the longest prompt reaches."""
    longest = int(mask.sum(dim=1).max())
    return Encoded(states=states[:, :longest], beside={_MASK: mask[:, :longest]})


def _filled(encoded: Encoded, length: int) -> Encoded:
    """With the padding of the pipeline's call, which is masked: what it is changes no bit."""
    behind = length - encoded.states.shape[1]
    return Encoded(
        states=pad(encoded.states, (0, 0, 0, behind)),
        beside={_MASK: pad(encoded.beside[_MASK], (0, behind))},
    )
