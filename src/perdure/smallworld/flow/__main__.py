"""`python -m perdure.smallworld.flow STAGE`: scenes, train, export, sheet, gpu."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from perdure.smallworld.flow.forward import block_forward
from perdure.smallworld.flow.gpu import train_on_gpu
from perdure.smallworld.flow.model import FlowModel, make_pipeline
from perdure.smallworld.flow.scenes import open_scenes, render_scenes
from perdure.smallworld.flow.sheet import draw_sheet
from perdure.smallworld.flow.train import CHECKPOINT, Plan, train
from perdure.smallworld.flow.weights import export, load_average


def main() -> None:
    """Run one stage in a work folder."""
    parser = argparse.ArgumentParser(prog="python -m perdure.smallworld.flow")
    parser.add_argument("stage", choices=("scenes", "train", "export", "sheet", "gpu"))
    parser.add_argument("--work", type=Path, default=Path("runs/smallworld-flow"))
    parser.add_argument("--chunks", type=int, default=60, help="of 5,000 scenes each")
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    parser.add_argument("--steps", type=int, default=Plan.steps, help="steps in all")
    parser.add_argument("--batch", type=int, default=Plan.batch)
    parser.add_argument("--minutes", type=float, help="stop after so long")
    parser.add_argument("--without-names", action="store_true")
    parser.add_argument("--compile", action="store_true", help="blocks by a C++ compiler: faster")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--start", type=Path, help="weights to export, draw with or train on")
    parser.add_argument("--out", type=Path, help="where export, sheet and gpu write")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="of the stage gpu")
    options = parser.parse_args()
    work: Path = options.work
    torch.set_num_threads(options.threads)
    if options.stage == "scenes":
        render_scenes(work / "held-out", chunks=1, seed=1, split="held-out")
        render_scenes(work / "scenes", chunks=options.chunks, workers=options.workers)
    elif options.stage == "train":
        plan = Plan(
            steps=options.steps,
            batch=options.batch,
            minutes=options.minutes,
            names=not options.without_names,
        )
        torch.manual_seed(plan.seed)
        folder = work / ("train" if plan.names else "train-without-names")
        blocks = torch.compile(block_forward, dynamic=False) if options.compile else block_forward
        train(FlowModel(blocks), open_scenes(work / "scenes"), folder, plan)
    elif options.stage == "gpu":
        train_on_gpu(
            options.out or work / "gpu",
            start=options.start,
            minutes=options.minutes or 9.0,
            batch=options.batch,
            rate=options.rate,
            workers=options.workers,
            names=not options.without_names,
        )
    else:
        model = FlowModel()
        facts = load_average(model, options.start or work / "train" / CHECKPOINT)
        out: Path = options.out or work / options.stage
        print(json.dumps(facts))
        if options.stage == "export":
            export(model, out)
        else:
            draw_sheet(make_pipeline(model), out.with_suffix(".png"))


if __name__ == "__main__":
    main()
