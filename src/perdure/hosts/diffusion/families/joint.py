"""What families have in common whose blocks project the text by layers of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from perdure.hosts.diffusion.family import KEYS_VALUES, Family
from perdure.hosts.diffusion.objective import Objective, flow_of
from perdure.hosts.frozen import Layer, Reads
from perdure.hosts.size import Size

__all__ = ["JointBlocks"]

_TEXT = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out")


class JointBlocks(Family):
    """Text and picture are streams that attend to each other; single blocks, where there are any,
    read both in one sequence, the text first."""

    component = "transformer"
    large_encoders = True
    embedder: ClassVar[str] = "context_embedder"
    """The layer that reads the encoders' states."""
    feed_forward: ClassVar[str] = ".ff_context."
    """The text's own feed-forward part."""
    targets: ClassVar[Mapping[str, tuple[str, ...]]] = {
        KEYS_VALUES: ("attn.add_k_proj", "attn.add_v_proj", "attn.to_k", "attn.to_v"),
        "cross-attention": (*_TEXT, "attn.to_q", "attn.to_k", "attn.to_v"),
        "all": (),
    }

    def layers(self, pipeline: Any, targets: str) -> dict[str, Layer]:
        """Of the attentions the layers that the text goes through."""
        return {
            name: layer
            for name, layer in super().layers(pipeline, targets).items()
            if targets == "all" or layer.reads != "picture"
        }

    def reads(self, layer: str) -> Reads:
        if layer == self.embedder:
            return "prompt"
        if layer.startswith("single_transformer_blocks.") and ".norm." not in layer:
            return "joined"
        return "text" if layer.endswith(_TEXT) or self.feed_forward in layer else "picture"

    def state_width(self, pipeline: Any) -> int:
        return int(pipeline.transformer.config.joint_attention_dim)

    def objective(self, pipeline: Any, size: Size) -> Objective:
        return flow_of(pipeline.scheduler, self.patches(pipeline, size))

    def size(self, pipeline: Any) -> Size:
        side = int(pipeline.default_sample_size * pipeline.vae_scale_factor)
        return side, side

    def multiple(self, pipeline: Any) -> int:
        return int(pipeline.vae_scale_factor * 2)
