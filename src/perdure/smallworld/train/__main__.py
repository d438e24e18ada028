"""`python -m perdure.smallworld.train STAGE`: data, clip, vae, unet, decoder, assemble."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import os
import platform
import re
from pathlib import Path

import torch
import torch.distributed as dist
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from safetensors import safe_open

from perdure.smallworld.card import stage_facts
from perdure.smallworld.train.assemble import assemble, make_text_encoder, normalise_latents
from perdure.smallworld.train.clip import GROUP, GROUPS, PAIRS, train_clip, tune_vision
from perdure.smallworld.train.data import Scenes, load_scenes, render_scenes
from perdure.smallworld.train.loop import Schedule
from perdure.smallworld.train.unet import BATCH as UNET_BATCH
from perdure.smallworld.train.unet import train_unet
from perdure.smallworld.train.vae import BATCH as VAE_BATCH
from perdure.smallworld.train.vae import train_vae, tune_decoder

CHECKPOINT = "checkpoint.safetensors"
WEIGHTS = Path(__file__).parents[1] / "weights"
BATCHES = {
    "clip": 2 * PAIRS,
    "vae": VAE_BATCH,
    "unet": 2 * UNET_BATCH,  # two processes
    "further": 2 * UNET_BATCH,
    "vision": PAIRS + GROUPS * GROUP,
    "decoder": VAE_BATCH,
}
SEEDS = {"clip": 1, "vae": 2, "unet": 3, "decoder": 4, "vision": 5, "further": 3}
SCHEDULES = {
    "clip": Schedule(steps=800, lr=1e-3, warmup=60, weight_decay=0.05, save_every=100),
    "vision": Schedule(steps=200, lr=4e-4, decay=0.5, warmup=30, save_every=50),
    "vae": Schedule(steps=4500, lr=2e-3, ema=0.99, weight_decay=0.0),
    "decoder": Schedule(steps=4500, lr=1e-3, ema=0.995, weight_decay=0.0),
    "unet": Schedule(steps=1560, lr=1e-3, ema=0.998, decay=0.3, save_every=200),
    "further": Schedule(steps=4000, lr=6e-4, ema=0.999, decay=0.5, save_every=200),
}


def main() -> None:
    """Run one stage in a work folder."""
    parser = argparse.ArgumentParser(prog="python -m perdure.smallworld.train")
    parser.add_argument(
        "stage", choices=("data", "clip", "vision", "vae", "decoder", "unet", "assemble", "further")
    )
    parser.add_argument("--work", type=Path, default=Path("runs/smallworld"))
    parser.add_argument("--steps", type=int, help="steps in all of this stage")
    parser.add_argument("--pairs", type=int, default=100_000, help="pairs of scenes to render")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where assemble writes")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    if "RANK" in os.environ:  # under torchrun: several processes share a stage
        dist.init_process_group("gloo")
    work: Path = options.work
    torch.set_num_threads(options.threads)
    if options.stage == "data":
        render_scenes(work / "held-out", pairs=5000, seed=1, split="held-out")
        render_scenes(work / "scenes", pairs=options.pairs)
        return
    scenes, held_out = load_scenes(work / "scenes"), load_scenes(work / "held-out")
    schedule = SCHEDULES.get(options.stage)
    if schedule and options.steps:
        schedule = dataclasses.replace(schedule, steps=options.steps)
    if options.stage == "clip":
        train_clip(scenes, held_out, work / "clip", schedule or SCHEDULES["clip"])
        return
    if options.stage == "vae":
        train_vae(scenes, held_out, work / "vae", schedule or SCHEDULES["vae"])
        return
    if options.stage == "further":
        train_further(scenes, work / "further", schedule or SCHEDULES["further"], options.out)
        return
    clip = train_clip(scenes, held_out, work / "clip", finished(work / "clip"))
    if options.stage == "vision":
        tune_vision(clip, scenes, work / "vision", schedule or SCHEDULES["vision"])
        return
    vae = train_vae(scenes, held_out, work / "vae", finished(work / "vae"))
    if options.stage == "decoder":
        tune_decoder(vae, scenes, held_out, work / "decoder", schedule or SCHEDULES["decoder"])
        return
    latent_vae = copy.deepcopy(vae)
    normalise_latents(latent_vae, scenes)
    text_encoder = make_text_encoder(clip)
    folder = work / "unet"
    if options.stage == "unet":
        plan = schedule or SCHEDULES["unet"]
        train_unet(latent_vae, text_encoder, scenes, folder, plan)
        return
    if (work / "decoder" / CHECKPOINT).exists():
        tune_decoder(vae, scenes, held_out, work / "decoder", finished(work / "decoder"))
        normalise_latents(vae, scenes)
        latent_vae = vae
    if (work / "vision" / CHECKPOINT).exists():
        tune_vision(clip, scenes, work / "vision", finished(work / "vision"))
    unet = train_unet(latent_vae, text_encoder, scenes, folder, finished(folder, ema=0.998))
    assemble(clip, latent_vae, unet, options.out)
    stages = [
        stage_facts(
            work / name, name=name, batch=BATCHES[name], seed=SEEDS[name], hardware=machine()
        )
        for name in ("clip", "vae", "unet", "vision", "decoder")
        if (work / name / "log.jsonl").exists()
    ]
    recipe = {
        "stages": stages,
        "training_pictures": len(scenes.pictures),
        "held_out_pictures": len(held_out.pictures),
    }
    (options.out / "recipe.json").write_text(json.dumps(recipe, indent=1) + "\n")


def machine() -> str:
    """Processor and number of cores, for the model card."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"model name\s*: (.+)", cpuinfo.read_text())
        name = found[1] if found else name
    return f"{os.cpu_count()} cores, {name}"


def train_further(scenes: Scenes, folder: Path, schedule: Schedule, weights: Path) -> None:
    """Train the shipped U-Net further on the shipped autoencoder and text encoder, in place."""
    pipeline = StableDiffusionPipeline.from_pretrained(weights / "base", dtype=torch.float32)
    pipeline.unet.set_attn_processor(AttnProcessor())
    parts = pipeline.vae, pipeline.text_encoder
    unet = train_unet(*parts, scenes, folder, schedule, start=pipeline.unet)
    if dist.is_initialized() and dist.get_rank() > 0:
        return
    unet.half().save_pretrained(weights / "base" / "unet")
    recipe = json.loads((weights / "recipe.json").read_text())
    seed, batch = SEEDS["further"], BATCHES["further"]
    recipe["stages"].append(
        stage_facts(folder, name="further", batch=batch, seed=seed, hardware=machine())
    )
    (weights / "recipe.json").write_text(json.dumps(recipe, indent=1) + "\n")


def finished(folder: Path, ema: float | None = None) -> Schedule:
    """A schedule that ends where the checkpoint of ``folder`` stands: nothing is left to train."""
    path = folder / CHECKPOINT
    if not path.exists():
        raise SystemExit(f"{path} is missing: run that stage first.")
    with safe_open(path, "pt") as file:
        step = json.loads(file.metadata()["facts"])["step"]
        averaged = any(key.startswith("extra/") for key in file.keys())  # noqa: SIM118
    return Schedule(steps=step, lr=0.0, ema=(ema or 0.99) if averaged else 0.0)


if __name__ == "__main__":
    main()
