"""Latents of pictures that the pipeline draws itself: for prior preservation and for replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from perdure.hosts.diffusion.session import Session
from perdure.learning.latents import Latents
from perdure.learning.settings import LearnSettings
from perdure.methods import Kept, Method
from perdure.randomness import seed_of

__all__ = ["Replay", "prior", "replayed"]

BATCH = 8


@dataclass(frozen=True, eq=False)
class Replay:
    """A past concept as the model draws it."""

    latents: Latents
    prompt: str
    """What it was drawn with, and is learned again with: its own first template, filled."""


def prior(session: Session, settings: LearnSettings) -> Latents:
    """Latents of the prior prompt's pictures, drawn by the untouched base."""
    seeds = [seed_of(settings.seed, k) for k in range(settings.prior_pictures)]
    return _drawn(session, settings.prior, seeds, size=settings.size, num_inference_steps=25)


def replayed(
    session: Session,
    method: Method,
    kept: Sequence[Kept],
    templates: Mapping[str, Sequence[str]],
    settings: LearnSettings,
) -> dict[str, Replay]:
    """`method.replays` pictures of each past concept, drawn with what is kept, without guidance.

    Guided drawings are sharper than what the model has learned: learned and drawn again task after
    task, they burn out.

    `templates` are the prompts that each was taught with. Seeds follow from the settings' seed and
    the number of tasks, so a resume draws the same. The session must know the past concepts; its
    weights are `W_init` afterwards.
    """
    if not method.replays:
        return {}
    steps = int(session.base.hints.get("drawing", {}).get("steps", 30))
    replays = {}
    for index, name in enumerate(name for task in kept for name in task.concepts):
        session.fold(method.mix(kept, [name]))
        seeds = [seed_of(settings.seed, len(kept), index, k) for k in range(method.replays)]
        prompt = templates[name][0].format(f"<{name}>")
        arguments = {"num_inference_steps": steps, "guidance_scale": 1.0}
        drawn = _drawn(session, prompt, seeds, size=settings.size, **arguments)
        replays[name] = Replay(latents=drawn, prompt=prompt)
    session.fold({})
    return replays


def _drawn(session: Session, prompt: str, seeds: Sequence[int], **arguments: Any) -> Latents:
    drawn = []
    for start in range(0, len(seeds), BATCH):
        some = seeds[start : start + BATCH]
        drawn.append(session.draw_latents([prompt] * len(some), seeds=some, **arguments).float())
    mean = torch.cat(drawn)
    return Latents(mean=mean, std=torch.zeros_like(mean))
