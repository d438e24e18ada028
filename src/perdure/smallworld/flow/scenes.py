"""Scenes rendered and encoded beforehand: latents and token ids in files that are mapped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL

from perdure import precision
from perdure.smallworld.flow.names import KNOWN
from perdure.smallworld.flow.speech import said, tokenizer
from perdure.smallworld.pen import pick
from perdure.smallworld.vocabulary import DOMAINS
from perdure.smallworld.world import SPLITS, Identity, Scene, sample_context

__all__ = [
    "AUTOENCODER",
    "CHUNK",
    "Latents",
    "drawn_scenes",
    "make_scene",
    "open_scenes",
    "render_scenes",
]

CHUNK = 5000
AUTOENCODER = Path(__file__).parents[1] / "weights" / "base" / "vae"
_TWO = 0.15
"""Share of scenes with two subjects."""
_KNOWN = 0.4
"""Share of scenes whose subjects all have names."""
_FIELDS = ("latents", "ids", "kinds", "named")


@dataclass(frozen=True)
class Latents:
    """``latents`` float16 (N, 8, 16, 16), ``ids`` int16 (N, 4, CONTEXT), ``kinds`` uint8 (N,) in
    the order of DOMAINS, ``named`` bool (N,); all are mapped from disk, in chunks."""

    chunks: tuple[dict[str, np.ndarray], ...]

    def __len__(self) -> int:
        return CHUNK * len(self.chunks)

    def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """The rows ``index`` (N,) of every field."""
        where = list(zip(*divmod(index, CHUNK), strict=True))
        return {key: np.stack([self.chunks[c][key][r] for c, r in where]) for key in _FIELDS}


def make_scene(rng: np.random.Generator, split: str = "training") -> Scene:
    """A scene whose first subject is of every kind equally often.

    In the split ``training`` two in five are of subjects that have a name.
    """
    seeds = SPLITS[split]
    if split == "training" and rng.random() < _KNOWN:
        seeds = range(KNOWN)
    count = 2 if rng.random() < _TWO else 1
    who = tuple(
        Identity(str(pick(rng, DOMAINS)), int(rng.integers(seeds.start, seeds.stop)))
        for _ in range(count)
    )
    context = sample_context(who[0].domain, rng)
    return Scene(identities=who, context=context, render_seed=int(rng.integers(0, 2**62)))


@torch.no_grad()
def _encode(vae: AutoencoderKL, pictures: np.ndarray) -> np.ndarray:
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(memory_format=torch.channels_last)
    with precision.autocast(torch.device("cpu")):
        means = [vae.encode(part.float() / 127.5 - 1).latent_dist.mean for part in x.split(100)]
    return torch.cat(means).half().numpy()


def drawn_scenes(seed: int, numbers: Iterable[int], split: str = "training") -> dict[str, Any]:
    """Scenes ``numbers`` of ``seed``: ``pictures`` uint8 (N, 64, 64, 3), the fields of `Latents`
    but the latents, and ``anew``, how many captions were too long and said anew."""
    parts: dict[str, list[Any]] = {"pictures": [], "ids": [], "kinds": [], "named": []}
    anew = 0
    for number in numbers:
        scene = make_scene(np.random.default_rng([seed, number]), split)
        ids, again = said(scene, np.random.default_rng([seed, number, 1]))
        parts["pictures"].append(scene.render())
        parts["ids"].append(ids)
        parts["kinds"].append(np.uint8(DOMAINS.index(scene.identities[0].domain)))
        parts["named"].append(np.bool_(all(one.seed < KNOWN for one in scene.identities)))
        anew += again
    return {key: np.stack(rows) for key, rows in parts.items()} | {"anew": anew}


def _chunk(task: tuple[Path, int, int, str]) -> int:
    """Write chunk ``number``; returns how many captions were too long and said anew."""
    folder, seed, number, split = task
    path = folder / f"{number:05d}"
    if path.exists():
        return 0
    torch.set_num_threads(1)
    vae = AutoencoderKL.from_pretrained(AUTOENCODER, dtype=torch.float32)
    drawn = drawn_scenes(seed, range(number * CHUNK, (number + 1) * CHUNK), split)
    drawn["latents"] = _encode(vae, drawn.pop("pictures"))
    partial = folder / f"{number:05d}.partial-{os.getpid()}"
    partial.mkdir()
    for key in _FIELDS:
        np.save(partial / f"{key}.npy", drawn[key])
    (partial / "facts.json").write_text(json.dumps({"seed": seed, "said_anew": drawn["anew"]}))
    partial.rename(path)
    return int(drawn["anew"])


def render_scenes(
    folder: Path, *, chunks: int, seed: int = 0, split: str = "training", workers: int = 2
) -> None:
    """Write chunks of `CHUNK` scenes until ``folder`` has ``chunks``; those that exist are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [(folder, seed, number, split) for number in range(chunks)]
    tokenizer()  # made once; the workers inherit it
    with ProcessPoolExecutor(workers) as pool:
        for done, anew in enumerate(pool.map(_chunk, tasks), 1):
            print(json.dumps({"chunk": done, "of": chunks, "said_anew": anew}), flush=True)


def open_scenes(folder: Path) -> Latents:
    """All chunks of ``folder`` in order; raises FileNotFoundError where there is none."""
    found = sorted(path for path in folder.glob("[0-9]*") if path.suffix == "")
    if not found:
        raise FileNotFoundError(f"no scenes in {folder}: run the stage 'scenes' first")
    return Latents(
        tuple(
            {key: np.load(path / f"{key}.npy", mmap_mode="r") for key in _FIELDS} for path in found
        )
    )
