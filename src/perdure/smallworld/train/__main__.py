"""`python -m perdure.smallworld.train STAGE`: data, clip, vae, unet, decoder, assemble."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import os
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import safe_open

from perdure.smallworld.train.assemble import assemble, make_text_encoder, normalise_latents
from perdure.smallworld.train.clip import train_clip
from perdure.smallworld.train.data import load_scenes, render_scenes
from perdure.smallworld.train.loop import Schedule
from perdure.smallworld.train.unet import train_unet
from perdure.smallworld.train.vae import train_vae, tune_decoder

CHECKPOINT = "checkpoint.safetensors"
WEIGHTS = Path(__file__).parents[1] / "weights"
SCHEDULES = {
    "clip": Schedule(steps=800, lr=1e-3, warmup=60, weight_decay=0.05, save_every=100),
    "vae": Schedule(steps=4500, lr=2e-3, ema=0.99, weight_decay=0.0),
    "decoder": Schedule(steps=4500, lr=1e-3, ema=0.995, weight_decay=0.0),
    "unet": Schedule(steps=4000, lr=1e-3, ema=0.998, decay=0.3, save_every=200),
}


def main() -> None:
    """Run one stage in a work folder."""
    parser = argparse.ArgumentParser(prog="python -m perdure.smallworld.train")
    parser.add_argument("stage", choices=("data", "clip", "vae", "decoder", "unet", "assemble"))
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
    clip = train_clip(scenes, held_out, work / "clip", finished(work / "clip"))
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
    unet = train_unet(latent_vae, text_encoder, scenes, folder, finished(folder, ema=0.998))
    assemble(clip, latent_vae, unet, options.out)


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
