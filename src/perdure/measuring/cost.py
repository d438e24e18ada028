"""What a new concept cost the earlier ones, seen without any old picture.

Right after a concept is learned it is drawn with fixed seeds, and these drawings stay beside its
task; after later learns the same seeds are drawn again and compared with them. So that the look
costs the same however full the bank is, each learn looks at a few, in turn, and draws none whose
drawing cannot have changed.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from perdure.bank import Bank
from perdure.drawing.painter import Painter
from perdure.hosts.diffusion.host import Base
from perdure.measuring.features import MetricEncoder
from perdure.measuring.prompts import PLAIN
from perdure.measuring.scores import mmd
from perdure.measuring.settings import AT_ONCE
from perdure.sheet import grid
from perdure.untrusted import open_picture

__all__ = ["MOST", "SEEDS", "Cost", "previews", "what_it_cost"]

SEEDS = range(500, 504)
MOST = 20
"""Earlier concepts that are looked at after one learn."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """How an earlier concept is drawn now, against how it was drawn right after it was learned."""

    concept: str
    likeness_kept: float
    """Mean cosine of the same seed's drawings then and now; 1 is unchanged."""
    mmd: float
    """MMD of the two sets of drawings; 0 is unchanged."""


def what_it_cost(base: Base, bank: Bank | Path | str, encoder: MetricEncoder) -> list[Cost]:
    """Draw earlier concepts again, keep the newest's drawings, and say what the last task cost.

    All earlier concepts up to ``MOST``; of more, about as many, others than after the learn before.
    Writes into the last task's folder: `previews/<concept>-<seed>.png` for its own concepts, with
    their fingerprint (`Painter.fingerprint`), `cost.json`, and `cost.png`, a strip a concept with
    then beside now.
    """
    bank = bank if isinstance(bank, Bank) else Bank.open(bank)
    painter = Painter(base, bank)
    last = bank.tasks[-1]
    for name in last.concepts:
        for seed, picture in zip(SEEDS, _drawn(painter, name), strict=True):
            bank.add_task_file(last, f"previews/{name}-{seed}.png", _png(picture))
        print_of = painter.fingerprint(_prompt(name)).encode()
        bank.add_task_file(last, f"previews/{name}.sha256", print_of)
    costs, strips = [], []
    earlier = [(task, name) for task in bank.tasks[:-1] for name in task.concepts]
    for task, name in _in_turn(earlier, len(bank.tasks)):
        then = previews(bank, name)
        if not then:
            continue
        now = then if _unchanged(painter, name, bank.task_folder(task)) else _drawn(painter, name)
        before, after = encoder.identities(then), encoder.identities(now)
        costs.append(
            Cost(
                concept=name,
                likeness_kept=float((before * after).sum(1).mean()),
                mmd=mmd(before, after),
            )
        )
        strips += [*then, *now]
    rows = {"encoder": encoder.identity_name, "costs": [asdict(cost) for cost in costs]}
    bank.add_task_file(last, "cost.json", json.dumps(rows, indent=1).encode())
    if strips:
        bank.add_task_file(last, "cost.png", _png(grid(strips, 2 * len(SEEDS))))
    return costs


def previews(bank: Bank, name: str) -> list[Image.Image]:
    """A concept as it was drawn right after it was learned; none where one cannot be read."""
    found = []
    for seed in SEEDS:
        try:
            with open_picture(
                bank.task_folder(name) / "previews" / f"{name}-{seed}.png"
            ) as picture:
                found.append(picture.convert("RGB"))
        except ValueError:
            return []
    return found


def _in_turn(earlier: Sequence[T], turn: int) -> Sequence[T]:
    """At most ``MOST`` of them, evenly spread; one turn after another comes to all."""
    apart = max(1, -(-len(earlier) // MOST))
    return earlier[turn % apart :: apart]


def _prompt(name: str) -> str:
    return PLAIN.format(f"<{name}>")


def _drawn(painter: Painter, name: str) -> Sequence[Image.Image]:
    return painter.draw([_prompt(name)] * len(SEEDS), seeds=SEEDS, batch_size=AT_ONCE)


def _unchanged(painter: Painter, name: str, task: Path) -> bool:
    """Whether the concept is drawn now as it was when its previews were."""
    path = task / "previews" / f"{name}.sha256"
    return path.exists() and path.read_text() == painter.fingerprint(_prompt(name))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
