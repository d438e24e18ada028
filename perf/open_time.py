"""What does it cost to open a bank, to draw from it and to begin to learn, when it is full?

    python perf/open_time.py --concepts 10 100 1000

Fabricates banks of the embedded base's shapes (random factors, nothing is trained) and prints
seconds, of opening and drawing also those that the process computed ("cpu": on a machine that does
much else the clock says little), and by how many MB the peak memory of a fresh process rose above
the opened base. "learn"
is all that comes before the first training step; the first one makes what the next goes on from.
Each measurement runs in a fork, so this needs Linux.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch

import perdure.learning.learn as teaching
from perdure.adapters.prompts import WORD
from perdure.bank import Bank, TaskRecord
from perdure.bank_format import ConceptFile, State, to_bytes
from perdure.drawing.painter import Painter
from perdure.hosts.diffusion.host import Base
from perdure.smallworld.samples import write_pictures


class Began(Exception):
    """A learn has come to its first training step."""


def fabricate(path: Path, base: Base, concepts: int, method: str) -> State:
    """The files of a bank with one task a concept: `A` and `B` a layer, for the methods here."""
    config = teaching.build_method(method, base).describe()["config"]
    bank = Bank.create(path, base=base.identity, method=method, config=config)
    generator, rank = torch.Generator().manual_seed(0), config["rank"]
    state, files = State(base=bank.base, method=method, config=config, files={}), {}
    tasks = []
    for k in range(concepts):
        name = f"c{k}"
        tensors = {}
        for layer, (d_out, d_in) in base.shapes.items():
            tensors[f"{layer}/A"] = 1e-3 * torch.randn(d_out, rank, generator=generator)
            tensors[f"{layer}/B"] = 1e-3 * torch.randn(rank, d_in, generator=generator)
        task = TaskRecord(folder=f"{k + 1:02d}-{name}", concepts=(name,), facts={"seconds": 1.0})
        token = base.tokens.token(WORD, base.tokens.random(WORD, generator), 1.0)
        data, sha256 = to_bytes(state, task, name, tensors, token)
        files[name] = ConceptFile(name="concept.safetensors", sha256=sha256)
        (path / "concepts" / name).mkdir()
        (path / "concepts" / name / files[name].name).write_bytes(data)
        (path / "tasks" / task.folder).mkdir()
        tasks.append(task)
    return replace(state, tasks=tuple(tasks), files=files)


def the_first(state: State, concepts: int) -> str:
    """A bank.json that lists only so many of the tasks."""
    return replace(state, tasks=state.tasks[:concepts]).to_json()


def drawn(base: Base, path: Path, photos: Path) -> dict[str, float]:
    """Open the bank and draw one picture of its first concept in one denoising step."""
    marks = [(time.perf_counter(), time.process_time())]
    painter = Painter(base, path)
    marks.append((time.perf_counter(), time.process_time()))
    painter.draw(["a photo of <c0>"], seeds=[0], steps=1)
    marks.append((time.perf_counter(), time.process_time()))
    (began, first), (opened, before), (ended, after) = marks
    return {
        **{"open": opened - began, "open cpu": before - first},
        **{"draw": ended - opened, "draw cpu": after - before},
    }


def learned(base: Base, path: Path, photos: Path) -> dict[str, float]:
    """Begin to learn one more concept."""

    def stop(*args: object, **options: object) -> None:
        raise Began

    teaching.train = stop
    began = time.perf_counter()
    try:
        teaching.learn(base, path, {"new": photos})
    except Began:
        return {"learn": time.perf_counter() - began}
    raise AssertionError("it never began")


def in_a_fork(work: Callable[..., dict[str, float]], *given: object) -> dict[str, float]:
    """What the work returns, and MB by which the fork grew."""
    fork = get_context("fork")
    ours, theirs = fork.Pipe()

    def run() -> None:
        before = peak()
        row = work(*given)
        theirs.send({**row, "MB": peak() - before})

    process = fork.Process(target=run)
    process.start()
    row: dict[str, float] = ours.recv()
    process.join()
    return row


def peak() -> float:
    """MB of this process at its largest so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--concepts", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--methods", nargs="+", default=["c-lora", "gated"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    base = Base.open(device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        write_pictures(photos, domain="person", identity=1_000_000)
        for method in options.methods:
            path = Path(folder) / method
            state = fabricate(path, base, max(options.concepts), method)
            # A writer sweeps what bank.json does not list, so the bank shrinks.
            for count in sorted(options.concepts, reverse=True):
                (path / "bank.json").write_text(the_first(state, count))
                shutil.rmtree(path / ".derived", ignore_errors=True)
                Bank.open(path).clear_workspace()  # and sweeps
                for what, work in (("first learn", learned), ("learn", learned), ("draw", drawn)):
                    row = in_a_fork(work, base, path, photos)
                    shutil.rmtree(path / ".learning", ignore_errors=True)
                    rounded = {name: round(value, 3) for name, value in row.items()}
                    about = {"method": method, "concepts": count, "what": what}
                    print(json.dumps({**about, **rounded}), flush=True)


if __name__ == "__main__":
    main()
