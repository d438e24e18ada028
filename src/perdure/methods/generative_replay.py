"""Generative replay: sequential LoRA that also learns from its own drawings of earlier concepts.

L = (1 - s) L_diff(new pictures) + s L_diff(drawings of earlier concepts by the model of t - 1)
"""

from dataclasses import dataclass

from perdure.methods.lora import LoRA
from perdure.settings import Count


class GenerativeReplay(LoRA):
    name = "generative-replay"
    title = "Generative replay: LoRA trained on and on, also on its own drawings of the past"
    paper = "Shin et al., NeurIPS 2017, arXiv 1705.08690; as a baseline in arXiv 2304.06027"

    @dataclass(frozen=True, kw_only=True)
    class Config(LoRA.Config):
        replay: Count = 8
        """Pictures of each past concept that are drawn before a task [ours]."""

    config: Config

    @property
    def replays(self) -> int:
        return self.config.replay
