"""Second moments of the text features that a new concept should leave alone; no picture needed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from perdure.bank import Bank, TaskRecord
from perdure.hosts.diffusion.session import Session
from perdure.methods.protocol import Moments
from perdure.totals import running_total

__all__ = ["CAPTIONS", "PAST_WEIGHT", "SUBJECTS", "TEMPLATES", "moments"]

_OPENINGS = ("a photo of", "a picture of", "a drawing of", "a painting of")
SUBJECTS = (
    "a person",
    "a man",
    "a woman",
    "two people",
    "a child",
    "a cat",
    "a dog",
    "a building",
    "a tower",
    "a tree",
    "an object",
    "a toy",
)
_SETTINGS = (
    "",
    " at the beach",
    " in the forest",
    " in the city",
    " in the snow",
    " at night",
    " in a room",
    " in a meadow",
)

CAPTIONS = tuple(
    f"{opening} {subject}{setting}"
    for opening in _OPENINGS
    for subject in SUBJECTS
    for setting in _SETTINGS
)
"""384 ordinary captions, without any concept."""

TEMPLATES = (
    "{}",
    "a photo of {}",
    "a picture of {}",
    "a portrait of {}",
    "a drawing of {}",
    "a painting of {}",
    "a photo of {} at the beach",
    "a photo of {} in the forest",
    "a photo of {} in the city",
    "a photo of {} in the snow",
    "a photo of {} at night",
    "a photo of {} in a room",
    "a photo of {} wearing a hat",
    "a photo of {} next to a person",
    "a photo of a dog and {}",
)
"""15 prompts that speak of one concept."""

PAST_WEIGHT = 3.0
"""What a prompt that speaks of a past concept counts for, where an ordinary caption counts 1."""


def moments(
    session: Session,
    past: Bank | None = None,
    *,
    weight: float = PAST_WEIGHT,
    gather: Literal["mean", "sum"] = "mean",
) -> Moments:
    """`C` (d, d), fp32, of every target layer: the weighted mean of `c c^T` over prompts and their
    positions. One matrix, which all layers that read the encoders' states share.

    Args:
        session: speaks of nobody; of past concepts where the sum over them must grow.
        past: a bank whose lock is held; each of its concepts is in every one of `TEMPLATES`.
        weight: of these prompts; each of `CAPTIONS` counts 1.
        gather: `sum` divides by the captions' weight alone, so that a prompt counts the same
            however many concepts there are.

    All positions count, the begin, end and padding ones too: the layers read them all.
    """
    total, count = _summed(session, CAPTIONS), float(len(CAPTIONS))
    if past is not None and past.concepts:
        total = total + weight * _of_concepts(session, past, total)
        if gather == "mean":
            count += weight * len(TEMPLATES) * len(past.concepts)
    C = total / count
    return dict.fromkeys(session.shapes, ((C + C.T) / 2).float())


def _of_concepts(session: Session, bank: Bank, captions: Tensor) -> Tensor:
    """The sum over the prompts of the bank's concepts: a running total, by one task a learn.

    What ordinary captions came to tells whether it was begun with this text encoder and machine.
    """
    tokens = bank.tokens()

    def of_task(task: TaskRecord) -> dict[str, Tensor]:
        session.speak({name: tokens[name] for name in task.concepts})
        texts = [text.format(f"<{name}>") for name in task.concepts for text in TEMPLATES]
        return {"moments": _summed(session, texts)}

    recipe = hashlib.sha256(repr(TEMPLATES).encode() + captions.numpy().tobytes()).hexdigest()
    return running_total(bank, "moments", of_task, recipe=recipe, write=True)["moments"]


@torch.no_grad()
def _summed(session: Session, prompts: Sequence[str]) -> Tensor:
    """The sum over prompts of the mean of `c c^T` over positions (d_text, d_text), fp64."""
    total: Tensor | float = 0.0
    for start in range(0, len(prompts), 32):
        c = session.conditioning(prompts[start : start + 32]).prompts.states.float()
        total = total + (c.flatten(0, 1).T @ (c / c.shape[1]).flatten(0, 1)).cpu().double()
    assert isinstance(total, Tensor)
    return total
