"""Do the numbers stay what they are, to the bit, when code is moved?

    python perf/hashes.py --write     # before the first move: makes perf/hashes.json
    python perf/hashes.py             # after it: says what differs, and exits with 1 where any does

For every method on smallworld: two concepts of twenty steps each, the losses of all steps, what was
kept of them, and pictures that speak of one, both and none; the methods of classification likewise,
on two tasks of drawn identities. Bits hold on one kind of processor, so the file names its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import perdure
from perdure.classification import CLASSIFIERS, ContinualClassifier, FitSettings
from perdure.drawing.regions import read_region
from perdure.machine import environment
from perdure.methods import METHODS
from perdure.smallworld.samples import write_pictures
from perdure.smallworld.world import SPLITS, references

FILE = Path(__file__).with_suffix(".json")
PEOPLE = {"ada": 1_000_000, "ben": 1_000_001}
PROMPTS = ("a photo of <ada>", "a photo of <ben> in the snow", "<ada> next to <ben>", "a dog")
BOXES = ("a photo of <ada>@0,0,0.5,1", "a photo of <ben>@0.5,0,1,1")
VARIANTS = {
    "c-lora prior, flip, accumulate": (
        "c-lora",
        {"penalty": 1e4},
        {"prior": "a photo of a person", "prior_pictures": 4, "flip": True, "accumulate": 2},
    ),
    "feature-space projected": ("feature-space", {"projection": 0.5, "gather": "mean"}, {}),
    "cidm one token for all layers": ("cidm", {"layerwise_tokens": False, "gamma2": 0.0}, {}),
    "lora cosine": ("lora", {}, {"schedule": "cosine", "weight_decay": 0.1}),
}


def digest(parts: Iterable[bytes]) -> str:
    """The first 16 digits of a SHA-256."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part)
    return whole.hexdigest()[:16]


def of_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Names, shapes and values."""

    def parts() -> Iterator[bytes]:
        for name, tensor in sorted(tensors):
            yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
            yield tensor.detach().cpu().contiguous().numpy().tobytes()

    return digest(parts())


def of_drawing(name: str) -> dict[str, str]:
    """Losses, kept tensors and pictures of one method, or of one of `VARIANTS`."""
    torch.set_num_threads(1)
    method, options, settings = VARIANTS.get(name, (name, {}, {}))
    found = {}
    base = perdure.Base.open("smallworld", device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        photos = {who: Path(folder, who) for who in PEOPLE}
        for who, identity in PEOPLE.items():
            write_pictures(photos[who], domain="person", identity=identity, count=4)
        together = METHODS[method].all_at_once
        tasks = [photos] if together else [{who: photos[who]} for who in PEOPLE]
        bank = Path(folder, "bank")
        for task in tasks:
            perdure.learn(
                base, bank, task, method=method, options=options, steps=20, batch_size=2, **settings
            )
        opened = perdure.Bank.open(bank)
        for record in opened.tasks:
            tensors, tokens = opened.read(record)
            rows = {name: token.rows for name, token in tokens.items()}
            who = "+".join(record.concepts)
            log = opened.task_folder(record) / "log.jsonl"
            found[f"losses {who}"] = digest([log.read_bytes()])
            found[f"kept {who}"] = of_tensors([*tensors.items(), *rows.items()])
        shared = opened.composition()
        found["shared"] = of_tensors(shared.items())
        painter = perdure.Painter(base, opened)
        pictures = painter.draw(list(PROMPTS), seeds=range(len(PROMPTS)), steps=4)
        regions = [read_region(box) for box in BOXES]
        boxed = painter.draw(["a photo of two people"], seeds=[7], steps=4, regions=regions)
        for prompt, picture in zip((*PROMPTS, "boxes"), (*pictures, *boxed), strict=True):
            found[f"picture {prompt}"] = digest([np.asarray(picture).tobytes()])
    return found


def of_classifying(name: str) -> dict[str, str]:
    """What is kept and what is said of two tasks of four classes each."""
    torch.set_num_threads(1)
    options = {"components": 2} if name == "coda-prompt" else {}
    made = ContinualClassifier(
        method=name,
        options=options,
        expected=None if options else 2,
        settings=FitSettings(epochs=2, batch_size=8),
    )
    start, found, seen = SPLITS["tuning"].start, {}, []
    losses: list[float] = []
    for task in range(1 if name == "joint" else 2):
        classes = [("person", start + 4 * task + k) for k in range(4)]
        pictures = [[p for p, _ in references(*one, 6, 0)] for one in classes]
        labels = [f"{task}-{k}" for k, of in enumerate(pictures) for _ in of]
        flat = [picture for of in pictures for picture in of]
        seen += flat[::3]
        made.fit_task(flat, labels, report=lambda p: losses.extend([p.loss, p.penalty, p.norm]))
    found["losses"] = digest([repr(losses).encode()])
    for number, kept in enumerate(made.kept):
        found[f"kept {number}"] = of_tensors(kept.tensors.items())
    found["head"] = of_tensors([("weight", made.weight), ("bias", made.bias)])
    found["said"] = digest([made.decision_function(seen).tobytes()])
    return found


def measured(cell: tuple[str, str]) -> dict[str, str]:
    """One cell's hashes, in a process of its own."""
    kind, name = cell
    return of_drawing(name) if kind == "drawing" else of_classifying(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="make the file anew")
    parser.add_argument("--only", default="", help="cells whose name holds this")
    options = parser.parse_args()
    cells = [("drawing", name) for name in (*METHODS, *VARIANTS)]
    cells += [("classifying", name) for name in CLASSIFIERS]
    cells = [cell for cell in cells if options.only in " ".join(cell)]
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(2) as pool:
        found = dict(zip(map(" ".join, cells), pool.map(measured, cells), strict=True))
    machine = environment(torch.device("cpu"))
    about = {key: machine[key] for key in ("machine", "precision", "torch", "diffusers")}
    if options.write:
        FILE.write_text(json.dumps({"made on": about, "hashes": found}, indent=1) + "\n")
        return
    before = json.loads(FILE.read_text())
    if before["made on"] != about:
        print(f"The file was made on {before['made on']}, this is {about}: bits may differ.")
    different = [
        f"{cell}: {what}"
        for cell, hashes in found.items()
        for what in sorted(hashes | before["hashes"].get(cell, {}))
        if hashes.get(what) != before["hashes"].get(cell, {}).get(what)
    ]
    print("\n".join(different) or f"all {sum(map(len, found.values()))} hashes are equal")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
