"""The stage `gpu`: render on all cores while one GPU trains; what comes back is small files.

Written for a short loan of a machine: rendering goes on while the GPU encodes what is there and
trains on it, the rate follows the clock, and the averaged weights are written now and then.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from perdure.smallworld.flow.flat import Flat
from perdure.smallworld.flow.forward import block_forward
from perdure.smallworld.flow.model import FlowModel
from perdure.smallworld.flow.scenes import AUTOENCODER, drawn_scenes
from perdure.smallworld.flow.speech import tokenizer
from perdure.smallworld.flow.train import batch_of, by_kind
from perdure.smallworld.flow.weights import load_average, write_average

__all__ = ["train_on_gpu"]

_PART = 250
"""Scenes of one task of a renderer."""
_FIRST = 8
"""Tasks that are waited for before the first step."""
_EVERY = 200
"""Steps between two looks at what was rendered, with a line in the log."""


def _part(seed: int, number: int) -> dict[str, np.ndarray]:
    return drawn_scenes(seed, range(number * _PART, (number + 1) * _PART))


@torch.no_grad()
def _encoded(vae: AutoencoderKL, part: dict[str, np.ndarray], device: torch.device) -> list[Tensor]:
    pictures = torch.from_numpy(part["pictures"]).to(device).permute(0, 3, 1, 2)
    means = [vae.encode(x.float() / 127.5 - 1).latent_dist.mean.half() for x in pictures.split(250)]
    rest = [torch.from_numpy(part[key]).to(device) for key in ("ids", "kinds", "named")]
    return [torch.cat(means), *rest]


def train_on_gpu(
    out: Path,
    *,
    start: Path | None,
    minutes: float,
    batch: int,
    rate: float,
    workers: int,
    seed: int = 1,
    names: bool = True,
    momentum: float = 0.999,
) -> None:
    """Train for ``minutes`` (rendering and compilation counted in); ``out`` receives the average.

    ``start`` is what `load_average` reads; without it training starts from nothing. The rate warms
    up over 200 steps and falls linearly over the last 40 % of the time. ``out/log.jsonl`` gets a
    line every 200 steps, ``out/average-*.safetensors`` every two minutes and at the end.
    """
    began = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    out.mkdir(parents=True, exist_ok=True)
    tokenizer()  # made once; the workers inherit it
    pool = ProcessPoolExecutor(workers)
    tasks = {pool.submit(_part, seed, number) for number in range(workers + _FIRST)}
    asked = len(tasks)
    torch.manual_seed(seed)
    blocks = torch.compile(block_forward, dynamic=False) if device.type == "cuda" else block_forward
    model = FlowModel(blocks)
    before = load_average(model, start) if start else {}
    flat = Flat(model.to(device), torch.bfloat16)
    vae = AutoencoderKL.from_pretrained(AUTOENCODER, dtype=torch.float32).to(device)
    held: list[Tensor] = []
    generator = torch.Generator(device).manual_seed(seed)

    def collect(least: int) -> None:
        """Take in what is rendered, until ``least`` tasks are done; ask for as much again."""
        nonlocal asked, tasks, held
        arrived: list[Any] = []
        while len(arrived) < least or any(task.done() for task in tasks):
            done, tasks = wait(tasks, return_when="FIRST_COMPLETED")
            for task in done:
                arrived.append(_encoded(vae, task.result(), device))
                tasks.add(pool.submit(_part, seed, asked))
                asked += 1
        if arrived:
            columns = zip(*([held] if held else []), *arrived, strict=True)
            held = [torch.cat(column) for column in columns]

    def facts(step: int) -> dict[str, float]:
        samples = int(before.get("samples", 0)) + step * batch
        return {"step": step, "samples": samples, "seconds": time.monotonic() - began}

    def write(step: int) -> None:
        average = dict(zip(flat.named, flat.split(flat.average), strict=True))
        write_average(out, average, facts(step))

    collect(_FIRST)
    step, written, share = 0, began, 0.0
    while share < 1:
        index = torch.randint(len(held[0]), (batch,), generator=generator, device=device)
        keys = ("latents", "ids", "kinds", "named")
        rows = {key: column[index] for key, column in zip(keys, held, strict=True)}
        now = batch_of(rows, generator, names)
        velocity = model(now["latents"], now["ids"], now["times"], now["zeros"])
        error = (velocity - now["velocity"]).square().mean(dim=(1, 2, 3))
        error.mean().backward()
        share = (time.monotonic() - began) / (60 * minutes)
        at = rate * max(0.0, min(1.0, (step + 1) / 200, (1 - share) / 0.4))
        step += 1
        kept = min(momentum, (1 + step) / (10 + step))
        norm = flat.step(step, rate=at, decay=0.01, momentum=kept, clip=1.0)
        if step % _EVERY == 0 or share >= 1:
            told = facts(step) | {"scenes": len(held[0]), "rate": at, "norm": norm.item()}
            told |= by_kind(error.detach(), now["kinds"], now["called"])
            with open(out / "log.jsonl", "a") as log:
                log.write(json.dumps({key: round(value, 5) for key, value in told.items()}) + "\n")
            collect(0)
            if time.monotonic() - written > 120:
                write(step)
                written = time.monotonic()
    write(step)
    pool.shutdown(wait=False, cancel_futures=True)
