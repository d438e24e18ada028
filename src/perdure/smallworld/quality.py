"""How good the base is, on identities and prompts that no training stage has learned from.

Three sets of held-out scenes, identities disjoint: A is rendered, and drawn from its prompts; B is
rendered, the reference of the distances; C holds two photographs of each of many identities. What
the world's own renderer scores stands beside what the base scores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from perdure.measuring.features import MetricEncoder
from perdure.measuring.scores import auc, frechet, mmd
from perdure.quiet import StableDiffusionPipeline
from perdure.smallworld.figures import Quality
from perdure.smallworld.identities import check_seed, generator
from perdure.smallworld.recognition import measure_recognition, scene_prompt
from perdure.smallworld.train.vae import psnr
from perdure.smallworld.world import (
    ACCESSORIES,
    BACKGROUNDS,
    DOMAINS,
    EXPRESSIONS,
    SIZE,
    SPLITS,
    STYLES,
    Context,
    Scene,
    identity,
    references,
)

__all__ = [
    "Quality",
    "draw",
    "held_out_scenes",
    "measure_quality",
    "reconstruction_psnr",
    "verification_auc",
]

COLUMNS = 12
GAP = 2
_TAG = 5  # keeps these draws apart from the world's own

Progress = Callable[[str], None]


def held_out_scenes(domain: str, seeds: Sequence[int], rng: np.random.Generator) -> list[Scene]:
    """One scene an identity; over the list every word of every attribute is equally frequent."""

    def even(values: Sequence[str]) -> list[str]:
        return [values[i % len(values)] for i in rng.permutation(len(seeds))]

    contexts = zip(
        even(BACKGROUNDS),
        even(ACCESSORIES[domain]),
        even(EXPRESSIONS if domain == "person" else ("neutral",)),
        even(tuple(STYLES)),
        strict=True,
    )
    return [
        Scene(
            identities=(identity(domain, seed),),
            context=Context(background=place, accessory=worn, expression=face, style=style),
            render_seed=int(rng.integers(0, 2**62)),
        )
        for seed, (place, worn, face, style) in zip(seeds, contexts, strict=True)
    ]


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKL, pictures: Tensor, batch: int = 32) -> Tensor:
    """PSNR in dB, (N,), of uint8 pictures (N, H, W, 3) encoded (mode) and decoded."""
    done = []
    model: Any = vae  # type checkers do not see that it is a torch module
    weights = next(model.parameters())
    for part in pictures.split(batch):
        x = part.permute(0, 3, 1, 2).to(weights.device).float() / 127.5 - 1
        y = model.decode(model.encode(x.to(weights.dtype)).latent_dist.mode()).sample
        done.append(psnr(x, y.float()).cpu())
    return torch.cat(done)


def verification_auc(features: Tensor) -> float:
    """Probability that two pictures of one identity are nearer than two of different ones.

    Rows 2k and 2k + 1 of ``features`` (2 n, d), unit vectors, show one identity. Positive pairs are
    these n; negative pairs are the n (n - 1) of a first picture and another identity's second one.
    """
    cosine = features[0::2] @ features[1::2].T
    same = torch.eye(len(cosine), dtype=torch.bool)
    return auc(cosine[same], cosine[~same])


def draw(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int,
    guidance: float,
    batch: int,
    autocast: bool = False,
    progress: Progress | None = None,
) -> Tensor:
    """uint8 (N, 64, 64, 3) by the stock pipeline call; one CPU generator a picture.

    ``autocast`` runs the call under bf16 autocast. The pipeline's progress bar is off meanwhile.
    """
    stock: Any = pipeline  # type checkers do not see its members
    bar = dict(getattr(stock, "_progress_bar_config", {}))
    stock.set_progress_bar_config(disable=True)
    done: list[Tensor] = []
    try:
        for start in range(0, len(prompts), batch):
            part = slice(start, start + batch)
            with torch.autocast(stock.device.type, torch.bfloat16, enabled=autocast):
                pictures = stock(
                    list(prompts[part]),
                    height=SIZE,
                    width=SIZE,
                    num_inference_steps=steps,
                    guidance_scale=guidance,
                    generator=[torch.Generator().manual_seed(seed) for seed in seeds[part]],
                    output_type="np",
                ).images
            done.append(torch.from_numpy((pictures * 255 + 0.5).clip(0, 255).astype(np.uint8)))
            if progress:
                progress(f"drawn {min(start + batch, len(prompts))} of {len(prompts)} pictures")
    finally:
        stock.set_progress_bar_config(**bar)
    return torch.cat(done)


def _psnr(
    vae: AutoencoderKL,
    scenes: Sequence[Scene],
    renders: Tensor,
    people: Tensor,
    batch: int,
) -> dict[str, float]:
    values = reconstruction_psnr(vae, renders, batch)

    def mean_where(chosen: Sequence[bool]) -> float:
        return values[torch.tensor(chosen)].double().mean().item()

    means = {"all": values.double().mean().item()}
    for domain in DOMAINS:
        means[domain] = mean_where([scene.identities[0].domain == domain for scene in scenes])
    for style in STYLES:
        chosen = [scene.context.style == style for scene in scenes]
        if any(chosen):
            means[style] = mean_where(chosen)
    means["photos of people"] = reconstruction_psnr(vae, people, batch).double().mean().item()
    return means


def _grid(scenes: Sequence[Scene], renders: Tensor, drawn: Tensor) -> tuple[Image.Image, list]:
    """The grid, and for each domain the indices of its columns' scenes."""
    columns = [
        [i for i, scene in enumerate(scenes) if scene.identities[0].domain == domain][:COLUMNS]
        for domain in DOMAINS
    ]
    cell = SIZE + GAP
    width = max(len(index) for index in columns)
    grid = Image.new("RGB", (width * cell + GAP, 2 * len(DOMAINS) * cell + GAP), "white")
    for row, index in enumerate(columns):
        for x, i in enumerate(index):
            for below, pictures in enumerate((renders, drawn)):
                corner = (GAP + x * cell, GAP + (2 * row + below) * cell)
                grid.paste(Image.fromarray(pictures[i].numpy()), corner)
    return grid, columns


def measure_quality(
    pipeline: StableDiffusionPipeline,
    encoder: MetricEncoder,
    *,
    pictures: int = 512,
    identities: int = 300,
    seed: int = 0,
    steps: int = 25,
    guidance: float = 3.0,
    batch: int = 32,
    autocast: bool = False,
    progress: Progress | None = None,
) -> Quality:
    """Measure the base on held-out identities and prompts; the same seed asks for the same.

    ``pictures`` are drawn, and rendered twice over (sets A and B), equally many of each domain; two
    photographs of each of ``identities`` a domain are rendered for the verification. ``autocast``
    draws under bf16 autocast; all else runs in the dtype of the weights. ``progress`` is called
    with one line now and then. Raises ValueError for fewer than two pictures or identities a
    domain, and for a count, step or batch that is out of range.
    """
    least = {
        "pictures": (pictures, 2 * len(DOMAINS)),
        "identities": (identities, 2),
        "steps": (steps, 1),
        "batch": (batch, 1),
    }
    for name, (value, bound) in least.items():
        if value < bound:
            raise ValueError(f"{name}: {value} is too few; give at least {bound}")
    split = SPLITS["held-out"]
    share = -(-pictures // len(DOMAINS))
    if 2 * share + identities > len(split):
        raise ValueError(
            f"pictures: {pictures} with {identities} identities need more than the {len(split)} "
            "held-out identities of a domain; ask for fewer"
        )
    check_seed("seed", seed)
    stock: Any = pipeline

    def say(line: str) -> None:
        if progress:
            progress(line)

    say("rendering held-out scenes")
    a: list[Scene] = []
    b: list[Scene] = []
    photos: dict[str, Tensor] = {}
    for k, domain in enumerate(DOMAINS):
        rng = generator(_TAG, k, seed)
        who = [split[i] for i in rng.permutation(len(split))]
        count = pictures // len(DOMAINS) + (k < pictures % len(DOMAINS))
        a += held_out_scenes(domain, who[:count], rng)
        b += held_out_scenes(domain, who[count : 2 * count], rng)
        pairs = [
            picture
            for one in who[2 * count : 2 * count + identities]
            for picture, _ in references(domain, one, 2, seed)
        ]
        photos[domain] = torch.from_numpy(np.stack(pairs))
    renders_a, renders_b = (
        torch.from_numpy(np.stack([scene.render() for scene in scenes])) for scenes in (a, b)
    )
    say("autoencoder: PSNR")
    decibels = _psnr(stock.vae, a, renders_a, photos["person"], batch)
    areas = {}
    for domain in DOMAINS:
        say(f"identity verification: {domain}")
        areas[domain] = verification_auc(encoder.identities(photos[domain]))
    prompts = [scene_prompt(scene) for scene in a]
    began = time.perf_counter()
    drawn = draw(
        pipeline,
        prompts,
        [scene.render_seed for scene in a],
        steps=steps,
        guidance=guidance,
        batch=batch,
        autocast=autocast,
        progress=progress,
    )
    seconds = time.perf_counter() - began
    say("recognition and distances")
    features, real_a, real_b = (encoder.pictures(some) for some in (drawn, renders_a, renders_b))
    grid, columns = _grid(a, renders_a, drawn)
    return Quality(
        psnr=decibels,
        auc=areas,
        identities=identities,
        recognition=measure_recognition(encoder, a, features, real_a),
        mmd=mmd(features, real_b),
        mmd_renders=mmd(real_a, real_b),
        frechet=frechet(features, real_b),
        frechet_renders=frechet(real_a, real_b),
        pictures_per_second=pictures / seconds,
        pictures=pictures,
        seed=seed,
        steps=steps,
        guidance=guidance,
        batch=batch,
        autocast=autocast,
        device=str(stock.device),
        threads=torch.get_num_threads(),
        encoder=encoder.name,
        grid=grid,
        grid_prompts=tuple(tuple(prompts[i] for i in index) for index in columns),
    )
