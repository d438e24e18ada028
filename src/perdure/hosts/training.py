"""The one step loop: optimiser, schedule, checkpoint, log, divergence.

What a step computes is its caller's: the loop asks for the gradients of step i and makes the step.
Whatever is random in them follows from i, so a run that goes on from a checkpoint is the same run.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from perdure.checkpoint import checkpoint_facts, load_checkpoint, save_checkpoint
from perdure.durable import replace_file, sync_file
from perdure.errors import PerdureError

__all__ = ["Diverged", "Ending", "Progress", "run_steps"]

EXPLODED = 30.0
"""Deltas whose norm is so many times that of the weights which they change have diverged."""


class Diverged(PerdureError):
    """Going on, also from a checkpoint, would end alike."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What one step tells: losses, Frobenius norm of the deltas, seconds left of this run."""

    step: int
    steps: int
    loss: float
    penalty: float
    norm: float
    left: float
    known: bool = True
    """Is it known that the run ends after `steps`? Else it ends by then, and `left` is at most."""


class Ending(Protocol):
    """Says while a run goes on how many steps it makes; what it knows lies in the checkpoints."""

    @property
    def steps(self) -> int:
        """In all; at most, while it is not known."""

    @property
    def known(self) -> bool:
        """Is it known how many?"""

    def after(self, made: int) -> None:
        """Called before the first step, and after each."""

    def state(self) -> Any:
        """JSON-ready."""

    def restore(self, state: Any) -> None:
        """Go on from what `state` told; ValueError, TypeError or KeyError where it is none."""


def run_steps(
    gradients: Callable[[int], tuple[float, float]],
    *,
    steps: int | Ending,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    share_of_rate: Callable[[int], float],
    norm: Callable[[], float],
    weights: float | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 50,
    asked: Mapping[str, object] | None = None,
    log: Path | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, float]:
    """Make the steps that are left; the last step's loss, penalty and norm, and the seconds of all.

    Args:
        gradients: fills the gradients of step i (from 0) and returns its loss and penalty.
        steps: in all, those before a checkpoint among them; or what says so while they are made.
        parameters: all that trains, by name; what is not in the optimiser is kept with it.
        optimizer: its groups' rates are those at a share of 1.
        share_of_rate: what the rates are multiplied by at a step.
        norm: of the deltas, asked for after every step.
        weights: the norm of the weights that they change, where it is known.
        checkpoint: a file to go on from where it is there, and to replace.
        checkpoint_every: steps between two checkpoints.
        asked: JSON facts of what is trained; a checkpoint that says others is refused.
        log: a file that gets one line of JSON a step.
        report: called after every step.

    Raises Diverged where a number is no longer finite or the deltas have exploded, and PerdureError
    for a checkpoint that cannot be read or is of other facts.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    ending = None if isinstance(steps, int) else steps
    done, spent, last = 0, 0.0, dict[str, float]()
    if checkpoint is not None and checkpoint.exists():
        done, spent, last = _resumed(checkpoint, parameters, optimizer, asked, ending)
    elif ending is not None:
        ending.after(0)
    of_weights = "" if weights is None else f", of the weights that it changes {weights:.3g}"
    about: dict[str, Any] = {} if asked is None else {"asked": dict(asked)}
    began = time.monotonic()
    with ExitStack() as files:
        lines = None
        if log is not None:
            _cut_log(log, done)
            lines = files.enter_context(open(log, "a"))
        for step in count(done):
            if step >= (total := steps if isinstance(steps, int) else steps.steps):
                break
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * share_of_rate(step)
            optimizer.zero_grad(set_to_none=True)
            loss, penalty = gradients(step)
            if not math.isfinite(loss) or not math.isfinite(penalty):
                what = "lr" if math.isfinite(penalty) else "lr or the method's penalty"
                raise Diverged(
                    f"Learning diverged at step {step + 1} (loss {loss:g}, penalty {penalty:g}): "
                    f"lower {what}."
                )
            optimizer.step()
            last = {"loss": loss, "penalty": penalty, "norm": norm()}
            most = sys.float_info.max if weights is None else EXPLODED * weights
            if not last["norm"] <= most:
                raise Diverged(
                    f"Learning diverged at step {step + 1} (the norm of what is learned is "
                    f"{last['norm']:.3g}{of_weights}): lower lr."
                )
            if ending is not None:
                ending.after(step + 1)
                total = ending.steps
            seconds = time.monotonic() - began
            left = seconds / (step + 1 - done) * (total - step - 1)
            if lines is not None:
                lines.write(json.dumps({"step": step + 1, **last}) + "\n")
            known = ending is None or ending.known
            report(Progress(step=step + 1, steps=total, left=left, known=known, **last))
            ready = (step + 1) % checkpoint_every == 0 or step + 1 == total
            if checkpoint is not None and ready:
                if lines is not None and log is not None:
                    lines.flush()
                    sync_file(log)  # never shorter than its checkpoint says
                if ending is not None:
                    about["ending"] = ending.state()
                now = {**about, "step": step + 1, "seconds": spent + time.monotonic() - began}
                save_checkpoint(
                    checkpoint,
                    parameters=parameters,
                    optimizer=optimizer,
                    facts={**now, **last},
                )
    return {**last, "seconds": spent + time.monotonic() - began}


def _resumed(
    checkpoint: Path,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    asked: Mapping[str, object] | None,
    ending: Ending | None,
) -> tuple[int, float, dict[str, float]]:
    """The steps that a checkpoint has made, their seconds, and what the last of them told."""
    try:
        facts: Mapping[str, Any] = checkpoint_facts(checkpoint)
        alike = asked is None or facts["asked"] == asked
        if alike:
            load_checkpoint(checkpoint, parameters=parameters, optimizer=optimizer)
            if ending is not None:
                ending.restore(facts["ending"])
            last = {name: float(facts[name]) for name in ("loss", "penalty", "norm")}
            return int(facts["step"]), float(facts["seconds"]), last
    except (ValueError, KeyError, TypeError) as error:
        raise PerdureError(
            f"The checkpoint {checkpoint} cannot be read: remove it to start anew."
        ) from error
    raise PerdureError(
        f"The checkpoint {checkpoint} is of another task or of other settings: give them again as "
        "they were, or remove it to start anew."
    )


def _cut_log(path: Path, done: int) -> None:
    """Drop the lines that a killed run wrote after its last checkpoint, a torn one among them."""
    kept = []
    for line in path.read_text().splitlines(keepends=True) if path.exists() else ():
        try:
            before = json.loads(line)["step"] <= done
        except (ValueError, KeyError, TypeError):
            continue
        if before:
            kept.append(line)
    replace_file(path, "".join(kept).encode())
