"""A sheet of drawings to look at: short prompts of every kind, and renders beside full ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from perdure.quiet import StableDiffusion3Pipeline
from perdure.smallworld import objects, places
from perdure.smallworld.flow.names import name_of
from perdure.smallworld.flow.scenes import make_scene
from perdure.smallworld.vocabulary import SIZE
from perdure.smallworld.world import Identity, references

__all__ = ["COLUMNS", "draw", "draw_sheet", "short_prompts"]

COLUMNS = 10


def short_prompts() -> dict[str, list[str]]:
    """``a photo of a robot`` and its like, `COLUMNS` of each kind."""
    nouns = {
        "person": ["person"],
        "pet": ["cat", "dog"],
        "place": list(places.KINDS),
        "object": list(objects.KINDS),
    }
    return {
        kind: [f"a photo of a {words[k % len(words)]}" for k in range(COLUMNS)]
        for kind, words in nouns.items()
    }


@torch.no_grad()
def draw(
    pipeline: StableDiffusion3Pipeline,
    prompts: list[str],
    *,
    seed: int = 0,
    steps: int = 16,
    guidance: float = 3.0,
    zeros: int = 1,
) -> np.ndarray:
    """Draw each prompt once: uint8 (N, 64, 64, 3). ``zeros`` is the pipeline's
    ``max_sequence_length``; with 256, its default, a picture takes several times as long."""
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        prompts,
        height=SIZE,
        width=SIZE,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(seed + k) for k in range(len(prompts))],
        max_sequence_length=zeros,
        output_type="np",
    ).images
    return (drawn * 255 + 0.5).astype(np.uint8)


def _row(pictures: np.ndarray) -> np.ndarray:
    return np.concatenate(list(pictures), axis=1)


def draw_sheet(pipeline: StableDiffusion3Pipeline, path: Path, *, steps: int = 16) -> None:
    """Write a PNG: two rows of short prompts a kind, then renders above drawings of full prompts
    of held-out scenes, then renders of known people and pets above drawings of their names."""
    rows = []
    for prompts in short_prompts().values():
        rows += [_row(draw(pipeline, prompts, seed=seed, steps=steps)) for seed in (0, 100)]
    rng = np.random.default_rng(7)
    for _ in range(2):
        scenes = [make_scene(rng, "held-out") for _ in range(COLUMNS)]
        rows.append(_row(np.stack([scene.render() for scene in scenes])))
        said = [scene.caption(rng) for scene in scenes]
        rows.append(_row(draw(pipeline, said, steps=steps)))
    known = [Identity(kind, k) for k in range(1, 6) for kind in ("person", "object")]
    rows.append(_row(np.stack([references(one.domain, one.seed, 1)[0][0] for one in known])))
    rows.append(_row(draw(pipeline, [f"a photo of {name_of(one)}" for one in known], steps=steps)))
    sheet = np.concatenate(rows)
    Image.fromarray(sheet).resize((sheet.shape[1] * 2, sheet.shape[0] * 2), 0).save(path)
