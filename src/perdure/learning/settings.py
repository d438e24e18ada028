"""How to learn: the typed options that every method shares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from perdure.hosts.size import AnySize
from perdure.settings import Count, Form, Limits, NotNegative, Option, Seed, Settings

__all__ = ["LearnSettings"]


def _steps(given: Any) -> int | None:
    """A number of steps, or None for `auto`; ValueError where it is neither."""
    if given == "auto":
        return None
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise ValueError(f"steps is {given!r}, but must be a whole number of at least 1, or auto")
    return given


@dataclass(frozen=True, kw_only=True)
class LearnSettings(Settings):
    """Options of one learning step. A base may advise its own values in `perdure.json`."""

    called: ClassVar[str] = "learning"

    steps: Annotated[int, Form(_steps, example="int or auto")] | None = 800
    """Optimiser steps; `auto` makes them at a constant rate until little more is won, and then some
    at a rate that goes down. None is the same."""
    batch_size: Count = 4
    """Pictures in one forward pass."""
    accumulate: Count = 1
    """Forward passes in one optimiser step."""
    lr: NotNegative = 5e-4
    """Learning rate of the deltas (AdamW)."""
    token_lr: NotNegative = 5e-3
    """Learning rate of the new tokens' rows."""
    weight_decay: NotNegative = 0.0
    """AdamW's decoupled weight decay, on the deltas only."""
    schedule: Literal["constant", "cosine"] = "constant"
    """How both rates go: as given to the end, or down to zero along half a cosine."""
    seed: Seed = 0
    """Everything random follows from this and the step's number."""
    token: Literal["word", "state"] = "word"
    """What a concept's token is: a new word of the text encoders, or a state in their output's
    place, with which no text encoder runs while it learns. The default is the method's own."""
    templates: Annotated[tuple[str, ...], Option("template")] = ("a photo of {}",)
    """Training prompts; `{}` stands for the concept token."""
    size: AnySize | None = None
    """Width and height to learn at, such as 768x512; the base's own by default."""
    fit: Literal["crop", "letterbox", "buckets"] = "crop"
    """What of a picture fits into the size: a crop about the centre, all of it with a border, or
    nearly all of it in a size of its own shape and of no more pixels."""
    captions: bool = True
    """Learn with NAME.txt beside NAME.jpg, where it lies there, in the place of a template."""
    caption_dropout: Annotated[float, Limits(least=0, most=1)] = 0.1
    """The chance that a caption gives way to a template."""
    masks: Literal["given", "auto", "none"] = "given"
    """Learn the concept's part of a picture alone: given by NAME-mask.png beside NAME.jpg or by
    transparency, or found by rembg."""
    flip: bool = False
    """Also learn from mirrored pictures; leave it off for faces and lettering."""
    prior: str = ""
    """Prior preservation: a prompt such as `a photo of a person`, drawn by the untouched base."""
    prior_pictures: Count = 200
    """Pictures of the prior prompt."""
    prior_weight: NotNegative = 1.0
    """Weight of the prior's loss beside the pictures'."""
    recompute: bool = False
    """Keep less for the way back and compute it a second time (gradient checkpointing): less
    memory, longer steps, the same losses."""
    checkpoint_every: Count = 50
    """Steps between two checkpoints."""
    preview_every: Count | None = None
    """Draw the new concept and some old ones every so many steps. They are on one growing sheet,
    `while-learning.png` in the task's folder; by default nothing is drawn."""
    track: Literal["tensorboard", "wandb", "trackio"] | None = None
    """Tell loss, penalty and norm of every step to a tracker as well, through accelerate."""
    optimizer: Literal["adamw", "adamw-8bit", "prodigy", "schedule-free"] = "adamw"
    """What makes the steps: torch's AdamW, bitsandbytes' in 8 bits, Prodigy, which finds the rate
    itself, or schedule-free AdamW."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.templates or any(text.count("{}") != 1 for text in self.templates):
            raise ValueError(
                f"templates is {self.templates!r}, but each must hold {{}} once, for the token"
            )

    def share_of_rate(self, step: int) -> float:
        """What the rates are multiplied by at a step, counted from 0; in (0, 1]."""
        if self.steps is None or self.schedule == "constant" or self.optimizer == "schedule-free":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * step / self.steps))
