"""What is interrupted: a verb on a small bank; what may then be there, and how one goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from classifying import save_backbone, small, write_tree
from conftest import make_drawings, make_pipeline

from perdure.bank import Bank
from perdure.bank_checking import check_bank
from perdure.benchmarks.photos import photographed
from perdure.benchmarks.runner import finish
from perdure.benchmarks.runs import Run, run
from perdure.classification.run import ClassificationRun, run_classification
from perdure.classification.settings import FitSettings
from perdure.drawing.export import export
from perdure.durable import is_partial
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.learning.learn import learn, resume
from perdure.learning.removal import remove
from perdure.learning.request import discard
from perdure.measuring.evaluate import evaluate
from perdure.measuring.features import MetricEncoder
from perdure.measuring.report import write_report
from perdure.measuring.summary import bank_report
from perdure.methods import METHODS

__all__ = ["Scene", "World", "scenes"]

STEPS = {"steps": 6, "checkpoint_every": 2}
SMALL = {
    "rank": 2,
    "replay": 2,
    "width": 8,
    "heads": 2,
    "together_steps": 4,
    "shared": 2,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A verb in a folder."""

    name: str
    prepare: Callable[[Path], None]
    """Make what is there before."""
    act: Callable[[Path], object]
    """What is interrupted."""
    finish: Callable[[Path], object]
    """What its user does next, until it is done."""
    state: Callable[[Path], str]
    """Of all that was kept, to the bit; raises where it cannot be read."""
    tidy: Callable[[Path], Sequence[str]]
    """What lies about and is nobody's."""


class World:
    """A base, pictures and a tower, made once."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.folder = folder
        self.base_folder = make_pipeline(folder / "tiny")
        self.base = Base.open(self.base_folder, device="cpu")
        self.encoder = MetricEncoder.of(self.base)
        self.drawings = make_drawings(folder / "drawings")
        self.tower = save_backbone(folder / "tower")
        self.tree = write_tree(folder / "tree")

    def learn(self, bank: Path, *names: str, method: str, token: str) -> None:
        learn(
            self.base,
            bank,
            {name: self.drawings / name for name in names},
            method=method,
            options=options(method),
            token=token,
            lr=1e-2,
            **STEPS,
        )


def options(method: str) -> dict[str, Any]:
    known = {field.name for field in fields(METHODS[method].Config)}
    return {key: value for key, value in SMALL.items() if key in known}


def digest_of(bank: Path) -> str:
    """All that a reader of the bank can see, verified, but for the seconds that it took."""
    opened, digest = Bank.open(bank), hashlib.sha256()
    for one in check_bank(bank):
        if one.kind == "hurt":
            raise PerdureError(one.says)
    for task in opened.tasks:
        tensors, tokens = opened.read(task)
        digest.update(repr((task.concepts, task.folder)).encode())
        rows = {name: token.rows for name, token in tokens.items()}
        for key, tensor in [*sorted(tensors.items()), *sorted(rows.items())]:
            digest.update(key.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    for key, tensor in sorted(opened.composition().items()):
        digest.update(key.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def litter(folder: Path) -> list[str]:
    """Half-written files anywhere, and what a bank does not know."""
    found = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if is_partial(path) or path.name.startswith(".tmp")
    ]
    for index in folder.rglob("bank.json"):
        found += [one.says for one in check_bank(index.parent)]
    return found


def scenes(
    world: World, verbs: Sequence[str], methods: Sequence[str], tokens: Sequence[str]
) -> Iterator[Scene]:
    """Every verb with every method and kind of token that it goes with."""
    for method in methods:
        for token in tokens:
            if "learn" in verbs:
                yield learning(world, method, token)
            if "remove" in verbs and not METHODS[method].all_at_once:
                yield removing(world, method, token)
            if "evaluate" in verbs:
                yield evaluating(world, method, token)
        if "export" in verbs and foldable(method):
            yield exporting(world, method)
        if "bench" in verbs:
            yield benching(world, method)
    if "classify" in verbs:
        for method in ("c-lora", "inflora", "coda-prompt"):
            yield classifying(world, method)


def foldable(method: str) -> bool:
    kind = METHODS[method]
    return not kind.acts_in_prompts and kind.mixes_by != "prompt"


def learning(world: World, method: str, token: str) -> Scene:
    new = ("bo", "ada") if METHODS[method].all_at_once else ("bo",)

    def prepare(folder: Path) -> None:
        if METHODS[method].all_at_once:
            folder.mkdir(parents=True)
        else:
            world.learn(folder / "bank", "ada", method=method, token=token)

    def act(folder: Path) -> None:
        world.learn(folder / "bank", *new, method=method, token=token)

    def state(folder: Path) -> str:
        there = (folder / "bank" / "bank.json").exists()
        return digest_of(folder / "bank") if there and Bank.open(folder / "bank").tasks else ""

    def goes_on(folder: Path) -> None:
        bank = folder / "bank"
        if (bank / "bank.json").exists():
            opened = Bank.open(bank)
            if (opened.workspace / "request.json").exists():
                resume(world.base, bank)
                return
            if set(new) <= set(opened.concepts):
                discard(bank)
                return
        act(folder)

    return Scene(
        name=f"learn {method} {token}",
        prepare=prepare,
        act=act,
        finish=goes_on,
        state=state,
        tidy=litter,
    )


def learned(world: World, method: str, token: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        tasks = [("ada", "bo")] if METHODS[method].all_at_once else [("ada",), ("bo",)]
        for names in tasks:
            world.learn(folder / "bank", *names, method=method, token=token)

    return prepare


def removing(world: World, method: str, token: str) -> Scene:
    def act(folder: Path) -> None:
        remove(folder / "bank", "bo")

    def goes_on(folder: Path) -> None:
        if "bo" in Bank.open(folder / "bank").concepts:
            act(folder)
        else:
            discard(folder / "bank")  # any write sweeps

    return Scene(
        name=f"remove {method} {token}",
        prepare=learned(world, method, token),
        act=act,
        finish=goes_on,
        state=lambda folder: digest_of(folder / "bank"),
        tidy=litter,
    )


def evaluating(world: World, method: str, token: str) -> Scene:
    def act(folder: Path) -> None:
        bank = Bank.open(folder / "bank")
        result = evaluate(
            world.base,
            bank,
            world.encoder,
            references=world.drawings,
            pictures=2,
            contexts=("a photo of {}",),
        )
        result.matrix.save(folder / "bank" / "evaluation" / "matrix.json")
        write_report(folder / "bank" / "evaluation" / "report.html", bank_report(bank, result))

    def state(folder: Path) -> str:
        out = folder / "bank" / "evaluation"
        said = [digest_of(folder / "bank")]
        if (out / "matrix.json").exists():
            said.append(json.dumps(json.loads((out / "matrix.json").read_text())))
        if (out / "report.html").exists():
            assert (out / "report.html").read_text().rstrip().endswith("</html>")
        return " ".join(said)

    return Scene(
        name=f"evaluate {method} {token}",
        prepare=learned(world, method, token),
        act=act,
        finish=act,
        state=state,
        tidy=litter,
    )


def exporting(world: World, method: str) -> Scene:
    def act(folder: Path) -> None:
        spoken = ("ada",) if METHODS[method].mixes_by == "concepts" else ()
        export(world.base, folder / "bank", folder / "out", concepts=spoken, check=False)

    def state(folder: Path) -> str:
        said = [digest_of(folder / "bank")]
        if (out := folder / "out").exists() and any(out.iterdir()):
            files = sorted(path for path in out.rglob("*") if path.is_file())
            said += [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
        return " ".join(said)

    def goes_on(folder: Path) -> None:
        if not (folder / "out").exists() or not any((folder / "out").iterdir()):
            act(folder)

    return Scene(
        name=f"export {method}",
        prepare=learned(world, method, "word"),
        act=act,
        finish=goes_on,
        state=state,
        tidy=litter,
    )


def benching(world: World, method: str) -> Scene:
    def cell(folder: Path) -> Run:
        return Run(
            record=folder / "out" / "record.json",
            work=folder / "work",
            stream=photographed("folders", world.drawings),
            method=method,
            options=options(method),
            settings=STEPS,
            base=str(world.base_folder),
            device="cpu",
            pictures=2,
            moments="milestones",
        )

    def act(folder: Path) -> None:
        finish(cell(folder), run)

    def state(folder: Path) -> str:
        record, bank = folder / "out" / "record.json", folder / "work" / "bank"
        if (bank / "bank.json").exists():
            digest_of(bank)
        return said_by(record, ("matrix", "bounds", "norms")) if record.exists() else ""

    return Scene(
        name=f"bench {method}",
        prepare=lambda folder: folder.mkdir(parents=True),
        act=act,
        finish=lambda folder: None if (folder / "out" / "record.json").exists() else act(folder),
        state=state,
        tidy=litter,
    )


def classifying(world: World, method: str) -> Scene:
    def cell(folder: Path) -> ClassificationRun:
        return ClassificationRun(
            record=folder / "out" / "record.json",
            work=folder / "work",
            stream="folders",
            data=str(world.tree),
            method=method,
            options=small(method),
            tasks=2,
            settings=FitSettings(epochs=2, batch_size=4, checkpoint_every=2),
            backbone=str(world.tower),
        )

    def act(folder: Path) -> None:
        finish(cell(folder), run_classification)

    def state(folder: Path) -> str:
        record = folder / "out" / "record.json"
        return said_by(record, ("matrix", "losses", "norms")) if record.exists() else ""

    return Scene(
        name=f"classify {method}",
        prepare=lambda folder: folder.mkdir(parents=True),
        act=act,
        finish=lambda folder: None if (folder / "out" / "record.json").exists() else act(folder),
        state=state,
        tidy=litter,
    )


def said_by(record: Path, keys: Sequence[str]) -> str:
    content: Mapping[str, Any] = json.loads(record.read_text())
    return json.dumps({key: content[key] for key in keys}, sort_keys=True)
