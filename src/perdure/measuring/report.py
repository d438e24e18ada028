"""The report: one self-contained HTML page, and the table of means and spreads for the docs.

The caller hands over a `Report` of raw matrices and pictures; every number that the page prints
is derived here, by the named functions of `matrix` and `scores`.
"""

import base64
import io
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from torch import Tensor

from perdure.measuring.matrix import DEFINITIONS, DERIVED, TaskMatrix
from perdure.measuring.scores import SCORES, Score, reach

Picture = Image.Image | np.ndarray | Tensor
Range = tuple[float, float]

SMALL = 128  # pictures up to this side are shown times three, pixel by pixel
LARGEST = 384  # larger pictures are shrunk to this side
SHOWN = 4  # pictures of a concept at a moment; the page shows the first large
HUES = 10  # the page's colours for concepts, --c0 to --c9
MINUS = "\N{MINUS SIGN}"
MISSING = "\N{EN DASH}"

WORDS = {  # how the page calls the derived numbers
    "mean_right_after": "right after learning",
    "accuracy_final": "at the end",
    "final_earlier": "at the end, all but the last",
    "forgetting": "forgetting",
    "forgetting_max": "forgetting from the best earlier time",
    "forgetting_coda": "forgetting by one further task",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Concept:
    """One learned concept. `ceiling` and `floor` bound the report's main score for it.

    `ceiling` is what the references themselves score (against other references, through the
    autoencoder), `floor` what other identities score. All but the name may be absent.
    """

    name: str
    title: str = ""
    references: Sequence[Picture] = ()
    ceiling: float | None = None
    floor: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Shot:
    """One picture with the words that asked for it, drawn at the end in another context."""

    caption: str
    picture: Picture


@dataclass(frozen=True, kw_only=True, eq=False)
class Strip:
    """What one method drew of a concept: `drawn[i]` after task i (from 0), same seeds each time."""

    concept: str
    drawn: Mapping[int, Sequence[Picture]] = field(default_factory=dict)
    contexts: Sequence[Shot] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class MethodResult:
    """One method on the report's concepts.

    `matrix` is the run that is pictured, `repeats` the same stream with other seeds (for the
    spread). `seconds` is the learning time of each task; `kept_bytes` what each task left on disk.
    """

    name: str
    title: str
    matrix: TaskMatrix
    summary: str = ""
    strips: Sequence[Strip] = ()
    repeats: Sequence[TaskMatrix] = ()
    seconds: Sequence[float] = ()
    kept_bytes: Sequence[int] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number in the page's head, already formatted, with what it is."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A word of the page and its meaning."""

    term: str
    text: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """Everything that the page shows. `score` is the main one; the others go into the table.

    `figures` are computed (one a method) where none are given. Scores without an entry in `SCORES`
    are described in `extra_scores`. `noun` and `nouns` name a concept in the page's sentences.
    Raises ValueError where the methods' concepts and the report's differ.
    """

    title: str
    methods: Sequence[MethodResult]
    concepts: Sequence[Concept]
    subtitle: str = ""
    score: str = "identity"
    noun: str = "concept"
    nouns: str = "concepts"
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()
    definitions: Sequence[Definition] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    extra_scores: Mapping[str, Score] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [concept.name for concept in self.concepts]
        if not self.methods:
            raise ValueError("methods must hold at least one method")
        for method in self.methods:
            for matrix in (method.matrix, *method.repeats):
                if set(matrix.concepts) != set(names):
                    raise ValueError(
                        f"method {method.name!r} measured {list(matrix.concepts)}, the report's "
                        f"concepts are {names}"
                    )
                if self.score not in matrix.scores:
                    raise ValueError(
                        f"score {self.score!r} was not measured for method {method.name!r}; there "
                        f"are {', '.join(matrix.scores) or 'none'}"
                    )
            for strip in method.strips:
                if strip.concept not in names:
                    raise ValueError(f"strips of {method.name!r}: no concept {strip.concept!r}")


def write_report(path: str | Path, data: Report) -> None:
    """Write the page to one HTML file, replacing it whole; missing folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(render_report(data), encoding="utf-8")
    part.replace(path)


def render_report(data: Report) -> str:
    """The page as HTML text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(_page(data))


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of `markdown_table`: which number, its heading and its format."""

    key: str
    title: str
    higher_is_better: bool = True
    scale: float = 1.0
    digits: int = 2


def markdown_table(
    rows: Mapping[str, Mapping[str, Sequence[float]]],
    columns: Sequence[Column],
    *,
    first: str = "Method",
) -> str:
    """A Markdown table of mean ± sample standard deviation; `rows[method][key]`: one value a seed.

    The best mean of a column is bold, and so is every mean within the larger of the two spreads
    of it (a tie). One seed decides nothing: a column where a method has fewer than two is plain.
    """
    lines = [
        f"| {first} | " + " | ".join(c.title for c in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    best = {column.key: _winners(rows, column) for column in columns}
    for name, values in rows.items():
        cells = []
        for column in columns:
            text = _spread(values.get(column.key, ()), column.scale, column.digits)
            cells.append(f"**{text}**" if name in best[column.key] else text)
        lines.append(f"| {name.replace('|', chr(92) + '|')} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _winners(rows: Mapping[str, Mapping[str, Sequence[float]]], column: Column) -> set[str]:
    seen = {name: values.get(column.key, ()) for name, values in rows.items()}
    seen = {name: values for name, values in seen.items() if len(values)}
    if len(seen) < 2 or any(len(values) < 2 for values in seen.values()):
        return set()
    mean = {name: statistics.fmean(values) for name, values in seen.items()}
    spread = {name: statistics.stdev(values) for name, values in seen.items()}
    top = (max if column.higher_is_better else min)(mean, key=lambda name: mean[name])
    return {n for n in mean if abs(mean[n] - mean[top]) <= max(spread[n], spread[top])}


def _number(value: float | None, digits: int = 2) -> str:
    if value is None or math.isnan(value):
        return MISSING
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def _spread(values: Sequence[float], scale: float = 1.0, digits: int = 2) -> str:
    if not len(values):
        return MISSING
    mean = _number(statistics.fmean(values) * scale, digits)
    if len(values) == 1:
        return mean
    return f"{mean} ± {_number(statistics.stdev(values) * scale, digits)}"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _image(picture: Picture) -> dict[str, Any]:
    """A picture as a PNG data URI with its width, height and whether it is small."""
    if isinstance(picture, Tensor):
        picture = picture.detach().cpu().numpy()
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(
                f"a picture must be uint8 (H, W, 3), got {picture.dtype} {picture.shape}"
            )
        picture = Image.fromarray(picture)
    picture = picture.convert("RGB")
    if max(picture.size) > LARGEST:
        picture = picture.copy()
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    picture.save(data, "PNG", optimize=True)
    return {
        "uri": "data:image/png;base64," + base64.b64encode(data.getvalue()).decode("ascii"),
        "width": picture.width,
        "height": picture.height,
        "small": max(picture.size) <= SMALL,
    }


def _describe(data: Report, score: str) -> Score:
    if score in data.extra_scores:
        return data.extra_scores[score]
    return SCORES.get(score) or Score(name=score, title=score, definition="")


def _derived(name: str, matrices: Sequence[TaskMatrix], score: str) -> list[float]:
    """The named number of every run in which all that it needs was measured."""
    values = []
    for matrix in matrices:
        try:
            values.append(DERIVED[name](matrix, score))
        except ValueError:
            continue
    return values


def _page(data: Report) -> dict[str, Any]:
    concepts: dict[str, dict[str, Any]] = {
        concept.name: {
            "name": concept.name,
            "title": concept.title or concept.name,
            "hue": i % HUES,
            "dashed": (i // HUES) % 2 == 1,
            "references": [_image(picture) for picture in concept.references[: SHOWN + 1]],
            "ceiling": concept.ceiling,
            "floor": concept.floor,
        }
        for i, concept in enumerate(data.concepts)
    }
    main = _describe(data, data.score)
    low, high = _range(data)
    methods: list[dict[str, Any]] = []
    for method in data.methods:
        strips = {strip.concept: strip for strip in method.strips}
        methods.append(
            {
                "title": method.title,
                "summary": method.summary,
                "figure": _figure(method, data, main),
                "cards": {
                    name: _card(concept, method, strips.get(name), data.score)
                    for name, concept in concepts.items()
                },
                "heat": _heat(method, concepts, data, low, high),
                "curves": _curves(method.matrix, concepts, data, low, high),
                "film": _film(method, concepts, strips, data.score),
                "contexts": [
                    {
                        "concept": concept,
                        "shots": [
                            {"caption": shot.caption, "image": _image(shot.picture)}
                            for shot in strips[name].contexts
                        ],
                    }
                    for name, concept in concepts.items()
                    if name in strips and strips[name].contexts
                ],
            }
        )
    bounds = {
        key: statistics.fmean(values)
        for key in ("ceiling", "floor")
        if (values := [c[key] for c in concepts.values() if c[key] is not None])
    }
    return {
        "data": data,
        "main": main,
        "concepts": list(concepts.values()),
        "methods": methods,
        "bounds": bounds,
        "tasks": len(data.methods[0].matrix.tasks),
        "has_references": any(concept["references"] for concept in concepts.values()),
        "has_pictures": any(card for m in methods for card in m["cards"].values()),
        "scale": {"low": low, "high": high},
        "table": _table(data, main),
        "definitions": _definitions(data),
        "number": lambda value, score=main: _number(
            None if value is None else value * score.scale, score.digits
        ),
    }


def _range(data: Report) -> Range:
    """The main score's range over all methods and bounds: one scale for every map and curve."""
    values = [v for m in data.methods for row in m.matrix.scores[data.score] for v in row]
    values += [bound for c in data.concepts for bound in (c.ceiling, c.floor)]
    known = [value for value in values if value is not None]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _figure(method: MethodResult, data: Report, main: Score) -> dict[str, Any] | None:
    """A method's figure in the head: earlier concepts' mean right after learning and at the end.

    The last task's concepts are left out: nothing was taught after them.
    """
    matrix = method.matrix
    pairs = [
        (before, after)
        for name in matrix.earlier() or matrix.concepts
        if (before := matrix.at(data.score, matrix.learned_at(name), name)) is not None
        and (after := matrix.at(data.score, -1, name)) is not None
    ]
    if not pairs:
        return None
    before, after = (statistics.fmean(side) for side in zip(*pairs, strict=True))
    return {
        "before": _number(before * main.scale, main.digits),
        "after": _number(after * main.scale, main.digits),
        "moved": len(matrix.tasks) > 1,
        "count": len(pairs),
    }


def _bar(value: float | None, concept: Mapping[str, Any]) -> dict[str, str] | None:
    """Where a value lies on the way from floor to ceiling: bar width and words."""
    floor, ceiling = concept["floor"], concept["ceiling"]
    if value is None or floor is None or ceiling is None or not ceiling > floor:
        return None
    share = reach(value, floor=floor, ceiling=ceiling)
    return {
        "width": f"{100 * min(max(share, 0.0), 1.0):.1f}",
        "words": f"{100 * share:.0f}".replace("-", MINUS).replace(MINUS + "0", "0") + " %",
    }


def _card(
    concept: Mapping[str, Any], method: MethodResult, strip: Strip | None, score: str
) -> list[dict[str, Any]]:
    """Right after learning, and at the end: pictures, score, and its place between the bounds."""
    matrix = method.matrix
    learned, last = matrix.learned_at(concept["name"]), len(matrix.tasks) - 1
    moments = [("right after learning", learned), ("at the end", last)]
    if learned == last:
        moments.pop()
    cards = []
    for words, task in moments:
        pictures = strip.drawn.get(task, ()) if strip else ()
        value = matrix.at(score, task, concept["name"])
        if pictures or value is not None:
            cards.append(
                {
                    "words": words,
                    "images": [_image(picture) for picture in pictures[:SHOWN]],
                    "value": value,
                    "bar": _bar(value, concept),
                }
            )
    return cards if any(card["images"] for card in cards) else []


def _heat(
    method: MethodResult,
    concepts: Mapping[str, Mapping[str, Any]],
    data: Report,
    low: float,
    high: float,
) -> list[dict[str, Any]]:
    """One row a concept, one cell a moment; `shade` in [0, 1], 1 the best."""
    matrix = method.matrix
    better = matrix.higher_is_better[data.score]
    rows = []
    for name in matrix.concepts:
        cells = []
        for task in range(len(matrix.tasks)):
            value = matrix.at(data.score, task, name)
            share = 0.0 if value is None else (value - low) / (high - low)
            shade = share if better else 1.0 - share
            cells.append(
                {
                    "value": value,
                    "before": task < matrix.learned_at(name),
                    "shade": f"{0.06 + 0.94 * shade:.3f}",
                    "deep": shade > 0.6,
                }
            )
        rows.append({"concept": concepts[name], "cells": cells})
    return rows


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers within [low, high]."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _apart(heights: Sequence[float], gap: float, lowest: float) -> list[float]:
    """Label heights moved as little as needed to be `gap` apart and above `lowest`."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    moved = list(heights)
    for k, i in enumerate(order[1:], start=1):
        moved[i] = max(moved[i], moved[order[k - 1]] + gap)
    limit = lowest
    for i in reversed(order):
        moved[i] = min(moved[i], limit)
        limit = moved[i] - gap
    return moved


def _curves(
    matrix: TaskMatrix,
    concepts: Mapping[str, Mapping[str, Any]],
    data: Report,
    low: float,
    high: float,
) -> dict[str, Any]:
    """The chart's geometry: every concept's main score over time, in a 520 x 344 box."""
    left, top, width, height = 44.0, 30.0, 384.0, 256.0
    main = _describe(data, data.score)
    margin = 0.04 * (high - low)
    bottom, ceiling = (low - margin) * main.scale, (high + margin) * main.scale
    ticks = _ticks(bottom, ceiling)
    count = len(matrix.tasks)

    def at_x(task: int) -> float:
        return left + (width * task / (count - 1) if count > 1 else width / 2)

    def at_y(value: float) -> float:
        return top + height * (1 - (value * main.scale - bottom) / (ceiling - bottom))

    lines: list[dict[str, Any]] = []
    for name in matrix.concepts:
        points = [
            (at_x(task), at_y(value))
            for task in range(count)
            if (value := matrix.at(data.score, task, name)) is not None
        ]
        if points:
            lines.append({"concept": concepts[name], "points": points})
    labels = _apart([line["points"][-1][1] for line in lines], 14.0, top + height + 4)
    step = max(1, math.ceil(count / 10))
    tick_digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    if not math.isclose((ticks[1] - ticks[0]) * 10**tick_digits % 1, 0, abs_tol=1e-6):
        tick_digits += 1
    rules = [
        {"y": at_y(statistics.fmean(known)), "words": words}
        for words in ("ceiling", "floor")
        if (known := [c[words] for c in concepts.values() if c[words] is not None])
    ]
    return {
        "lines": [{**line, "label_y": y} for line, y in zip(lines, labels, strict=True)],
        "rules": rules,
        "labelled": len(lines) <= 16,
        "x": [
            {"at": at_x(task), "words": str(task + 1)}
            for task in range(count)
            if task % step == 0 or task == count - 1
        ],
        "y": [
            {"at": at_y(tick / main.scale), "words": _number(tick, tick_digits)} for tick in ticks
        ],
        "box": {"left": left, "right": left + width, "top": top, "bottom": top + height},
    }


def _film(
    method: MethodResult,
    concepts: Mapping[str, Mapping[str, Any]],
    strips: Mapping[str, Strip],
    score: str,
) -> list[dict[str, Any]]:
    """The triangle of pictures: one row a concept, the first picture after each task."""
    matrix = method.matrix
    if len(matrix.tasks) < 3:
        return []
    rows = []
    for name in matrix.concepts:
        drawn = strips[name].drawn if name in strips else {}
        cells = [
            {
                "image": _image(drawn[task][0]) if drawn.get(task) else None,
                "value": matrix.at(score, task, name),
            }
            for task in range(len(matrix.tasks))
        ]
        if any(cell["image"] for cell in cells):
            rows.append({"concept": concepts[name], "cells": cells})
    return rows


def _table(data: Report, main: Score) -> dict[str, Any]:
    """Methods beside each other; the numbers as rows, each from `DERIVED` under its own name."""
    wanted = [(main.name, name) for name in WORDS if name != "final_earlier"]
    others = dict.fromkeys(s for m in data.methods for s in m.matrix.scores if s != main.name)
    for score in others:
        if score == "mmd_change":
            wanted.append((score, "final_earlier"))
            continue
        wanted += [(score, "accuracy_final"), (score, "forgetting")]
    groups: list[dict[str, Any]] = []
    for score, name in wanted:
        about = _describe(data, score)
        cells = []
        for method in data.methods:
            runs = [m for m in (method.matrix, *method.repeats) if score in m.scores]
            cells.append(_spread(_derived(name, runs, score), about.scale, about.digits))
        if set(cells) == {MISSING}:
            continue
        if not groups or groups[-1]["score"] != score:
            better = data.methods[0].matrix.higher_is_better.get(score, about.higher_is_better)
            groups.append({"score": score, "title": about.title, "better": better, "rows": []})
        groups[-1]["rows"].append({"words": WORDS[name], "cells": cells})
    costs: list[dict[str, Any]] = []
    if any(m.seconds for m in data.methods):
        cells = [
            f"{statistics.fmean(m.seconds):.1f} s" if m.seconds else MISSING for m in data.methods
        ]
        costs.append({"words": "learning time of a task, mean", "cells": cells})
    if any(m.kept_bytes for m in data.methods):
        cells = [
            _size(statistics.fmean(m.kept_bytes)) if m.kept_bytes else MISSING for m in data.methods
        ]
        costs.append({"words": "kept on disk of a task, mean", "cells": cells})
    for fact in dict.fromkeys(key for m in data.methods for key in m.facts):
        costs.append({"words": fact, "cells": [m.facts.get(fact, MISSING) for m in data.methods]})
    seeds = max(1 + len(m.repeats) for m in data.methods)
    return {"groups": groups, "costs": costs, "seeds": seeds}


def _definitions(data: Report) -> list[Definition]:
    """The caller's, then those of every score and derived number on the page."""
    result = list(data.definitions)
    scores = dict.fromkeys([data.score, *(s for m in data.methods for s in m.matrix.scores)])
    for score in scores:
        about = _describe(data, score)
        if about.definition:
            result.append(Definition(term=about.title, text=about.definition))
    if max(len(m.matrix.tasks) for m in data.methods) > 1:
        result += [
            Definition(term=f"{WORDS[name].capitalize()} ({name})", text=text)
            for name, text in DEFINITIONS.items()
        ]
    return result
