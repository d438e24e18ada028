"""The charts of docs/results.md, drawn from the records under docs/data; see tables.py."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from html import escape
from pathlib import Path
from statistics import fmean

from perdure.benchmarks.paired import difference
from perdure.benchmarks.records import Record
from perdure.benchmarks.results import read_results
from perdure.benchmarks.series import by_place
from perdure.measuring.chart import apart, axis
from perdure.measuring.tables import number

DATA = Path(__file__).parent / "data"
STREAMS = {
    "people-5": "five people",
    "people-10": "ten people",
    "mixed-10": "ten of five kinds",
    "people+places-50": "fifty people and places",
}
INK, FAINT, GRID, TOLD, BESIDE = "#1c2430", "#6b7480", "#dfe3e8", "#0a6ebd", "#8f98a3"
LINES = ("#0a6ebd", "#c8500f", "#2b8a3e", "#7a3fa0", "#a07800", "#555f6b")
WIDTH, ROW = 760.0, 24.0


@cache
def runs(stream: str) -> dict[str, tuple[Record, ...]]:
    """A method's title -> its runs of the stream's first order."""
    return {method.title: method.first for method in read_results(DATA / stream).methods}


def mean(stream: str, title: str, key: str) -> float:
    return fmean(fmean(one.parts[key].values()) for one in runs(stream)[title])


def svg(height: float, label: str, parts: Sequence[str]) -> str:
    """A picture that stands on white, on a dark page too."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height:.0f}" '
        f'width="{WIDTH:.0f}" height="{height:.0f}" role="img" aria-label="{escape(label)}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="13">'
    )
    ground = f'<rect width="{WIDTH:.0f}" height="{height:.0f}" rx="6" fill="#ffffff"/>'
    return "\n".join([head, f"<title>{escape(label)}</title>", ground, *parts, "</svg>\n"])


def text(
    x: float, y: float, words: str, *, anchor: str = "start", fill: str = INK, bold: bool = False
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}"{weight}>'
        f"{escape(words)}</text>"
    )


def line(x0: float, y0: float, x1: float, y1: float, colour: str, width: float = 1) -> str:
    return (
        f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{colour}" '
        f'stroke-width="{width:g}"/>'
    )


def dot(x: float, y: float, colour: str, *, filled: bool = True) -> str:
    fill = colour if filled else "#ffffff"
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{fill}" stroke="{colour}" '
        'stroke-width="1.8"/>'
    )


def scale(low: float, high: float, left: float, right: float) -> Callable[[float], float]:
    return lambda value: left + (right - left) * (value - low) / (high - low)


def spanned(values: Sequence[float], *, zero: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    low, high = (min(low, 0.0), max(high, 0.0)) if zero else (low, high)
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def intervals(
    pairs: Sequence[tuple[str, str]],
    key: str,
    words: str,
    label: str,
    *,
    streams: Sequence[str] = tuple(STREAMS),
    names: dict[str, str] | None = None,
    scaled: float = 1.0,
    digits: int = 2,
) -> str:
    """A row a pair and stream: the mean difference and its interval, dark where it excludes 0."""
    known = names or STREAMS
    rows = []
    for one, other in pairs:
        for stream in streams:
            if one in runs(stream) and other in runs(stream):
                found = difference(runs(stream)[one], runs(stream)[other], key)
                if found:
                    rows.append((one, other, known[stream], found))
    left, right, top = 300.0, WIDTH - 24, 46.0
    span = [scaled * v for *_, found in rows for v in (found.low, found.high)]
    low, high = spanned(span, zero=True)
    at, bottom = scale(low, high, left, right), top + ROW * (len(rows) + len(pairs))
    parts = [text(14, 22, words, fill=FAINT)]
    for value, said in axis(low, high):
        parts += [line(at(value), top - 8, at(value), bottom, GRID)]
        parts += [text(at(value), bottom + 18, said, anchor="middle", fill=FAINT)]
    parts.append(line(at(0), top - 8, at(0), bottom, INK, 1.4))
    y = top + 6
    for one, other in pairs:
        parts.append(text(14, y + 4, f"{one} less {other}", bold=True))
        for first, second, stream, found in rows:
            if (first, second) != (one, other):
                continue
            y += ROW
            colour = TOLD if found.told else BESIDE
            ends = (at(scaled * found.low), at(scaled * found.high))
            said = number(scaled * found.mean, digits)
            seeds = "one seed" if found.seeds == 1 else f"{found.seeds} seeds"
            parts += [text(26, y + 4, f"{stream}, {seeds}", fill=FAINT)]
            parts += [text(left - 12, y + 4, said, anchor="end")]
            parts += [line(ends[0], y, ends[1], y, colour, 2.2)]
            parts += [line(x, y - 5, x, y + 5, colour, 2.2) for x in ends]
            parts += [dot(at(scaled * found.mean), y, colour)]
        y += ROW
    return svg(bottom + 32, label, parts)


def falls(
    stream: str,
    titles: Sequence[str],
    label: str,
    *,
    keys: tuple[str, str] = ("after", "final"),
    words: str = "identity: hollow right after learning, filled at the end",
) -> str:
    """A row a method: the first number hollow, the second filled."""
    left, right, top = 210.0, WIDTH - 24, 46.0
    ends = [(mean(stream, t, keys[0]), mean(stream, t, keys[1])) for t in titles]
    low, high = spanned([v for pair in ends for v in pair], zero=False)
    at, bottom = scale(low, high, left, right), top + ROW * len(titles)
    parts = [text(14, 22, words, fill=FAINT)]
    for value, said in axis(low, high):
        parts += [line(at(value), top - 8, at(value), bottom, GRID)]
        parts += [text(at(value), bottom + 18, said, anchor="middle", fill=FAINT)]
    for k, (title, (after, final)) in enumerate(zip(titles, ends, strict=True)):
        y = top + ROW * (k + 0.5)
        parts += [text(14, y + 4, title), line(at(after), y, at(final), y, TOLD, 2.2)]
        parts += [dot(at(after), y, TOLD, filled=False), dot(at(final), y, TOLD)]
    return svg(bottom + 32, label, parts)


def orders(stream: str, titles: Sequence[str], label: str) -> str:
    """A row a method: identity at the end of seed 0 in every order, one mark an order."""
    left, right, top = 210.0, WIDTH - 24, 46.0
    methods = {one.title: one.orders for one in read_results(DATA / stream).methods}
    ends = {
        title: [
            fmean(one.parts["final"].values())
            for of_order in methods[title].values()
            for one in of_order
            if one.seed == 0
        ]
        for title in titles
    }
    low, high = spanned([v for values in ends.values() for v in values], zero=False)
    at, bottom = scale(low, high, left, right), top + ROW * len(titles)
    parts = [text(14, 22, "identity at the end, one mark an order, seed 0", fill=FAINT)]
    for value, said in axis(low, high):
        parts += [line(at(value), top - 8, at(value), bottom, GRID)]
        parts += [text(at(value), bottom + 18, said, anchor="middle", fill=FAINT)]
    for k, (title, values) in enumerate(ends.items()):
        y = top + ROW * (k + 0.5)
        parts += [text(14, y + 4, title), line(at(min(values)), y, at(max(values)), y, TOLD, 2.2)]
        parts += [dot(at(value), y, TOLD, filled=False) for value in values]
    return svg(bottom + 32, label, parts)


def places(stream: str, titles: Sequence[str], parts_of: int, label: str) -> str:
    """A line a method: how well each part of a long stream is learned, right after its tasks."""
    left, right, top, bottom = 52.0, WIDTH - 190, 40.0, 300.0
    found = {t: by_place(runs(stream)[t][0].matrix, "identity", parts_of) for t in titles}
    values = [after for one in found.values() for after, _ in one.values()]
    low, high = spanned(values, zero=False)
    at_y = scale(low, high, bottom, top)
    at_x = scale(0, parts_of - 1, left + 20, right - 20)
    parts = [text(left, 22, "identity right after learning", fill=FAINT)]
    for value, said in axis(low, high):
        parts += [line(left, at_y(value), right, at_y(value), GRID)]
        parts += [text(left - 8, at_y(value) + 4, said, anchor="end", fill=FAINT)]
    for k, (first, last) in enumerate(next(iter(found.values()))):
        parts.append(text(at_x(k), bottom + 20, f"{first}–{last}", anchor="middle", fill=FAINT))
    middle = (left + right) / 2
    parts.append(text(middle, bottom + 40, "place in the stream", anchor="middle", fill=FAINT))
    heights = apart([at_y([v for v, _ in one.values()][-1]) for one in found.values()], 16, bottom)
    for (title, one), colour, height in zip(found.items(), LINES, heights, strict=False):
        points = [(at_x(k), at_y(after)) for k, (after, _) in enumerate(one.values())]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.2"/>'
        )
        parts += [dot(x, y, colour) for x, y in points]
        parts.append(text(right - 6, height + 4, title, fill=colour))
    return svg(bottom + 54, label, parts)


LORA, CLORA, STAMINA, CIDM, FL2T = "LoRA, sequential", "C-LoRA", "STAMINA", "CIDM", "FL2T"
GATED, FEATURE, ALONE = "Gated", "Feature-space", "LoRA, independent"
MERGED = "Custom Diffusion, merged"
CLASSES = {
    "smallworld-classes-100-10-tasks": "drawn, 10 tasks",
    "smallworld-classes-100-20-tasks": "drawn, 20 tasks",
    "tiny-imagenet-100-10-tasks": "photographs, 10 tasks",
    "tiny-imagenet-100-20-tasks": "photographs, 20 tasks",
}

CHARTS: dict[str, Callable[[], str]] = {
    "kept": partial(
        falls,
        "people-10",
        (
            "DreamBooth, sequential",
            "Custom Diffusion, sequential",
            LORA,
            "LoRA, merged",
            CLORA,
            STAMINA,
            "EWC",
            CIDM,
            MERGED,
            FL2T,
            ALONE,
            FEATURE,
            GATED,
        ),
        "Ten people: identity right after learning and at the end, one row a method",
    ),
    "c-lora": partial(
        intervals,
        [(CLORA, LORA)],
        "forgetting",
        "forgetting of identity; left of 0: C-LoRA forgets less",
        "Forgetting of C-LoRA less that of sequential LoRA, with 95 % intervals",
    ),
    "stamina": partial(
        intervals,
        [(STAMINA, CLORA)],
        "final",
        "identity at the end; right of 0: STAMINA is above",
        "Identity at the end of STAMINA less that of C-LoRA, with 95 % intervals",
        streams=(*STREAMS, "people-100"),
        names={**STREAMS, "people-100": "a hundred people"},
    ),
    "saturation": partial(
        places,
        "people-100",
        (
            GATED,
            FEATURE,
            CLORA,
            "C-LoRA (penalty 10000.0)",
            STAMINA,
            "STAMINA (penalty 10000.0)",
        ),
        5,
        "A hundred people: identity right after learning, by place in the stream",
    ),
    "fl2t": partial(
        intervals,
        [(FL2T, CIDM), (FL2T, ALONE)],
        "alignment",
        "image alignment at the end; right of 0: FL2T is above",
        "Image alignment of FL2T less that of CIDM and of independent adapters",
        digits=3,
    ),
    "independent-identity": partial(
        intervals,
        [(GATED, ALONE), (FEATURE, ALONE), (CIDM, ALONE)],
        "final",
        "identity at the end; right of 0: above independent adapters",
        "Identity at the end less that of independent adapters, with 95 % intervals",
    ),
    "independent-mmd": partial(
        intervals,
        [(GATED, ALONE), (FEATURE, ALONE), (CIDM, ALONE)],
        "mmd",
        "A_mmd x 1000, lower is better; right of 0: worse than independent adapters",
        "A_mmd less that of independent adapters, with 95 % intervals",
        scaled=1000.0,
    ),
    "orders": partial(
        orders,
        "mixed-10",
        (LORA, CLORA, STAMINA, CIDM, FL2T, ALONE, FEATURE, GATED),
        "Ten of five kinds: identity at the end in three orders, one row a method",
    ),
    "pairs": partial(
        falls,
        "people-5",
        (LORA, CLORA, STAMINA, CIDM, FL2T, ALONE, FEATURE, GATED),
        "Two of five people in one picture: share in which both are recognised",
        keys=("pair", "boxed"),
        words="both recognised: hollow by a plain sentence, filled with a box each",
    ),
    "classes": partial(
        intervals,
        [(LORA, CLORA), ("CODA-Prompt", CLORA), (STAMINA, CLORA), ("InfLoRA", CLORA)],
        "A_N",
        "A_N, points; left of 0: below C-LoRA",
        "Accuracy at the end less that of C-LoRA, with 95 % intervals",
        streams=tuple(CLASSES),
        names=CLASSES,
        scaled=100.0,
        digits=1,
    ),
}
"""File under docs/charts -> what draws it."""
