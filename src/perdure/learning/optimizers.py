"""What makes the steps: torch's AdamW, or by name one that a kept library has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from perdure.errors import PerdureError
from perdure.learning.settings import LearnSettings

__all__ = ["at_rest", "build_optimizer", "check_optimizer"]

_KINDS = {  # package, extra, class, further arguments
    "adamw-8bit": ("bitsandbytes", "bnb", "AdamW8bit", {}),
    "prodigy": ("prodigyopt", "prodigy", "Prodigy", {"lr": 1.0, "safeguard_warmup": True}),
    "schedule-free": ("schedulefree", "schedule-free", "AdamWScheduleFree", {}),
}


def check_optimizer(name: str) -> None:
    """PerdureError where its package is not installed."""
    if name in _KINDS and find_spec(_KINDS[name][0]) is None:
        raise PerdureError(
            f"optimizer is {name!r}, which needs one more package: "
            f"pip install 'perdure[{_KINDS[name][1]}]'."
        )


def build_optimizer(
    groups: Mapping[str, list[nn.Parameter]], settings: LearnSettings
) -> torch.optim.Optimizer:
    """Over a learner's groups, at the settings' rates; Prodigy finds one rate for both itself."""
    told: list[dict[str, Any]] = [
        {"params": groups["deltas"], "lr": settings.lr, "weight_decay": settings.weight_decay},
        {"params": groups["tokens"], "lr": settings.token_lr, "weight_decay": 0.0},
    ]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(told)
    package, _, name, further = _KINDS[settings.optimizer]
    module = import_module("bitsandbytes.optim" if package == "bitsandbytes" else package)
    kind = getattr(module, name)
    told = [{**group, **further} for group in told if group["params"]]
    made: Any = kind(told, **further)
    if hasattr(made, "train"):
        made.train()
    optimizer: torch.optim.Optimizer = made
    return optimizer


@contextmanager
def at_rest(optimizer: Any) -> Iterator[None]:
    """A block in which the parameters are those to draw with: of schedule-free steps, their mean.

    Afterwards they are what they were, to the bit, which the optimiser's own way back is not.
    """
    if not hasattr(optimizer, "eval"):
        yield
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
