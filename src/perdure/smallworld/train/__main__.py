"""`python -m perdure.smallworld.train STAGE`.

From nothing: data, clip, vae, unet, assemble. On the shipped weights: vision, decoder,
further (name a copy of the weights with --out to leave the shipped ones alone).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import re
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import safe_open

from perdure.durable import replace_file
from perdure.smallworld.card import stage_facts
from perdure.smallworld.train.assemble import assemble, make_text_encoder, normalise_latents
from perdure.smallworld.train.clip import PAIRS, train_clip
from perdure.smallworld.train.data import load_scenes, render_scenes
from perdure.smallworld.train.improve import improve_decoder, improve_unet, improve_vision
from perdure.smallworld.train.loop import Schedule, leads
from perdure.smallworld.train.unet import BATCH as UNET_BATCH
from perdure.smallworld.train.unet import train_unet
from perdure.smallworld.train.vae import BATCH as VAE_BATCH
from perdure.smallworld.train.vae import train_vae
from perdure.smallworld.train.vision import VISION_PAIRS

CHECKPOINT = "checkpoint.safetensors"
WEIGHTS = Path(__file__).parents[1] / "weights"
SCRATCH = ("clip", "vae", "unet")
IN_PLACE = ("vision", "decoder", "further")
BATCHES = {
    "clip": 2 * PAIRS,
    "vae": VAE_BATCH,
    "unet": 2 * UNET_BATCH,  # two processes
    "further": 2 * UNET_BATCH,
    "vision": 2 * VISION_PAIRS,
    "decoder": VAE_BATCH,
}
SEEDS = {
    "data": 0,
    "clip": 1,
    "vae": 2,
    "unet": 3,
    "decoder": 4,
    "vision": 5,
    "further": 3,
}
SCHEDULES = {
    "clip": Schedule(steps=800, lr=1e-3, warmup=60, weight_decay=0.05, save_every=100),
    "vision": Schedule(
        steps=1400, lr=5e-4, ema=0.99, decay=0.6, warmup=50, weight_decay=0.05, save_every=100
    ),
    "vae": Schedule(steps=4500, lr=2e-3, ema=0.99, weight_decay=0.0),
    "decoder": Schedule(steps=4500, lr=1e-3, ema=0.995, weight_decay=0.0),
    "unet": Schedule(steps=1560, lr=1e-3, ema=0.998, decay=0.3, save_every=200),
    "further": Schedule(steps=6000, lr=6e-4, ema=0.999, decay=0.5, save_every=300),
}


def main() -> None:
    """Run one stage in a work folder."""
    parser = argparse.ArgumentParser(prog="python -m perdure.smallworld.train")
    parser.add_argument("stage", choices=("data", *SCRATCH, "assemble", *IN_PLACE))
    parser.add_argument("--work", type=Path, default=Path("runs/smallworld"))
    parser.add_argument("--steps", type=int, help="steps in all of this stage")
    parser.add_argument("--pairs", type=int, default=100_000, help="pairs of scenes to render")
    parser.add_argument("--seed", type=int, help="of data or further: a second run wants its own")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="the shipped weights")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    if "RANK" in os.environ:  # under torchrun: several processes share a stage
        dist.init_process_group("gloo")
    work, stage, weights = options.work, options.stage, options.out
    seed = SEEDS.get(stage, 0) if options.seed is None else options.seed
    torch.set_num_threads(options.threads)
    if stage == "data":
        render_scenes(work / "held-out", pairs=5000, seed=1, split="held-out")
        render_scenes(work / "scenes", pairs=options.pairs, seed=seed)
        return
    plan = SCHEDULES.get(stage)
    if plan and options.steps:
        plan = dataclasses.replace(plan, steps=options.steps)
    if stage in IN_PLACE:
        assert plan is not None
        improve(stage, work, plan, weights, seed)
    else:
        from_scratch(stage, work, plan, weights)


def from_scratch(stage: str, work: Path, plan: Schedule | None, weights: Path) -> None:
    """Train one of `SCRATCH`, or, for `assemble`, ship what they made; ``plan`` is that stage's."""
    scenes, held_out = load_scenes(work / "scenes"), load_scenes(work / "held-out")

    def schedule_of(name: str, ema: float | None = None) -> Schedule:
        return plan if name == stage and plan else finished(work / name, ema)

    if stage == "vae":
        train_vae(scenes, held_out, work / "vae", schedule_of("vae"))
        return
    clip = train_clip(scenes, held_out, work / "clip", schedule_of("clip"))
    if stage == "clip":
        return
    vae = train_vae(scenes, held_out, work / "vae", schedule_of("vae"))
    normalise_latents(vae, scenes)
    text_encoder = make_text_encoder(clip)
    unet = train_unet(vae, text_encoder, scenes, work / "unet", schedule_of("unet", ema=0.998))
    if stage == "unet":
        return
    assemble(clip, vae, unet, weights)
    recipe = {
        "stages": [facts_of(name, work / name, SEEDS[name]) for name in SCRATCH],
        "training_pictures": len(scenes.pictures),
        "held_out_pictures": len(held_out.pictures),
    }
    replace_file(weights / "recipe.json", (json.dumps(recipe, indent=1) + "\n").encode())


def improve(stage: str, work: Path, plan: Schedule, weights: Path, seed: int) -> None:
    """Train a part of the shipped weights further, in place, and add the stage to the recipe."""
    folder = work / stage
    if stage == "vision":
        improve_vision(folder, plan, weights)
    elif stage == "decoder":
        scenes, held_out = load_scenes(work / "scenes"), load_scenes(work / "held-out")
        improve_decoder(scenes, held_out, folder, plan, weights)
    else:
        improve_unet(load_scenes(work / "scenes"), folder, plan, weights, seed)
    if leads():
        path = weights / "recipe.json"
        recipe = json.loads(path.read_text())
        recipe["stages"].append(facts_of(stage, folder, seed))
        replace_file(path, (json.dumps(recipe, indent=1) + "\n").encode())


def facts_of(stage: str, folder: Path, seed: int) -> dict[str, object]:
    """What the recipe says of a stage that has run in ``folder``."""
    return stage_facts(folder, name=stage, batch=BATCHES[stage], seed=seed, hardware=machine())


def machine() -> str:
    """Processor and number of cores, for the model card."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"model name\s*: (.+)", cpuinfo.read_text())
        name = found[1] if found else name
    return f"{os.cpu_count()} cores, {name}"


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
