"""What a step of learning needs on the published shapes, computed as `perdure doctor` computes it.

    python perf/fits.py

A row a model and size: gigabytes (10^9 bytes) of a step with one picture, an adapter of rank 16 on
keys and values, the text encoders at rest; with the denoiser in bf16, int8 and nf4. Nothing is
downloaded and no weight takes memory: denoisers and autoencoders are shapes alone.
"""

from __future__ import annotations

import argparse
import json
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from families import SHAPES, Shape

from perdure.hosts.diffusion.families import FAMILIES
from perdure.hosts.diffusion.family import KEYS_VALUES
from perdure.hosts.diffusion.memory import needs
from perdure.quiet import quietly

VAES: dict[str, tuple[str, dict[str, Any]]] = {
    "sdxl": ("AutoencoderKL", {"latent_channels": 4}),
    "sd35-medium": ("AutoencoderKL", {"latent_channels": 16, "shift_factor": 0.0609}),
    "klein-4b": ("AutoencoderKLFlux2", {}),
    "klein-9b": ("AutoencoderKLFlux2", {}),
    "flux-dev": ("AutoencoderKL", {"latent_channels": 16, "shift_factor": 0.1159}),
    "z-image": ("AutoencoderKL", {"latent_channels": 16, "shift_factor": 0.1159}),
}
LEVELS = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
MORE = {
    "klein-9b": Shape(
        pipeline="Flux2KleinPipeline",
        denoiser="Flux2Transformer2DModel",
        config={
            "num_layers": 8,
            "num_single_layers": 24,
            "num_attention_heads": 32,
            "joint_attention_dim": 12288,
            "guidance_embeds": False,
        },
        scheduler=SHAPES["klein-4b"].scheduler,
        states=(512, 12288),
        channels=128,
        factor=16,
        beside={},
    ),
    "flux-dev": Shape(
        pipeline="FluxPipeline",
        denoiser="FluxTransformer2DModel",
        config={"guidance_embeds": True},
        scheduler=SHAPES["klein-4b"].scheduler,
        states=(512, 4096),
        channels=16,
        factor=8,
        beside={},
    ),
}


def bare(name: str, shape: Shape) -> Any:
    """What `needs` asks of a base, on shapes alone."""
    family = next(f for f in FAMILIES if shape.pipeline in f.pipelines)
    kind, config = VAES[name]
    with torch.device("meta"), quietly():
        denoiser = getattr(diffusers, shape.denoiser)(**shape.config)
        levels = LEVELS if kind == "AutoencoderKL" else {}
        vae = getattr(diffusers, kind)(**config, **levels)
    encoders = family.encoders
    parts: dict[str, Any] = dict.fromkeys((*encoders, *encoders.values()))
    parts |= {family.component: denoiser, "vae": vae, "scheduler": shape.scheduler()}
    pipeline = getattr(diffusers, shape.pipeline)(**parts)
    pipeline.text_encoder_2 = SimpleNamespace(config=SimpleNamespace(projection_dim=1280))
    family = SimpleNamespace(
        **{
            part: getattr(family, part)
            for part in (
                *("component", "autoencoder", "denoiser", "layers", "features", "to_latents"),
                "predict",
            )
        },
        blank=lambda _: blank(shape),
    )
    layers = family.layers(pipeline, KEYS_VALUES)
    return SimpleNamespace(
        family=family,
        pipeline=pipeline,
        denoiser=denoiser,
        shapes={layer: of.shape for layer, of in layers.items()},
        tokens=SimpleNamespace(vocabularies=[]),
    )


def blank(shape: Shape) -> Any:
    return SimpleNamespace(
        states=torch.empty(1, *shape.states),
        beside={
            **{
                key: torch.tensor([of]) if isinstance(of, int) else torch.empty(1, *of)
                for key, of in shape.beside.items()
            },
            **({"pooled_prompt_embeds": torch.empty(1, 768)} if "Flux" in shape.pipeline else {}),
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024])
    options = parser.parse_args()
    for name, shape in {**SHAPES, **MORE}.items():
        base = bare(name, shape)
        for size in options.sizes:
            found = needs(base, (size, size))
            row = {kind: found.learning(per) for kind, per in zip(KINDS, BYTES, strict=True)}
            kept = round(found.kept / 1e9, 2)
            print(json.dumps({"model": name, "size": size, "kept_GB": kept} | rounded(row)))


KINDS, BYTES = ("bf16", "int8", "nf4"), (2.0, 1.0, 0.5625)


def rounded(row: dict[str, float]) -> dict[str, float]:
    return {kind: round(value, 1) for kind, value in row.items()}


if __name__ == "__main__":
    main()
