"""FLUX.2 dev: klein's denoiser, states of three depths of a Mistral 3, guidance by an embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import transformers
from diffusers.pipelines.flux2.pipeline_flux2 import format_input
from torch import Tensor

from perdure.adapters.prompts import STATE
from perdure.errors import PerdureError
from perdure.hosts.diffusion.conditioning import Encoded
from perdure.hosts.diffusion.families.flux2 import LENGTH, Flux2
from perdure.hosts.diffusion.passes import Rows, positives_first
from perdure.hosts.diffusion.vocabulary import Vocabulary, Wording
from perdure.hosts.size import Size
from perdure.quiet import quietly

__all__ = ["Flux2Dev"]

_IMAGE = "[IMG]"
"""What the pipeline takes out of prompts: the place of a picture."""


class Flux2Dev(Flux2):
    """`Flux2Pipeline` of diffusers: FLUX.2 dev.

    Its `tokenizer` is a processor of texts and pictures.
    """

    title = "FLUX.2 dev"
    pipelines = ("Flux2Pipeline",)

    def arguments(self, index: Mapping[str, Any]) -> dict[str, Any]:
        """PerdureError where transformers has only a stand-in for the processor's class."""
        _, kind = index.get("tokenizer", ("", ""))
        if getattr(getattr(transformers, str(kind), None), "is_dummy", False):
            raise PerdureError(
                f"The tokenizer of {self.title} is a {kind}, which needs torchvision: "
                "pip install torchvision."
            )
        return super().arguments(index)

    def advice(self, pipeline: Any) -> Mapping[str, Mapping[str, Any]]:
        return {"learning": {"token": STATE}, "drawing": {"steps": 50, "guidance": 4.0}}

    def distilled(self, pipeline: Any) -> str:
        return ""

    def vocabularies(self, pipeline: Any) -> list[Vocabulary]:
        processor = pipeline.tokenizer

        def messages(prompt: str) -> Any:
            return format_input([prompt], pipeline.system_message)[0]

        said = Wording.of_chat(processor, messages, add_generation_prompt=False)
        first = processor.tokenizer.bos_token  # a processor puts it where the template does not
        begun = first is not None and said.before.startswith(first)
        wording = replace(said, dropped=_IMAGE, special=not begun)
        return [Vocabulary(pipeline, "text_encoder", "tokenizer", length=LENGTH, wording=wording)]

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Encoded:
        with quietly():  # transformers advises on how the pipeline calls its processor
            return super().encode(pipeline, prompts)

    def guides(self, pipeline: Any) -> bool:
        return False

    def encode_negative(
        self, pipeline: Any, prompts: Sequence[str], positive: Encoded
    ) -> Encoded | None:
        return None

    def passes(self, pipeline: Any, prompts: int) -> AbstractContextManager[Rows]:
        return positives_first(prompts)

    def from_drawn(self, pipeline: Any, drawn: Tensor, size: Size) -> Tensor:
        """The pipeline packs its latents, and leaves the statistics of the batch norm in them."""
        unit = self.multiple(pipeline)
        return drawn.transpose(1, 2).unflatten(2, (size[1] // unit, size[0] // unit))
