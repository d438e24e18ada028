"""`python -m perdure.smallworld.train STAGE`: data, clip, vae, unet, assemble; each stage resumes."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from perdure.smallworld.train.clip import train_clip
from perdure.smallworld.train.data import load_scenes, render_scenes
from perdure.smallworld.train.loop import Schedule
from perdure.smallworld.train.vae import train_vae


def main() -> None:
    """Run one stage in a work folder."""
    parser = argparse.ArgumentParser(prog="python -m perdure.smallworld.train")
    parser.add_argument("stage", choices=("data", "clip", "vae", "decoder", "unet", "assemble"))
    parser.add_argument("--work", type=Path, default=Path("runs/smallworld"))
    parser.add_argument("--steps", type=int, help="steps in all of this stage")
    parser.add_argument("--pairs", type=int, default=100_000, help="pairs of scenes to render")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    work: Path = options.work
    torch.set_num_threads(options.threads)
    if options.stage == "data":
        render_scenes(work / "held-out", pairs=5000, seed=1, split="held-out")
        render_scenes(work / "scenes", pairs=options.pairs)
        return
    scenes, held_out = load_scenes(work / "scenes"), load_scenes(work / "held-out")
    if options.stage == "clip":
        schedule = Schedule(steps=options.steps or 1100, lr=1e-3, save_every=100, weight_decay=0.05)
        train_clip(scenes, held_out, work / "clip", schedule)
    elif options.stage == "vae":
        schedule = Schedule(steps=options.steps or 4500, lr=2e-3, ema=0.99, weight_decay=0.0)
        train_vae(scenes, held_out, work / "vae", schedule)


if __name__ == "__main__":
    main()
