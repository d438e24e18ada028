"""What families have in common whose denoiser is a U-Net that reads the encoders' states."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, ClassVar

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from perdure.errors import PerdureError
from perdure.hosts.diffusion.conditioning import Conditioning, Encoded
from perdure.hosts.diffusion.family import KEYS_VALUES, Family
from perdure.hosts.diffusion.objective import Objective, of_schedule
from perdure.hosts.diffusion.passes import Rows, all_rows, negatives_first, watched
from perdure.hosts.diffusion.regional import Boxed, attending
from perdure.hosts.frozen import Reads
from perdure.hosts.size import Size

__all__ = ["UNet"]

_READER = "attn2"
_SMALL = 32
"""Side of latents up to which a CPU runs plain attention: torch's fused one is half as fast with
few positions."""


class UNet(Family):
    """Keys and values of the cross-attentions are linear in the states: they read the prompt."""

    component = "unet"
    keys_apart = True
    targets: ClassVar[Mapping[str, tuple[str, ...]]] = {
        KEYS_VALUES: ("attn2.to_k", "attn2.to_v"),
        "cross-attention": ("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"),
        "all": (),
    }

    def check(self, pipeline: Any, resting: Collection[str] = ()) -> None:
        super().check(pipeline, resting)
        given, own = pipeline.unet.config.in_channels, pipeline.vae.config.latent_channels
        if given != own:
            raise PerdureError(
                f"The base's U-Net is given {given} channels and its latents have {own}: it fills "
                "or edits pictures. Take the one that draws from text alone."
            )

    def prepare(self, pipeline: Any, device: torch.device) -> None:
        if device.type == "cpu" and pipeline.unet.config.sample_size <= _SMALL:
            pipeline.unet.set_attn_processor(AttnProcessor())

    def reads(self, layer: str) -> Reads:
        return "prompt" if layer.endswith(self.targets[KEYS_VALUES]) else "picture"

    def readers(self, pipeline: Any) -> dict[str, nn.Module]:
        modules = self.denoiser(pipeline).named_modules()
        return {name: module for name, module in modules if name.endswith(_READER)}

    def state_width(self, pipeline: Any) -> int:
        return int(pipeline.unet.config.cross_attention_dim)

    def passes(self, pipeline: Any, prompts: int) -> AbstractContextManager[Rows]:
        return negatives_first(prompts)

    def objective(self, pipeline: Any, size: Size) -> Objective:
        schedule = pipeline.scheduler
        return of_schedule(schedule.alphas_cumprod, schedule.config.prediction_type)

    def size(self, pipeline: Any) -> Size:
        side = int(pipeline.unet.config.sample_size * pipeline.vae_scale_factor)
        return side, side

    def multiple(self, pipeline: Any) -> int:
        return max(8, int(pipeline.vae_scale_factor))  # 8 is what the pipelines ask for

    def predict(
        self, pipeline: Any, noised: Tensor, t: Tensor, conditioning: Conditioning, size: Size
    ) -> Tensor:
        with self.reading(pipeline, conditioning.by_layer, all_rows):
            said: Tensor = pipeline.unet(
                self.held(pipeline, noised),
                t,
                encoder_hidden_states=self.held(pipeline, conditioning.states),
                added_cond_kwargs=self.beside(pipeline, conditioning, size),
            ).sample
        return said

    def draw(
        self, pipeline: Any, positive: Encoded, negative: Encoded | None, **arguments: Any
    ) -> Any:
        if "image" in arguments:  # which has its own size
            del arguments["width"], arguments["height"]
        return super().draw(pipeline, positive, negative, **arguments)

    def beside(
        self, pipeline: Any, conditioning: Conditioning, size: Size
    ) -> dict[str, Tensor] | None:
        """What the U-Net is given beside states and time."""
        return None

    def size_of(self, pipeline: Any, given: Mapping[str, Any]) -> Size:
        height, width = (side * pipeline.vae_scale_factor for side in given["sample"].shape[-2:])
        return width, height

    @contextmanager
    def attending(
        self,
        pipeline: Any,
        regions: Sequence[Boxed],
        rows: Rows,
        size: Size,
        now: Callable[[], float] | None = None,
    ) -> Iterator[None]:
        if not regions:
            yield
            return
        side = pipeline.vae_scale_factor
        latents = (size[0] // side, size[1] // side)
        with ExitStack() as stack:
            if now is None:
                done = partial(self.done, pipeline)
                now = stack.enter_context(watched(self.denoiser(pipeline), done))
            readers = self.readers(pipeline)
            stack.enter_context(attending(readers, regions, rows, latents, now))
            yield
