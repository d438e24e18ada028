"""The stages' training loop: warm-up, constant rate, linear decay; resumes after a kill."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from perdure.checkpoint import load_checkpoint, save_checkpoint
from perdure.randomness import generator_of

__all__ = ["Schedule", "train"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """``steps`` in all; the last ``decay`` share of them falls linearly to zero."""

    steps: int
    lr: float
    decay: float = 0.25
    warmup: int = 200
    weight_decay: float = 0.01
    ema: float = 0.0
    save_every: int = 250
    average_every: int = 8
    """Steps between two averagings where several processes train (local SGD, arXiv 1805.09767)."""

    def rate(self, step: int) -> float:
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.lr * min(1.0, (step + 1) / self.warmup, left)


def train(
    model: nn.Module,
    loss_of: Callable[[torch.Generator, int], tuple[Tensor, Mapping[str, float]]],
    *,
    schedule: Schedule,
    folder: Path,
    seed: int,
    check: Callable[[], Mapping[str, float]] | None = None,
) -> None:
    """Train what requires a gradient in ``model``, which ends with its averaged weights.

    ``folder`` receives ``checkpoint.safetensors`` and ``log.jsonl``; a run that finds a checkpoint
    there goes on from it, also with another number of steps (the constant phase is then longer or
    shorter). Where a process group is up, every process draws its own batches and the weights are
    averaged now and then; the first one keeps the checkpoint. ``check`` is called with the averaged
    weights in place at every save.
    """
    folder.mkdir(parents=True, exist_ok=True)
    peers = dist.get_world_size() if dist.is_initialized() else 1
    rank = dist.get_rank() if peers > 1 else 0
    path = folder / "checkpoint.safetensors"
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        named.values(), lr=schedule.lr, weight_decay=schedule.weight_decay, betas=(0.9, 0.99)
    )
    average = {name: p.detach().clone() for name, p in named.items()} if schedule.ema else {}
    step, spent = 0, 0.0
    if path.exists():
        facts = load_checkpoint(path, parameters=named, optimizer=optimizer, extra=average)
        step, spent = int(str(facts["step"])), float(str(facts["seconds"]))
    began, logged = time.monotonic() - spent, time.monotonic()

    def swap() -> None:
        with torch.no_grad():
            for name, value in average.items():
                kept = named[name].detach().clone()
                named[name].copy_(value)
                value.copy_(kept)

    with open(folder / ("log.jsonl" if rank == 0 else f"log-{rank}.jsonl"), "a") as log:
        while step < schedule.steps:
            rate = schedule.rate(step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, facts_now = loss_of(generator_of(seed, rank, step), step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(list(named.values()), 1.0)
            optimizer.step()
            step += 1
            if peers > 1 and step % schedule.average_every == 0:
                together = nn.utils.parameters_to_vector(named.values()).detach()
                dist.all_reduce(together)
                nn.utils.vector_to_parameters(together / peers, named.values())
            with torch.no_grad():
                momentum = min(schedule.ema, (1 + step) / (10 + step))
                for name, value in average.items():
                    value.lerp_(named[name], 1 - momentum)
            row = {"step": step, "loss": float(loss.detach()), "norm": float(norm), "lr": rate}
            row |= facts_now
            if rank == 0 and (step % schedule.save_every == 0 or step == schedule.steps):
                swap()
                row |= check() if check else {}
                swap()
                seconds = time.monotonic() - began
                facts = {"step": step, "seconds": seconds}
                save_checkpoint(
                    path, parameters=named, optimizer=optimizer, facts=facts, extra=average
                )
            if time.monotonic() - logged > 10 or step % schedule.save_every == 0:
                logged = time.monotonic()
                row["seconds"] = logged - began
                log.write(json.dumps({k: round(v, 5) for k, v in row.items()}) + "\n")
                log.flush()
    swap()
