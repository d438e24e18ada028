"""Latents of pictures that the pipeline draws itself: for prior preservation and for replay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from perdure.base.base import Base
from perdure.learning.latents import Latents
from perdure.learning.settings import LearnSettings
from perdure.methods import Kept, Method
from perdure.randomness import seed_of

__all__ = ["REPLAY_PROMPT", "prior", "replayed"]

REPLAY_PROMPT = "a photo of {}"
"""What past concepts are drawn with, and then learned again with."""

BATCH = 8


def prior(base: Base, settings: LearnSettings) -> Latents:
    """Latents of the prior prompt's pictures, drawn by the untouched base."""
    seeds = [seed_of(settings.seed, k) for k in range(settings.prior_pictures)]
    return _drawn(base, settings.prior, seeds, num_inference_steps=25)


def replayed(
    base: Base, method: Method, kept: Sequence[Kept], settings: LearnSettings
) -> dict[str, Latents]:
    """Latents of `method.replays` pictures of each past concept, drawn with what is kept.

    Seeds follow from the settings' seed and the number of tasks, so a resume draws the same. The
    base's tokens must include the past concepts; its weights are `W_init` afterwards.
    """
    if not method.replays:
        return {}
    advice = base.hints.get("drawing", {})
    arguments = {
        "num_inference_steps": int(advice.get("steps", 30)),
        "guidance_scale": float(advice.get("guidance", 7.5)),
    }
    latents = {}
    try:
        for index, name in enumerate(name for task in kept for name in task.concepts):
            base.fold(method.mix(kept, [name]))
            seeds = [seed_of(settings.seed, len(kept), index, k) for k in range(method.replays)]
            prompt = REPLAY_PROMPT.format(f"<{name}>")
            latents[name] = _drawn(base, prompt, seeds, **arguments)
    finally:
        base.fold({})
    return latents


def _drawn(base: Base, prompt: str, seeds: Sequence[int], **arguments: Any) -> Latents:
    drawn = []
    for start in range(0, len(seeds), BATCH):
        some = seeds[start : start + BATCH]
        with torch.no_grad(), base.autocast():
            out = base.pipeline(
                [prompt] * len(some),
                generator=[torch.Generator().manual_seed(seed) for seed in some],
                output_type="latent",
                **arguments,
            )
        drawn.append(out.images.float())
    mean = torch.cat(drawn)
    return Latents(mean=mean, std=torch.zeros_like(mean))
