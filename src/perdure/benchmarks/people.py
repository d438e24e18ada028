"""A stream of drawn people: pictures on disk, one method over them in order, its evaluation."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perdure.bank import Bank
from perdure.base.base import Base
from perdure.learning.learn import at_once, interrupted, learn, resume
from perdure.learning.settings import make_settings
from perdure.measuring.cost import what_it_cost
from perdure.measuring.evaluate import Evaluation, evaluate
from perdure.measuring.features import MetricEncoder
from perdure.smallworld.pictures import write_pictures
from perdure.smallworld.world import SPLITS

__all__ = ["NAMES", "PeopleStream", "run_stream"]

NAMES = ("ada", "ben", "cleo", "dov", "eli", "fay", "gus", "hana", "ivo", "jun")


@dataclass(frozen=True, kw_only=True)
class PeopleStream:
    """``count`` people of one split, from its ``first`` identity on, ``pictures`` of each."""

    split: str = "benchmark"
    first: int = 0
    count: int = 5
    pictures: int = 8

    def write(self, folder: Path) -> dict[str, Path]:
        """Write the pictures as image files; name -> folder."""
        folders = {}
        for k, name in enumerate(NAMES[: self.count]):
            identity = SPLITS[self.split].start + self.first + k
            folders[name] = folder / name
            write_pictures(folders[name], domain="person", identity=identity, count=self.pictures)
        return folders


def run_stream(
    base: Base,
    folders: Mapping[str, Path],
    path: Path,
    *,
    method: str,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    pictures: int = 8,
    cost: bool = False,
    say: Callable[[str], None] = lambda sentence: None,
    **settings: Any,
) -> tuple[Bank, Evaluation, dict[str, Any]]:
    """Teach the people one after another into a bank at ``path``, then measure it.

    A method that learns all at once gets them in one task, with as many steps as one after another.
    Tasks that the bank already holds are not repeated, and one that was cut short is gone on with.
    Returns the bank, its evaluation and a JSON-ready record of the run.
    """
    encoder = MetricEncoder.open(base.encoder)
    if (path / "bank.json").exists() and interrupted(Bank.open(path)):
        resume(base, path)
    done = Bank.open(path).concepts if (path / "bank.json").exists() else ()
    tasks: list[Mapping[str, Path]] = [{name: folder} for name, folder in folders.items()]
    if at_once(path, method):
        steps = make_settings(base.hints.get("learning", {}), settings).steps
        tasks, settings = [folders], {**settings, "steps": steps * len(folders)}
    for task in tasks:
        if set(task) <= set(done):
            continue
        record = learn(
            base,
            path,
            task,
            method=method,
            options=options,
            nouns=dict.fromkeys(task, "person"),
            seed=seed,
            **settings,
        )
        names = ", ".join(f"<{name}>" for name in task)
        say(f"{method}: learned {names} in {record.facts['seconds']:.0f} s")
        if cost:
            for one in what_it_cost(base, path, encoder):
                say(f"{method}:   <{one.concept}> kept {one.likeness_kept:.2f} of its likeness")
    bank = Bank.open(path)
    began = time.monotonic()
    evaluation = evaluate(
        base, bank, encoder, references=folders, pictures=pictures, seed=1000 + 100 * seed
    )
    say(f"{method}: measured in {time.monotonic() - began:.0f} s")
    record_json = {
        "method": method,
        "config": bank.config,
        "seed": seed,
        "base": bank.base.hash,
        "settings": bank.tasks[-1].facts["settings"],
        "seconds": [task.facts["seconds"] for task in bank.tasks],
        "parameters": bank.tasks[-1].facts["parameters"],
        "bounds": {n: [b.ceiling, b.floor] for n, b in evaluation.bounds.items()},
        "encoder": evaluation.encoder,
        "matrix": json.loads(evaluation.matrix.to_json()),
    }
    return bank, evaluation, record_json
