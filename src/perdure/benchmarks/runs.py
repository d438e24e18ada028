"""One run: a method over a stream of concepts with one seed, its measurements, its record."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from perdure.bank import Bank
from perdure.benchmarks.streams import Stream
from perdure.benchmarks.together import together
from perdure.checkpoint import write_atomically
from perdure.hosts.diffusion.host import Base
from perdure.learning.advice import advised, make_settings
from perdure.learning.learn import at_once, learn, resume
from perdure.learning.request import interrupted
from perdure.machine import peak_memory
from perdure.measuring.cost import what_it_cost
from perdure.measuring.evaluate import Evaluation, evaluate
from perdure.measuring.features import MetricEncoder
from perdure.methods import Kept, build
from perdure.outputs import output_folder
from perdure.sheet import grid

__all__ = ["FORMAT", "SHOWN", "Run", "run", "teach"]

FORMAT = 2
SHOWN = 10
"""Concepts in the strip of pictures beside a record."""
QUALITY = 92
"""WebP's, of the strips, which are for looking at: the scores are of the pictures as drawn."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One cell of a grid of runs. Its record is the sign that it is finished."""

    record: Path
    """JSON; beside it, as .webp, what was drawn right after learning and at the end."""
    work: Path
    """Folder of the bank and of the drawn pictures; a run that was cut short goes on from it."""
    stream: Stream
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """The method's own."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The loop's, such as lr."""
    seed: int = 0
    base: str = "smallworld"
    encoder: str | None = None
    device: str | None = None
    dtype: str | None = None
    config: str | None = None
    """As for `Base.open`."""
    pictures: int = 8
    """Drawn of each concept at each moment."""
    moments: Literal["all", "milestones"] = "all"
    """As in `evaluate`."""
    pairs: int = 0
    """How many groups of each kind are drawn together at the end."""
    held_out: bool = True
    """As in `evaluate`."""
    threads: int = 1

    @property
    def asked(self) -> dict[str, Any]:
        """With what it is measured, in the caller's words; the record has them too."""
        return {
            "base": self.base,
            "encoder": self.encoder,
            "pictures": self.pictures,
            "pairs": self.pairs,
            "held_out": self.held_out,
            **({"dtype": self.dtype} if self.dtype else {}),
        }


def run(cell: Run) -> dict[str, Any]:
    """Teach, measure, and return the record, JSON-ready."""
    torch.set_num_threads(cell.threads)
    base = Base.open(
        cell.base,
        encoder=cell.encoder,
        device=cell.device,
        dtype=cell.dtype,
        config=cell.config,
    )
    encoder = MetricEncoder.of(base)
    sources = cell.stream.sources(cell.work / "photos")
    bank = teach(
        base,
        cell.stream,
        sources,
        cell.work / "bank",
        method=cell.method,
        options=cell.options,
        seed=cell.seed,
        compositions=cell.work / "compositions",
        **cell.settings,
    )
    then = read_compositions(cell.work / "compositions")
    began = time.monotonic()
    evaluation = evaluate(
        base,
        bank,
        encoder,
        references=sources,
        phrases=cell.stream.phrases,
        styles=cell.stream.styles,
        compositions=then,
        moments=cell.moments,
        pictures=cell.pictures,
        held_out=cell.held_out,
        seed=1000 + 100 * cell.seed,
    )
    company, sheets = (
        together(base, bank, encoder, cell.stream, sources, count=cell.pairs)
        if cell.pairs
        else ({}, {})
    )
    output_folder(cell.record.parent)
    if rows := sheets.get("pairs"):
        sheet = cell.record.with_name(cell.record.stem + "-together.webp")
        grid([one for row in rows for one in row], columns=len(rows[0])).save(
            sheet, quality=QUALITY
        )
    _strip(evaluation).save(cell.record.with_suffix(".webp"), quality=QUALITY)
    facts = record_of(base, bank, evaluation, cell.stream, seed=cell.seed)
    return facts | {
        "asked": cell.asked,
        "chosen": {**cell.settings, **{f"method.{k}": v for k, v in cell.options.items()}},
        "moments": cell.moments,
        "compositions": len(then),
        "together": company,
        "measuring_seconds": time.monotonic() - began,
    }


def teach(
    base: Base,
    stream: Stream,
    sources: Mapping[str, list[Path]],
    path: Path,
    *,
    method: str,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    compositions: Path | None = None,
    encoder: MetricEncoder | None = None,
    say: Callable[[str], None] = lambda sentence: None,
    **settings: Any,
) -> Bank:
    """Teach the concepts one after another into a bank at ``path``, and return it.

    A method that learns all at once gets them in one task, with as many steps as one after another.
    Tasks that the bank already holds are not repeated, and one that was cut short is gone on with.
    What a `Composed` method trains for all tasks is copied to the folder ``compositions`` after
    each of them. With an ``encoder``, what each concept cost the earlier ones is measured and said.
    """
    if (path / "bank.json").exists() and interrupted(Bank.open(path)):
        resume(base, path)
    done = Bank.open(path).concepts if (path / "bank.json").exists() else ()
    tasks: list[Mapping[str, list[Path]]] = [{name: files} for name, files in sources.items()]
    phrases = stream.phrases
    if at_once(path, method):
        steps = make_settings(advised(base.hints, method), settings).steps
        own_steps = None if steps is None else steps * len(sources)
        tasks, settings = [sources], {**settings, "steps": own_steps}
    for task in tasks:
        _keep_composition(path, compositions)
        if set(task) <= set(done):
            continue
        own = dict(settings)
        if len(task) == 1:
            own.setdefault("templates", (f"a photo of {phrases[next(iter(task))]}",))
        record = learn(
            base,
            path,
            task,
            method=method,
            options=options,
            nouns={name: stream.nouns[name] for name in task},
            seed=seed,
            **own,
        )
        names = ", ".join(f"<{name}>" for name in task)
        say(f"{method}: learned {names} in {record.facts['seconds']:.0f} s")
        if encoder is not None:
            for one in what_it_cost(base, path, encoder):
                say(f"{method}:   <{one.concept}> kept {one.likeness_kept:.2f} of its likeness")
    _keep_composition(path, compositions)
    return Bank.open(path)


def _keep_composition(path: Path, folder: Path | None) -> None:
    """A copy of what the tasks share, by how many there are; a bank keeps only the last."""
    if folder is None or not (path / "bank.json").exists():
        return
    bank = Bank.open(path)
    file = folder / f"{len(bank.tasks)}.safetensors"
    if not file.exists() and (composition := bank.composition()):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(file, composition, {})


def read_compositions(folder: Path) -> dict[int, dict[str, Tensor]]:
    """How many tasks there were -> what they shared then, as `teach` left it."""
    return {
        int(file.stem): safetensors.torch.load_file(file) for file in folder.glob("*.safetensors")
    }


def record_of(
    base: Base, bank: Bank, evaluation: Evaluation, stream: Stream, *, seed: int
) -> dict[str, Any]:
    """What was run, with what, and every raw score; derived numbers are never stored."""
    return {
        "format": FORMAT,
        "kind": "drawing",
        "stream": stream.to_json(),
        "styles": list(stream.styles),
        "method": bank.method,
        "config": bank.config,
        "chosen": {},
        "seed": seed,
        "settings": bank.tasks[-1].facts["settings"],
        "base": {"name": bank.base.name, "hash": bank.base.hash},
        "encoder": evaluation.encoder,
        "versions": evaluation.environment,
        "seconds": [task.facts["seconds"] for task in bank.tasks],
        "norms": [task.facts["norm"] for task in bank.tasks],
        "masks": masks_of(bank),
        "peak_memory": peak_memory(base.device),
        "parameters": _trained(bank.tasks[-1].facts),
        "parameters_of_denoiser": sum(p.numel() for p in base.denoiser.parameters()),
        "stored_bytes": sum(bank.stored().values()),
        "pictures": min(len(p) for shown in evaluation.drawn.values() for p in shown.values()),
        "moments": "all",
        "bounds": {name: [b.ceiling, b.floor] for name, b in evaluation.bounds.items()},
        "matrix": json.loads(evaluation.matrix.to_json()),
        "together": {},
    }


def masks_of(bank: Bank) -> list[dict[str, tuple[int, int]]]:
    """A task's layers -> how many entries of their delta its mask keeps, of how many.

    Nothing of a method without masks.
    """
    method = build(bank.method, **bank.config)
    found = []
    for names, tensors in bank.kept():
        layers = Kept(concepts=names, tensors=tensors).factors()
        kept = {layer: method.kept_entries(factors) for layer, factors in layers.items()}
        found.append({layer: entries for layer, entries in kept.items() if entries is not None})
    return found if any(found) else []


def _trained(facts: Mapping[str, Any]) -> int:
    """Parameters of the last task, with those of the step for the whole bank, if there was one."""
    return int(facts["parameters"]) + int(facts.get("composition", {}).get("parameters", 0))


def _strip(evaluation: Evaluation) -> Image.Image:
    """The first concepts, one a column: a real picture, drawn right after learning, at the end."""
    names = evaluation.matrix.concepts[:SHOWN]
    moments = [evaluation.drawn[name] for name in names]
    return grid(
        [
            *(evaluation.references[name][0] for name in names),
            *(drawn[min(drawn)][0] for drawn in moments),
            *(drawn[max(drawn)][0] for drawn in moments),
        ],
        columns=len(names),
    )
