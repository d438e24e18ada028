"""Draw a bank's concepts as they were after every task, and score them: the task-by-time matrix.

The past of a bank is immutable, so how concept j was drawn after task i is drawn again at any time:
with the first i + 1 tasks alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from perdure.bank import Bank
from perdure.drawing.painter import Painter
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.learning.photos import read_pictures
from perdure.machine import environment
from perdure.measuring.faces import faces_installed, faces_matched, faces_of
from perdure.measuring.features import MetricEncoder
from perdure.measuring.matrix import TaskMatrix
from perdure.measuring.prompts import COMPANY, CONTEXTS, HELD_OUT, ORDINARY, PLAIN
from perdure.measuring.scores import (
    clip_score_cifc,
    diversity,
    image_alignment,
    kid,
    mmd,
    text_alignment,
)
from perdure.measuring.settings import AT_ONCE, EvaluateSettings
from perdure.measuring.sharpness import sharpness

__all__ = ["Bounds", "Evaluation", "evaluate"]


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What the main score can be for a concept, from its reference pictures alone."""

    ceiling: float
    """The references through the autoencoder against the other references."""
    floor: float
    """The references of the other concepts against this one's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Raw scores of every concept after every task, and the pictures behind them."""

    matrix: TaskMatrix
    drawn: Mapping[str, Mapping[int, Sequence[Image.Image]]]
    """Concept -> task index -> pictures of the plain prompt."""
    contexts: Mapping[str, Sequence[tuple[str, Image.Image]]]
    """Concept -> (prompt, picture) at the end."""
    references: Mapping[str, Sequence[Image.Image]] = field(default_factory=dict)
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    encoder: Mapping[str, str] = field(default_factory=dict)
    """`MetricEncoder.facts` of the one that measured."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Versions, and on what it was measured."""


def evaluate(
    base: Base,
    bank: Bank | Path | str,
    encoder: MetricEncoder,
    *,
    references: Mapping[str, Path | Sequence[Path]] | Path | str | None = None,
    nouns: Mapping[str, str] | None = None,
    phrases: Mapping[str, str] | None = None,
    styles: Collection[str] = (),
    contexts: Sequence[str] = CONTEXTS,
    compositions: Mapping[int, Mapping[str, Tensor]] | None = None,
    progress: Callable[[str], None] = lambda sentence: None,
    **settings: Any,
) -> Evaluation:
    """Score every concept of a bank after every task.

    Args:
        base: the bank's base.
        bank: what was learned.
        encoder: the metric encoder; it is named in the result.
        references: concept -> real pictures of it, or a folder with a sub-folder for each concept;
            without them only drawings are compared.
        nouns: concept -> the class noun that stands for its token in text alignment; by default
            what the bank was told, else "subject".
        phrases: concept -> how the prompts speak of it, with `{}` for its token (the default).
        styles: concepts that are styles: they have no identity to score.
        contexts: prompts with `{}` for the token, drawn after every task.
        compositions: of a `Composed` method, how many tasks were learned -> `Bank.composition` as
            it was then; a moment that has none here is drawn with the bank's, which is of the end.
        progress: told what is being drawn.
        **settings: fields of `EvaluateSettings`.

    Raises PerdureError for an option that does not exist or fit, and where pictures are missing.
    """
    chosen = EvaluateSettings.of(settings)
    pictures, seed = chosen.pictures, chosen.seed
    bank = bank if isinstance(bank, Bank) else Bank.open(bank)
    if isinstance(references, str | Path):
        references = _folders(Path(references), bank.concepts)
    real = {
        name: read_pictures(source, size=base.size).tensor
        for name, source in (references or {}).items()
    }
    images = {name: _images(tensor) for name, tensor in real.items()}
    likeness = {
        name: encoder.identities(shown) for name, shown in images.items() if name not in styles
    }
    general = {name: encoder.pictures(shown) for name, shown in images.items()}
    faces = {name: faces_of(images[name]) for name in likeness if faces_installed()}
    bounds = _bounds(base, encoder, real, likeness)
    matrix = TaskMatrix(tasks=())
    drawn: dict[str, dict[int, list[Image.Image]]] = {}
    at_first: dict[str, tuple[Tensor, Tensor]] = {}
    in_context: dict[str, list[tuple[str, Image.Image]]] = {}
    drawings = _Drawings()
    untouched = Painter(base, bank, upto=0)
    seeds = list(range(seed, seed + 2 * len(ORDINARY)))
    ordinary = encoder.pictures(drawings.draw(untouched, [*ORDINARY, *ORDINARY], seeds))
    for task, record in enumerate(bank.tasks):
        then = (compositions or {}).get(task + 1)
        painter = Painter(base, bank, upto=task + 1, composition=then)
        cells: dict[str, dict[str, float | None]] = {}
        progress(
            f"drawing {len(painter.tokens)} concepts as they were after <{record.concepts[0]}>"
        )
        at_end = task == len(bank.tasks) - 1
        apart: float | None = None
        whole = chosen.moments == "all" or at_end or is_milestone(task + 1)
        if whole:
            drift = encoder.pictures(drawings.draw(painter, [*ORDINARY, *ORDINARY], seeds))
            apart = float(1 - (drift * ordinary).sum(1).mean())
        for name in painter.tokens:
            if not whole and name not in record.concepts:
                continue
            spoken = (phrases or {}).get(name, "{}").format(f"<{name}>")
            plain = drawings.draw(
                painter, [PLAIN.format(spoken)] * pictures, range(seed, seed + pictures)
            )
            drawn.setdefault(name, {})[task] = plain
            prompts = [text.format(spoken) for text in contexts]
            shown = drawings.draw(painter, prompts, range(seed, seed + len(prompts)))
            in_context[name] = list(zip(prompts, shown, strict=True))
            features, who = encoder.pictures(plain), encoder.identities(plain)
            noun = (nouns or {}).get(name) or bank.metadata(name)["facts"].get("nouns", {}).get(
                name, "subject"
            )
            first_features, first_who = at_first.setdefault(name, (features, who))
            cell: dict[str, float | None] = {
                "likeness_kept": float((who * first_who).sum(1).mean()),
                "mmd_change": mmd(first_features, features),
                "diversity": diversity(features),
                "base_drift": apart,
            }
            if chosen.held_out and (at_end or name in record.concepts):
                texts = [text.format(spoken) for text in HELD_OUT]
                new = drawings.draw(painter, texts, range(seed, seed + len(texts)))
                cell |= _held_out(encoder, new, noun, likeness.get(name))
            if encoder.reads_texts:
                words = encoder.texts([text.format(_article(noun)) for text in contexts])
                seen = encoder.pictures(shown)
                cell |= {
                    "text_alignment": text_alignment(seen, words),
                    "clip_score_cifc": clip_score_cifc(seen, words),
                }
            if name in real:
                if name in likeness:
                    cell["identity"] = image_alignment(who, likeness[name])
                if name in faces and not np.isnan(faces[name]).all():
                    cell["faces_matched"] = faces_matched(faces_of(plain), faces[name])
                cell |= {
                    "image_alignment": image_alignment(features, general[name]),
                    "mmd": mmd(features, general[name]),
                    "kid": kid(features, general[name]),
                    "sharpness": sharpness(plain, images[name]),
                }
            for score, value in cell.items():
                cells.setdefault(score, {})[name] = value
        matrix = matrix.after_task(record.concepts, cells)
    return Evaluation(
        matrix=matrix,
        drawn=drawn,
        contexts=in_context,
        references=images,
        bounds=bounds,
        encoder=encoder.facts(),
        environment=environment(base.device),
    )


def _held_out(
    encoder: MetricEncoder, drawn: Sequence[Image.Image], noun: str, likeness: Tensor | None
) -> dict[str, float]:
    """Scores of what was drawn of `HELD_OUT`; of likeness, where the concept has no company."""
    found = {}
    if likeness is not None:
        alone = [p for p, text in zip(drawn, HELD_OUT, strict=True) if text not in COMPANY]
        found["identity_held_out"] = image_alignment(encoder.identities(alone), likeness)
    if encoder.reads_texts:
        words = encoder.texts([text.format(_article(noun)) for text in HELD_OUT])
        found["text_held_out"] = text_alignment(encoder.pictures(drawn), words)
    return found


def _folders(folder: Path, concepts: Sequence[str]) -> dict[str, Path]:
    missing = [name for name in concepts if not (folder / name).is_dir()]
    if missing:
        raise PerdureError(
            f"{folder} has no folder {missing[0]!r}: it needs one with pictures for each concept."
        )
    return {name: folder / name for name in concepts}


def is_milestone(count: int) -> bool:
    """1, 2, 5, 10, 20, 50 and so on."""
    return str(count).rstrip("0") in ("1", "2", "5")


class _Drawings:
    """Draws, but not again what would come out the same: where tasks do not depend on each other,
    later ones often leave a prompt as it was."""

    def __init__(self) -> None:
        self._known: dict[tuple[tuple[str, ...], ...], list[Image.Image]] = {}

    def draw(
        self, painter: Painter, prompts: Sequence[str], seeds: Sequence[int]
    ) -> list[Image.Image]:
        """As `Painter.draw`."""
        if not painter.method.independent:
            return painter.draw(prompts, seeds=seeds, batch_size=AT_ONCE)
        prints = tuple(painter.fingerprint(prompt) for prompt in dict.fromkeys(prompts))
        key = (tuple(prompts), tuple(map(str, seeds)), prints)
        if key not in self._known:
            self._known[key] = painter.draw(prompts, seeds=seeds, batch_size=AT_ONCE)
        return self._known[key]


def _bounds(
    base: Base, encoder: MetricEncoder, real: Mapping[str, Tensor], likeness: Mapping[str, Tensor]
) -> dict[str, Bounds]:
    bounds = {}
    for name in likeness:
        tensor = real[name]
        others = [features for other, features in likeness.items() if other != name]
        if not others or len(tensor) < 2:
            continue
        rebuilt = encoder.identities(_images(base.decode(base.encode(tensor)[0]).cpu()))
        bounds[name] = Bounds(
            ceiling=image_alignment(rebuilt, likeness[name], distinct=True),
            floor=image_alignment(torch.cat(others), likeness[name]),
        )
    return bounds


def _images(tensor: Tensor) -> list[Image.Image]:
    """PIL pictures of (N, 3, H, W) in [-1, 1]."""
    array = ((tensor + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(np.ascontiguousarray(picture)) for picture in array]


def _article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
