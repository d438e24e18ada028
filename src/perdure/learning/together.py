"""The second step of a method that trains for the whole bank; the tasks' tensors stay frozen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perdure.base.base import Base
from perdure.learning.latents import Latents
from perdure.learning.loop import Progress, train
from perdure.learning.moments import TEMPLATES
from perdure.learning.settings import LearnSettings
from perdure.methods import Kept, Together

__all__ = ["learn_together", "prompts_of"]


def prompts_of(templates: Mapping[str, Sequence[str]], seed: int) -> list[str]:
    """Each concept in each prompt that it was taught with, and then in one of `TEMPLATES`.

    Which one follows from the seed, so from task to task it changes.
    """
    generator = torch.Generator().manual_seed(seed)
    texts = []
    for name, taught in templates.items():
        for text in taught:
            other = TEMPLATES[int(torch.randint(len(TEMPLATES), (), generator=generator))]
            texts += [text.format(f"<{name}>"), other.format(f"<{name}>")]
    return texts


def learn_together(
    base: Base,
    method: Together,
    kept: Sequence[Kept],
    rows: Mapping[str, Tensor],
    together: Mapping[str, Tensor],
    templates: Mapping[str, Sequence[str]],
    latents: Mapping[str, Latents],
    settings: LearnSettings,
    *,
    folder: Path,
    report: Callable[[Progress], None] = lambda progress: None,
) -> tuple[dict[str, Tensor] | None, dict[str, Any]]:
    """What replaces ``together``, or None where the step is switched off, and facts about the run.

    Args:
        base: frozen; its target layers are the method's.
        method: of the bank.
        kept: every task of the bank, the new ones among them.
        rows: every concept's token rows.
        together: what the bank holds now.
        templates: every concept's own prompts, those that it was taught with.
        latents: of the concepts whose pictures are there.
        settings: of the learn; the method's `together_settings` overrule them.
        folder: gets a checkpoint of its own and the log; a checkpoint there is gone on from.
        report: called after every step.
    """
    own = method.together_settings()
    if own is None:
        return None, {}
    settings = replace(settings, **own)
    base.fold({})
    base.tokens.set(rows)
    ids = base.tokens.ids(prompts_of(templates, settings.seed))
    with torch.no_grad():
        states = torch.cat([base.states(part).float() for part in ids.split(32)])
    learner = method.start_together(
        base.shapes,
        kept,
        together,
        base.prompts(ids, states),
        torch.Generator().manual_seed(settings.seed),
    )
    folder.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = train(base, learner, latents, settings, folder=folder, report=report)
    facts["parameters"] = sum(parameter.numel() for parameter in learner.parameters())
    return method.keep_together(learner), facts
