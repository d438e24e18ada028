"""The demo: five people, one after another, the usual way, with C-LoRA, and with the default."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from perdure.bank import Bank
from perdure.benchmarks.runs import record_of, teach
from perdure.benchmarks.streams import Stream, people
from perdure.drawing.painter import Painter
from perdure.durable import replace_file
from perdure.hosts.diffusion.host import Base
from perdure.measuring.company import SENTENCES
from perdure.measuring.evaluate import Evaluation, evaluate
from perdure.measuring.features import MetricEncoder
from perdure.measuring.matrix import accuracy_final, forgetting, mean_right_after
from perdure.measuring.overview import company, overview
from perdure.measuring.report import Shot, write_report
from perdure.measuring.scores import reach
from perdure.measuring.summary import stream_report
from perdure.methods import DEFAULT, METHODS
from perdure.outputs import output_folder
from perdure.processes import cores, pool_of

__all__ = ["QUICK", "WHOLE", "Extent", "run_demo"]


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much a demo shows."""

    people: int
    words: str
    """The number in words."""
    methods: tuple[str, ...]
    steps: int
    """Of each concept."""
    pictures: int
    """Drawn of each at each moment."""
    together: int
    """Drawn of each pair of neighbours."""

    @property
    def stream(self) -> Stream:
        return people(self.people)


WHOLE = Extent(
    people=5,
    words="five",
    methods=("lora", "c-lora", DEFAULT),
    steps=200,  # more than smallworld advises, so that every person is drawn well
    pictures=8,
    together=2,
)
QUICK = Extent(people=2, words="two", methods=("lora", DEFAULT), steps=60, pictures=2, together=2)


def _learn(
    method: str,
    extent: Extent,
    sources: dict[str, list[Path]],
    path: Path,
    opening: Mapping[str, Any],
) -> None:
    torch.set_num_threads(1)  # more are slower on a model as small as this
    base = Base.open(**opening)
    teach(
        base,
        extent.stream,
        sources,
        path,
        method=method,
        encoder=MetricEncoder.of(base),
        steps=extent.steps,
        say=lambda line: print(line, flush=True),
    )


def _measure(
    method: str,
    extent: Extent,
    sources: dict[str, list[Path]],
    path: Path,
    opening: Mapping[str, Any],
) -> Evaluation:
    torch.set_num_threads(1)
    base, bank = Base.open(**opening), Bank.open(path)
    encoder = MetricEncoder.of(base)
    began = time.monotonic()
    evaluation = evaluate(
        base, bank, encoder, references=sources, pictures=extent.pictures, held_out=False
    )
    print(f"{method}: measured in {time.monotonic() - began:.0f} s", flush=True)
    record = record_of(base, bank, evaluation, extent.stream, seed=0)
    replace_file(path.parent / f"{method}-seed0.json", (json.dumps(record) + "\n").encode())
    return evaluation


def _together(extent: Extent, path: Path, opening: Mapping[str, Any]) -> list[Image.Image]:
    """Neighbours in the stream beside each other, by one plain sentence, pair after pair."""
    torch.set_num_threads(1)
    painter = Painter(Base.open(**opening), path)
    said = [SENTENCES["pairs"].format(*(f"<{name}>" for name in pair)) for pair in _pairs(extent)]
    return painter.draw(said, count=extent.together)


def _pairs(extent: Extent) -> list[tuple[str, str]]:
    return list(pairwise(one.name for one in extent.stream.concepts))


def run_demo(
    out: Path,
    *,
    extent: Extent = WHOLE,
    device: str | None = None,
    dtype: str | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Run the methods, each in a process of its own; returns the page.

    ``device`` and ``dtype`` are as for `Base.open`.

    What a run that was cut short had learned is kept and gone on from.
    """
    began = time.monotonic()
    output_folder(out)
    opening = {"device": device, "dtype": dtype}
    sources = extent.stream.sources(out / "photos")
    say(f"drew {len(sources)} people, eight pictures each, in {out / 'photos'}")
    banks = {method: out / f"bank-{method}" for method in extent.methods}
    workers = min(len(banks), cores())
    with pool_of(workers, __name__) as pool:
        learning = {
            pool.submit(_learn, m, extent, sources, path, opening): m for m, path in banks.items()
        }
        measuring: dict[str, Future[Evaluation]] = {}
        drawing: Future[list[Image.Image]] | None = None
        for future in as_completed(learning):
            future.result()
            method = learning[future]
            measuring[method] = pool.submit(
                _measure, method, extent, sources, banks[method], opening
            )
            if method == DEFAULT:
                drawing = pool.submit(_together, extent, banks[method], opening)
        results = {m: (Bank.open(path), measuring[m].result()) for m, path in banks.items()}
        assert drawing is not None
        drawn = drawing.result()
    named = {METHODS[m].title.partition(":")[0]: shown for m, (_, shown) in results.items()}
    overview(named).save(out / "overview.png")
    each = {
        pair: drawn[k * extent.together : (k + 1) * extent.together]
        for k, pair in enumerate(_pairs(extent))
    }
    company(results[DEFAULT][1].references, each).save(out / "together.png")
    page = out / "report.html"
    write_report(
        page,
        stream_report(
            results,
            title=f"{extent.words.capitalize()} people, taught one after another: what each method "
            "remembers",
            subtitle=(
                f"One small text-to-image model was taught {extent.words} people in turn, from "
                "eight pictures each. The pictures of one were gone before the next was taught."
            ),
            noun="person",
            nouns="people",
            together=[
                Shot(
                    caption=SENTENCES["pairs"].format(*(f"<{name}>" for name in pair)),
                    picture=pictures[0],
                )
                for pair, pictures in each.items()
            ],
            notes=[f"One seed, {extent.steps} steps a concept; more seeds are in docs/results.md."],
        ),
    )
    for method, (_, evaluation) in results.items():
        say(_sentence(method, evaluation))
    say(f"all in {time.monotonic() - began:.0f} s")
    return page


def _sentence(method: str, evaluation: Evaluation) -> str:
    matrix = evaluation.matrix
    ways = [
        reach(
            matrix.need("identity", matrix.learned_at(name), name),
            floor=bounds.floor,
            ceiling=bounds.ceiling,
        )
        for name, bounds in evaluation.bounds.items()
    ]
    return (
        f"{method:>8}: likeness {mean_right_after(matrix, 'identity'):.2f} right after learning "
        f"({min(ways):.2f} to {max(ways):.2f} of the way from another person's pictures to their "
        f"own), "
        f"{accuracy_final(matrix, 'identity'):.2f} at the end; "
        f"forgetting {forgetting(matrix, 'identity'):.2f}"
    )
