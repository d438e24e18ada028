"""What tables and page say in words: what was run, what each number means, and where it ran."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from perdure.benchmarks.paired import concepts_each
from perdure.benchmarks.records import Record
from perdure.benchmarks.results import Results
from perdure.measuring.company import SENTENCES
from perdure.measuring.matrix import DEFINITIONS
from perdure.measuring.scores import SCORES
from perdure.measuring.tables import Column
from perdure.methods import Composed, Method

__all__ = [
    "MEANINGS",
    "alike",
    "commands",
    "counted",
    "definitions",
    "lead",
    "on_what",
    "seeds_each",
    "surroundings",
    "table_note",
    "varied",
]

_BOTH = (
    "Share of the pictures of two concepts in which each half, looked at alone, is closest in "
    "identity to its concept, of all concepts of the stream; "
)
_TWO = SENTENCES["pairs"]
_SEEN = (
    "Share of the pictures that show the concepts asked for and no others, wherever they stand "
    "(`perdure.measuring.detector`); "
)
MEANINGS = {
    "after": f"{SCORES['identity'].definition} {DEFINITIONS['mean_right_after']}",
    "final": f"Identity. {DEFINITIONS['accuracy_final']}",
    "forgetting": f"Of identity. {DEFINITIONS['forgetting']}",
    "reach": "(S[j, j] - floor) / (ceiling - floor) of identity, mean over concepts. Ceiling: a "
    "concept's real pictures, through the base's autoencoder, against its other real pictures. "
    "Floor: the real pictures of the other concepts.",
    "alignment": f"{SCORES['image_alignment'].definition} {DEFINITIONS['accuracy_final']}",
    "text": f"{SCORES['text_alignment'].definition} Mean over all concepts at the end.",
    "drift": f"{SCORES['base_drift'].definition} At the end of the stream.",
    "pair": f"{_BOTH}drawn by the prompt “{_TWO.format('<a>', '<b>')}” alone, in either order.",
    "boxed": f"{_BOTH}each half drawn by a phrase of its own, such as "
    f"“{_TWO.format('<a>', 'a person')}”, in the order asked for.",
    "two": f"{_SEEN}of two, drawn by one sentence that lays itself out.",
    "two_plain": f"{_SEEN}of two, drawn by one sentence with nothing laid out.",
    "two_boxed": f"{_SEEN}of two, each half drawn by a phrase of its own.",
    "three": f"{_SEEN}of three, drawn by one sentence that lays itself out.",
    "kept": "Identity of each of two where it is seen best, by that of the same concepts drawn "
    "alone: one sentence that lays itself out.",
    "at_place": "Share of the pictures of a subject at a place in which both are seen.",
    "in_style": "Share of the pictures of a subject in a style in which the subject is seen and "
    "the picture comes closest to the style's.",
    "seconds": "Learning time of the whole stream by the number of concepts, on the machine below.",
    "parameters": "Numbers that were trained in the last task.",
    "mmd": SCORES["mmd"].definition,
    "mmd_change": SCORES["mmd_change"].definition,
    "diversity": f"{SCORES['diversity'].definition} {DEFINITIONS['accuracy_final']}",
    "identity_held_out": f"{SCORES['identity_held_out'].definition} At the end.",
    "text_held_out": f"{SCORES['text_held_out'].definition} At the end.",
    "sharpness": f"{SCORES['sharpness'].definition} Mean over all concepts at the end.",
    "faces": f"{SCORES['faces_matched'].definition} Mean over all concepts at the end.",
    "kid": f"{SCORES['kid'].definition} Mean over all concepts at the end.",
    "clip": f"{SCORES['clip_score_cifc'].definition} Mean over all concepts at the end.",
    "forgetting_max": f"Of identity. {DEFINITIONS['forgetting_max']}",
    "forgetting_coda": f"Of identity. {DEFINITIONS['forgetting_coda']}",
    "alignment_lost": f"Of image alignment. {DEFINITIONS['forgetting']}",
    "share": "Numbers that were trained in the last task, of all in the base's denoiser.",
    "density": "Share of the entries of all deltas, of all tasks and layers together, that masks "
    "keep.",
    "density_least": "The least such share of one layer in one task.",
    "density_most": "The largest such share of one layer in one task.",
    "memory": "The most memory that the run's process took, of the GPU where one was used, in 10^9 "
    "bytes; measuring is part of the run.",
    "stored": "Size of the concepts' files by the number of concepts, in 1000 bytes.",
}


def counted(values: Sequence[int], word: str) -> str:
    """`3 seeds`, or `2 to 3 seeds` where methods differ."""
    low, high = min(values), max(values)
    number = str(low) if low == high else f"{low} to {high}"
    return f"{number} {word}{'' if high == 1 else 's'}"


def lead(results: Results) -> str:
    """The page's first sentences."""
    count = len(results.data["stream"]["concepts"])
    bases = ", ".join(dict.fromkeys(record.data["base"]["name"] for record in results.records))
    text = (
        f"{count} concepts, taught one after another to {bases}: "
        f"{counted([len(results.methods)], 'method')}, {seeds_each(results)} each."
    )
    if names := results.data["styles"]:
        styles = " and ".join(names)
        text += (
            f" {styles} {'are styles' if len(names) > 1 else 'is a style'}: a style has "
            "no identity to recognise, so identity is of the others, and image alignment, which "
            "styles have, is shown beside it."
        )
    return text


def table_note(results: Results, runs: str = "the stream in its first order") -> str:
    """How the table's cells are to be read; ``runs`` says which runs they are of."""
    return " ".join([_spread_note(results, runs), *_late_modules(results)])


def _late_modules(results: Results) -> list[str]:
    """Which rows know less of forgetting than others: see `Run` on compositions."""
    methods = results.kind.methods
    late = [
        method.title
        for method in results.methods
        if issubclass(methods.get(method.first[0].data["method"], Method), Composed)
        and any(not one.data.get("compositions") for one in method.first)
    ]
    return [
        f"{title} is drawn at every moment with the module of the end, so its forgetting leaves "
        "out what the module lost."
        for title in late
    ]


def _spread_note(results: Results, runs: str) -> str:
    if max(len(method.first) for method in results.methods) < 2:
        return (
            "One run a method: there is no spread, nothing is marked as best, and a small "
            "difference may be chance."
        )
    return (
        f"Mean ± sample standard deviation over {seeds_each(results)}, {runs}. "
        f"{same + ' ' if (same := concepts_each(results)) else ''}"
        "Bold: the best of a column and all that is not told from it, because the 95 % interval of "
        "their difference, paired over seeds and concepts, holds zero; nothing where that is all. "
        "A number without ± is the same in every run, or of one alone."
    )


def seeds_each(results: Results) -> str:
    """How many seeds a method has."""
    return counted([len(method.first) for method in results.methods], "seed")


def definitions(columns: Sequence[Column], meanings: Mapping[str, str]) -> list[tuple[str, str]]:
    """The table's columns and what they mean."""
    return [(column.title, meanings[column.key]) for column in columns]


def surroundings(results: Results) -> dict[str, str]:
    """With what, and on what, the runs were made; several values where they differ."""
    records = results.records
    facts = {
        "base": (
            f"{one.data['base']['name']}, sha256 {one.data['base']['hash']}" for one in records
        ),
        "metric encoder": (
            f"{one.data['encoder']['name']}, sha256 {one.data['encoder']['hash']}; identity is its "
            f"{one.data['encoder']['identity']}"
            for one in records
        ),
        "seeds": [", ".join(map(str, sorted({one.seed for one in records})))],
        "orders": [", ".join(map(str, sorted({one.order for one in records})))],
        "pictures of a concept to learn from": (one.data["stream"]["pictures"] for one in records),
        "pictures drawn of a concept at a moment": (one.data["pictures"] for one in records),
        "moments": (
            {
                "all": "after every task",
                "milestones": "right after its own task, after 1, 2, 5, 10, ..., and at the end",
                "ends": "right after its own task, and at the end",
            }[one.data["moments"]]
            for one in records
        ),
    }
    return on_what(records, facts)


def on_what(records: Sequence[Record], facts: Mapping[str, Iterable[Any]]) -> dict[str, str]:
    """Facts, with one value a record or fewer, then versions and memory; each value named once."""
    versions = dict.fromkeys(key for one in records for key in one.data["versions"])
    said = {
        **facts,
        **{key: [one.data["versions"].get(key, "") for one in records] for key in versions},
    }
    told = {key: " · ".join(dict.fromkeys(map(str, values))) for key, values in said.items()}
    if memory := max(one.data["peak_memory"] or 0 for one in records):
        told["peak memory of a run"] = f"{memory / 1e9:.1f} GB at most"
    return told


def commands(results: Results) -> list[str]:
    """What makes these records: a command for the methods that were run alike."""
    told = results.data["stream"]
    photographed = any("files" in one for one in told["concepts"])
    name = "folders" if results.stream.startswith("folders-") else results.stream
    name += " --photos FOLDER" if photographed else ""
    return [
        f"perdure bench {name} --method {','.join(names)} {options}"
        for options, names in alike(results, _options).items()
    ]


def alike(results: Results, options: Callable[[Sequence[Record]], str]) -> dict[str, list[str]]:
    """The options of a command -> the methods whose runs it makes."""
    asked: dict[str, list[str]] = {}
    for name in dict.fromkeys(record.data["method"] for record in results.records):
        runs = [record for record in results.records if record.data["method"] == name]
        asked.setdefault(options(runs), []).append(name)
    return asked


def varied(runs: Sequence[Record]) -> list[str]:
    """`--vary` for everything that was chosen, with all its values."""
    return [
        f"--vary {key}="
        + ",".join(dict.fromkeys(json.dumps(one.data["chosen"].get(key)) for one in runs))
        for key in dict.fromkeys(key for one in runs for key in one.data["chosen"])
    ]


def _options(runs: Sequence[Record]) -> str:
    first = runs[0].data
    parts = [f"--seeds {1 + max(one.seed for one in runs)}"]
    parts += [f"--orders {orders}" for orders in [1 + max(one.order for one in runs)] if orders > 1]
    if len({one.seed for one in runs}) > 1 and not _fresh(runs):
        parts.append("--concepts same")
    parts += varied(runs)
    parts.append(f"--pictures {first['pictures']}")
    parts.append(f"--pairs {len(first['together']['pairs']) if first['together'] else 0}")
    for key in ("base", "encoder"):
        if (value := first["asked"][key]) not in (None, "smallworld"):
            parts.append(f"--{key} {shlex.quote(value)}")
    if not first["asked"].get("held_out"):
        parts.append("--no-held-out")
    return " ".join(parts)


def _fresh(runs: Sequence[Record]) -> bool:
    """Has each seed identities of its own? Photographs have none to choose from."""
    drawn = {
        one.seed: [told.get("seed") for told in one.data["stream"]["concepts"]] for one in runs
    }
    first = next(iter(drawn.values()))
    return None in first or any(sorted(own) != sorted(first) for own in drawn.values())
