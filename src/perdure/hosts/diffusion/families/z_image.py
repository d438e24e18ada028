"""Z-Image: picture and text are one sequence; prompts are as long as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from perdure.adapters.prompts import STATE
from perdure.hosts.diffusion.conditioning import Conditioning, Encoded
from perdure.hosts.diffusion.family import KEYS_VALUES, Family
from perdure.hosts.diffusion.lora_files import Named
from perdure.hosts.diffusion.objective import Objective, flow_of
from perdure.hosts.diffusion.passes import Rows, positives_first
from perdure.hosts.diffusion.vocabulary import Vocabulary, Wording
from perdure.hosts.frozen import Reads
from perdure.hosts.size import Size

__all__ = ["ZImage"]

_LENGTH = 512
"""Most positions of a prompt in the pipeline's call."""
_UNIT = 32
"""The picture's patches and the prompt's positions are each filled up to a multiple of this."""
_LENGTHS = "lengths"
_TURBO_SHIFT = 3.0


class ZImage(Family):
    """`ZImagePipeline` of diffusers (arXiv 2511.22699): Z-Image and Z-Image-Turbo.

    States are padded with zeros here; ``lengths`` (N,) says how many of them are a prompt's.
    """

    title = "Z-Image"
    pipelines = ("ZImagePipeline",)
    time = "t"
    time_scale = 0.0
    image_to_image = "ZImageImg2ImgPipeline"
    component = "transformer"
    large_encoders = True
    states = "cap_feats"
    encoders: ClassVar[Mapping[str, str]] = {"text_encoder": "tokenizer"}
    targets: ClassVar[Mapping[str, tuple[str, ...]]] = {
        KEYS_VALUES: ("attention.to_k", "attention.to_v"),
        "cross-attention": (
            "attention.to_q",
            "attention.to_k",
            "attention.to_v",
            "attention.to_out.0",
        ),
        "all": (),
    }

    comfyui = "diffusers"

    def kohya(self, pipeline: Any, module: str) -> Named | None:
        return Named("lora_unet_" + module.replace(".", "_"))

    def advice(self, pipeline: Any) -> Mapping[str, Mapping[str, Any]]:
        drawing = {"steps": 50, "guidance": 4.0}
        if self.distilled(pipeline):
            drawing = {"steps": 9, "guidance": 0.0}
        return {"learning": {"token": STATE}, "drawing": drawing}

    def distilled(self, pipeline: Any) -> str:
        """Turbo's published schedule has a shift of 3, Z-Image's own one of 6."""
        if pipeline.scheduler.config.shift != _TURBO_SHIFT:
            return ""
        return (
            "This Z-Image was distilled to eight steps (Turbo): learning here teaches the concept "
            "and undoes a little of the distillation, so keep the steps few."
        )

    def vocabularies(self, pipeline: Any) -> list[Vocabulary]:
        said = Wording.of_chat(pipeline.tokenizer, enable_thinking=True)
        wording = Wording(before=said.before, after=said.after, packed=True)
        return [Vocabulary(pipeline, "text_encoder", "tokenizer", length=_LENGTH, wording=wording)]

    def layers(self, pipeline: Any, targets: str) -> dict[str, Any]:
        """Of the refiners those of the text; the picture's see no prompt."""
        return {
            name: layer
            for name, layer in super().layers(pipeline, targets).items()
            if targets == "all" or layer.reads != "picture"
        }

    def reads(self, layer: str) -> Reads:
        if layer.startswith(("cap_embedder.", "context_refiner.")):  # the first behind a norm
            return "text"
        joined = layer.startswith("layers.") and "adaLN" not in layer
        return "joined" if joined else "picture"

    def state_width(self, pipeline: Any) -> int:
        return int(pipeline.transformer.config.cap_feat_dim)

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Encoded:
        states, _ = pipeline.encode_prompt(
            list(prompts),
            device=pipeline.device,
            do_classifier_free_guidance=False,
            max_sequence_length=_LENGTH,
        )
        lengths = torch.tensor([len(of) for of in states], device=states[0].device)
        return Encoded(states=pad_sequence(states, batch_first=True), beside={_LENGTHS: lengths})

    def behind(self, parts: Sequence[Encoded]) -> Encoded:
        """Without what pads the first ones."""
        own = [Encoded(states=p.states[:, : int(p.beside[_LENGTHS].max())]) for p in parts]
        length = sum(part.states.shape[1] for part in own)
        lengths = torch.full_like(parts[0].beside[_LENGTHS], length)
        return Encoded(states=super().behind(own).states, beside={_LENGTHS: lengths})

    def blank(self, pipeline: Any) -> Encoded:
        states = torch.empty(1, _UNIT, self.state_width(pipeline))
        return Encoded(states=states, beside={_LENGTHS: torch.tensor([_UNIT])})

    def encode_negative(
        self, pipeline: Any, prompts: Sequence[str], positive: Encoded
    ) -> Encoded | None:
        return self.encode(pipeline, prompts)

    def passes(self, pipeline: Any, prompts: int) -> AbstractContextManager[Rows]:
        return positives_first(prompts)

    def text(self, pipeline: Any, positions: int, size: Size) -> slice:
        unit = self.multiple(pipeline)
        patches = size[0] // unit * (size[1] // unit)
        start = -(-patches // _UNIT) * _UNIT
        return slice(start, start + positions)

    def alone(self, positions: int) -> int:
        return -(-positions // _UNIT) * _UNIT

    def text_of(self, pipeline: Any, positions: int, given: Mapping[str, Any]) -> slice:
        height, width = (side * pipeline.vae_scale_factor for side in given["x"][0].shape[-2:])
        return self.text(pipeline, positions, (width, height))

    def objective(self, pipeline: Any, size: Size) -> Objective:
        unit = self.multiple(pipeline)
        return flow_of(pipeline.scheduler, size[0] // unit * (size[1] // unit))

    def size(self, pipeline: Any) -> Size:
        return 1024, 1024

    def multiple(self, pipeline: Any) -> int:
        return int(pipeline.vae_scale_factor * 2)

    def predict(
        self, pipeline: Any, noised: Tensor, t: Tensor, conditioning: Conditioning, size: Size
    ) -> Tensor:
        """The denoiser's own time runs the other way, and so does what it says."""
        said = pipeline.transformer(
            list(self.held(pipeline, noised).unsqueeze(2)),
            (1000 - t) / 1000,
            _ragged(self.held(pipeline, conditioning.states), conditioning.beside[_LENGTHS]),
        ).sample
        return -torch.stack(said).squeeze(2)

    def draw(
        self, pipeline: Any, positive: Encoded, negative: Encoded | None, **arguments: Any
    ) -> Any:
        said = {"prompt_embeds": _ragged(positive.states, positive.beside[_LENGTHS])}
        if negative is not None:
            against = _ragged(negative.states, negative.beside[_LENGTHS])
            said["negative_prompt_embeds"] = against
        return pipeline(**said, **arguments).images


def _ragged(states: Tensor, lengths: Tensor) -> list[Tensor]:
    """Each prompt's own states (length, d)."""
    return [of[:length] for of, length in zip(states, lengths.tolist(), strict=True)]
