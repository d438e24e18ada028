"""Stage 0: render the training scenes, two of each cast in a row, and tokenise their captions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perdure.durable import replacing
from perdure.smallworld.captions import caption
from perdure.smallworld.train.names import NAMES, code_of, code_width
from perdure.smallworld.train.vocabulary import CONTEXT, make_tokenizer
from perdure.smallworld.world import SIZE, Scene, sample, sample_context

__all__ = ["Scenes", "load_scenes", "render_scenes"]

CAPTIONS = 2
_CHUNK = 5000


@dataclass(frozen=True)
class Scenes:
    """``pictures`` uint8 (N, 64, 64, 3), ``ids`` int64 (N, 2, CONTEXT), ``people`` bool (N,).

    Pictures 2k and 2k + 1 show the same cast in two contexts. ``named`` int64 (N, CONTEXT) is a
    caption with names for subjects, ``codes`` float16 (N, 2, code) what they stand for.
    """

    pictures: np.ndarray
    ids: np.ndarray
    people: np.ndarray
    named: np.ndarray
    codes: np.ndarray


def _pair(seed: int, index: int, split: str) -> list[tuple[Scene, list[str], str]]:
    """Two scenes, each with its captions and the one that has names."""
    rng = np.random.default_rng([seed, index])
    first = sample(rng, split)
    scenes = [first]
    context = sample_context(first.identities[0].domain, rng)
    scenes.append(
        Scene(identities=first.identities, context=context, render_seed=int(rng.integers(0, 2**62)))
    )
    said = np.random.default_rng([seed, index, 1])  # other captions do not change the pictures
    named = np.random.default_rng([seed, index, 2])
    out = []
    for scene in scenes:
        if rng.random() < 0.4:  # 70 % photographs in all
            scene = dataclasses.replace(
                scene, context=dataclasses.replace(scene.context, style="photo")
            )
        captions = [scene.caption(said) for _ in range(CAPTIONS)]
        out.append((scene, captions, caption(scene.identities, scene.context, named, names=NAMES)))
    return out


def _chunk(task: tuple[Path, int, int, int, str]) -> None:
    folder, seed, start, stop, split = task
    path = folder / f"{start:07d}.npz"
    if path.exists():
        return
    scenes = [item for index in range(start, stop) for item in _pair(seed, index, split)]
    arrays: dict[str, Any] = {"pictures": np.stack([scene.render() for scene, _, _ in scenes])}
    arrays |= spoken(scenes)
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def spoken(scenes: Sequence[tuple[Scene, list[str], str]]) -> dict[str, np.ndarray]:
    """All of `Scenes` but the pictures, from scenes with their captions."""
    tokenizer = make_tokenizer()

    def ids(texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, padding="max_length", truncation=True, max_length=CONTEXT)[
            "input_ids"
        ]

    codes = np.zeros((len(scenes), len(NAMES), code_width()), np.float16)
    for k, (scene, _, _) in enumerate(scenes):
        for place, one in enumerate(scene.identities):
            codes[k, place] = code_of(one)
    return {
        "ids": np.array([ids(texts) for _, texts, _ in scenes], np.int16),
        "people": np.array(
            [len(s.identities) == 1 and s.identities[0].domain == "person" for s, _, _ in scenes]
        ),
        "named": np.array(ids([text for _, _, text in scenes]), np.int16),
        "codes": codes,
    }


def render_scenes(
    folder: Path, *, pairs: int, seed: int = 0, split: str = "training", workers: int = 2
) -> None:
    """Write ``pairs`` pairs of pictures in chunks; chunks that exist are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [
        (folder, seed, start, min(start + _CHUNK, pairs), split)
        for start in range(0, pairs, _CHUNK)
    ]
    with ProcessPoolExecutor(workers) as pool:
        for done, _ in enumerate(pool.map(_chunk, tasks), 1):
            print(json.dumps({"chunks": done, "of": len(tasks)}), flush=True)


def load_scenes(folder: Path) -> Scenes:
    """All chunks of ``folder`` in order."""
    chunks = [np.load(path) for path in sorted(folder.glob("[0-9]*[0-9].npz"))]
    if not chunks:
        raise FileNotFoundError(f"no rendered scenes in {folder}: run the stage 'data' first")
    pictures = np.empty((sum(len(c["people"]) for c in chunks), SIZE, SIZE, 3), np.uint8)
    at = 0
    for chunk in chunks:
        part = chunk["pictures"]
        pictures[at : at + len(part)] = part
        at += len(part)
    return Scenes(
        pictures=pictures,
        ids=np.concatenate([c["ids"] for c in chunks]).astype(np.int64),
        people=np.concatenate([c["people"] for c in chunks]),
        named=np.concatenate([c["named"] for c in chunks]).astype(np.int64),
        codes=np.concatenate([c["codes"] for c in chunks]),
    )
