"""The second step of a method that trains for the whole bank; the tasks' tensors stay frozen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perdure.adapters import Prompts, Token
from perdure.hosts.diffusion.session import Session
from perdure.learning.latents import Latents
from perdure.learning.loop import Progress, train
from perdure.learning.moments import SUBJECTS, TEMPLATES
from perdure.learning.settings import LearnSettings
from perdure.methods import Composed, Kept

__all__ = ["learn_composition", "prompts_of"]


EVERYDAY = 8
"""Prompts of a concept in a task beyond those that it was taught with; in half of them it has
company."""

COMPANY = (
    "a photo of {} next to {}",
    "a photo of {} and {}",
    "a picture of {} with {}",
    "a drawing of {} and {}",
)
"""Prompts of a concept and one of `SUBJECTS`, in either order."""

MOST_PROMPTS = 1024
"""In a task: their states are held in memory, and a bank may have a thousand concepts."""


def prompts_of(templates: Mapping[str, Sequence[str]], seed: int) -> list[str]:
    """Each concept in each prompt that it was taught with, and then in `EVERYDAY` others.

    Which ones follow from the seed, so from task to task they change. Of more than `MOST_PROMPTS`
    that many are drawn.
    """
    generator = torch.Generator().manual_seed(seed)

    def any_of(choices: Sequence[str]) -> str:
        return choices[int(torch.randint(len(choices), (), generator=generator))]

    texts = []
    for name, taught in templates.items():
        concept = f"<{name}>"
        texts += [text.format(concept) for text in taught]
        for _ in range(EVERYDAY // 2):
            pair = [concept, any_of(SUBJECTS)]
            order = torch.randperm(2, generator=generator).tolist()
            texts.append(any_of(TEMPLATES).format(concept))
            texts.append(any_of(COMPANY).format(*(pair[i] for i in order)))
    if len(texts) > MOST_PROMPTS:
        kept = torch.randperm(len(texts), generator=generator)[:MOST_PROMPTS]
        texts = [texts[i] for i in kept.sort().values.tolist()]
    return texts


def learn_composition(
    session: Session,
    method: Composed,
    kept: Sequence[Kept],
    tokens: Mapping[str, Token],
    composition: Mapping[str, Tensor],
    templates: Mapping[str, Sequence[str]],
    latents: Mapping[str, Sequence[Latents]],
    settings: LearnSettings,
    *,
    folder: Path,
    report: Callable[[Progress], None] = lambda progress: None,
) -> tuple[dict[str, Tensor] | None, dict[str, Any]]:
    """What replaces ``composition`` (None where the step is switched off), and facts of the run.

    Args:
        session: its target layers are the method's.
        method: of the bank.
        kept: every task of the bank, the new ones among them.
        tokens: every concept's token.
        composition: what the bank holds now.
        templates: every concept's own prompts, those that it was taught with.
        latents: of the concepts whose pictures are there.
        settings: of the learn; the method's `composition_settings` overrule them.
        folder: gets a checkpoint of its own and the log; a checkpoint there is gone on from.
        report: called after every step.
    """
    own = method.composition_settings()
    if own is None:
        return None, {}
    settings = replace(settings, **own)
    session.fold({})
    session.speak(tokens)
    texts = prompts_of(templates, settings.seed)
    with torch.no_grad():
        parts = [session.conditioning(texts[i : i + 32]).prompts for i in range(0, len(texts), 32)]
    prompts = Prompts.joined(parts)
    learner = method.start_composition(
        session.shapes,
        kept,
        composition,
        prompts,
        torch.Generator().manual_seed(settings.seed),
    )
    folder.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = train(session, learner, latents, settings, folder=folder, report=report)
    facts["parameters"] = sum(parameter.numel() for parameter in learner.parameters())
    return method.keep_composition(learner), facts
