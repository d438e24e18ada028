"""Records of runs that draw: concepts, taught one after another to a text-to-image model."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from perdure.benchmarks.kind import Data, Kind
from perdure.benchmarks.runs import FORMAT
from perdure.learning.settings import LearnSettings
from perdure.measuring.matrix import (
    TaskMatrix,
    accuracy_final,
    final,
    forgetting_coda,
    forgetting_max,
    right_after,
)
from perdure.measuring.scores import reach
from perdure.measuring.tables import Column
from perdure.methods import METHODS

__all__ = ["DRAWING"]

_COLUMNS = (
    Column(key="after", title="identity, right after", digits=3),
    Column(key="final", title="identity, at the end", digits=3),
    Column(key="forgetting", title="forgetting", higher_is_better=False, digits=3),
    Column(key="reach", title="way from floor to ceiling, right after"),
    Column(key="alignment", title="image alignment, at the end", digits=3),
    Column(key="text", title="text alignment", digits=3),
    Column(key="identity_held_out", title="identity, held-out prompts", digits=3),
    Column(key="text_held_out", title="text alignment, held-out prompts", digits=3),
    Column(key="mmd", title="A_mmd x 1000", scale=1000, higher_is_better=False),
    Column(key="kid", title="KID x 1000", scale=1000, higher_is_better=False),
    Column(key="diversity", title="diversity", digits=3),
    Column(key="drift", title="base drift", higher_is_better=False, digits=3),
    Column(key="pair", title="both recognised, plain"),
    Column(key="boxed", title="both recognised, boxes"),
    Column(key="two", title="two seen, one sentence"),
    Column(key="three", title="three seen, one sentence"),
    Column(key="kept", title="likeness kept in company"),
    Column(key="seconds", title="s a concept", higher_is_better=False, digits=1),
    Column(key="parameters", title="trained", higher_is_better=False, digits=0),
    Column(key="stored", title="kB stored a concept", higher_is_better=False, digits=0),
)
_FURTHER = (
    Column(key="two_plain", title="two seen, nothing laid out"),
    Column(key="two_boxed", title="two seen, boxes"),
    Column(key="at_place", title="seen at a place"),
    Column(key="in_style", title="seen in a style"),
    Column(key="mmd_change", title="F_mmd x 1000", scale=1000, higher_is_better=False),
    Column(key="sharpness", title="sharpness", digits=2),
    Column(key="faces", title="faces matched"),
    Column(key="clip", title="2.5 max(cos, 0)", digits=3),
    Column(key="forgetting_max", title="best - last, identity", higher_is_better=False, digits=3),
    Column(key="forgetting_coda", title="F_N, identity", higher_is_better=False, digits=3),
    Column(
        key="alignment_lost", title="forgetting, image alignment", higher_is_better=False, digits=3
    ),
    Column(key="share", title="trained, % of the denoiser", scale=100, higher_is_better=False),
    Column(key="density", title="kept by masks, %", scale=100, digits=1),
    Column(key="density_least", title="least, a layer, %", scale=100, digits=1),
    Column(key="density_most", title="most, a layer, %", scale=100, digits=1),
    Column(key="memory", title="GB at most", scale=1e-9, higher_is_better=False),
)
_ORDER = (  # what simply goes on, what is merged, the papers' methods, ours, and what bounds them
    "textual-inversion",
    "dreambooth",
    "custom-diffusion",
    "lora",
    "ewc",
    "generative-replay",
    "lora-merged",
    "custom-diffusion-merged",
    "c-lora",
    "stamina",
    "cidm",
    "fl2t",
    "gated",
    "feature-space",
    "lora-independent",
    "joint",
)


def _stream(data: Data) -> Any:
    told = data["stream"]
    return told["name"], told["pictures"], sorted(one["name"] for one in told["concepts"])


_FINAL = {
    "final": "identity",
    "alignment": "image_alignment",
    "text": "text_alignment",
    "mmd": "mmd",
    "kid": "kid",
    "clip": "clip_score_cifc",
    "identity_held_out": "identity_held_out",
    "text_held_out": "text_held_out",
    "diversity": "diversity",
    "sharpness": "sharpness",
    "faces": "faces_matched",
}
"""Numbers that are the mean of a score over all concepts at the end. (Drift is no concept's.)"""


def _numbers(data: Data, matrix: TaskMatrix) -> dict[str, float]:
    together, memory = data["together"], data["peak_memory"]
    found = {
        "seconds": sum(data["seconds"]) / len(matrix.concepts),
        "parameters": data["parameters"],
        "stored": data["stored_bytes"] / 1000 / len(matrix.concepts),
        "share": data["parameters"] / data["parameters_of_denoiser"],
    }
    found |= {key: statistics.fmean(own.values()) for key, own in _parts(data, matrix).items()}
    if "base_drift" in _scored(matrix):
        found["drift"] = accuracy_final(matrix, "base_drift")
    if entries := [one for task in data.get("masks", ()) for one in task.values()]:
        shares = [kept / of for kept, of in entries]
        found |= {
            "density": sum(kept for kept, _ in entries) / sum(of for _, of in entries),
            "density_least": min(shares),
            "density_most": max(shares),
        }
    if memory:
        found["memory"] = memory
    if together:
        found |= {"pair": together["plain"]["both"], "boxed": together["boxes"]["both"]}
        found |= _in_company(together.get("company", {}))
    if data["moments"] == "all" and _earlier(matrix, "identity"):
        found["forgetting_max"] = forgetting_max(matrix, "identity")
        found["forgetting_coda"] = forgetting_coda(matrix, "identity")
    return found


_SEEN = {
    "two": ("pairs", "sentence"),
    "two_plain": ("pairs", "plain"),
    "two_boxed": ("pairs", "boxes"),
    "three": ("triples", "sentence"),
    "at_place": ("places", "sentence"),
    "in_style": ("styles", "sentence"),
}


def _in_company(told: Data) -> dict[str, float]:
    """Numbers of who is seen in one picture; older records lack them."""
    found = {
        key: told[company][arrangement]["all"]
        for key, (company, arrangement) in _SEEN.items()
        if company in told
    }
    if told:
        names = [name for pair in told["pairs"]["groups"] for name in pair]
        alone = statistics.fmean(told["alone"][name] for name in names)
        found["kept"] = told["pairs"]["sentence"]["likeness"] / alone
    return found


def _parts(data: Data, matrix: TaskMatrix) -> dict[str, dict[str, float]]:
    """Every number that is a mean over concepts, concept by concept."""
    scored = _scored(matrix)
    found = {key: final(matrix, score) for key, score in _FINAL.items() if score in scored}
    if "identity" in scored:
        found["after"] = right_after(matrix, "identity")
    found["reach"] = {
        name: reach(found["after"][name], ceiling=ceiling, floor=floor)
        for name, (ceiling, floor) in data["bounds"].items()
        if ceiling > floor
    }
    for key, score in (("forgetting", "identity"), ("alignment_lost", "image_alignment")):
        if names := _earlier(matrix, score):
            first, last = right_after(matrix, score), final(matrix, score)
            found[key] = {name: first[name] - last[name] for name in names}
    if names := _earlier(matrix, "mmd_change"):
        last = final(matrix, "mmd_change")
        found["mmd_change"] = {name: last[name] for name in names}
    return {key: own for key, own in found.items() if own}


def _scored(matrix: TaskMatrix) -> list[str]:
    return [score for score in matrix.scores if matrix.scored(score)]


def _earlier(matrix: TaskMatrix, score: str) -> tuple[str, ...]:
    """The concepts that could be forgotten; none of a score that was not measured."""
    return matrix.earlier(score) if score in matrix.scores else ()


def _asked(data: Data) -> dict[str, Any]:
    """Photographs count by their names: the folder may be called otherwise, or lie elsewhere.

    A record that does not speak of held-out prompts is of a run without them.
    """
    stream = dict(data["stream"])
    stream["concepts"] = [
        {**one, "files": [Path(file).name for file in one["files"]]} if "files" in one else one
        for one in stream["concepts"]
    ]
    return {"held_out": False, **data["asked"], "stream": stream}


def _facts(data: Data) -> dict[str, Any]:
    return {
        "order": data["stream"]["order"],
        "seed": data["seed"],
        "base": data["base"]["name"],
        "base_hash": data["base"]["hash"],
        "encoder": data["encoder"]["name"],
        "encoder_hash": data["encoder"]["hash"],
        "pictures": data["pictures"],
    }


DRAWING = Kind(
    format=FORMAT,
    methods=METHODS,
    settings=LearnSettings,
    order=_ORDER,
    alike={"base": "base", "encoder": "metric encoder", "pictures": "number of pictures"},
    title=lambda data: str(data["stream"]["name"]),
    stream=_stream,
    columns=_COLUMNS,
    paired=tuple(
        (
            name,
            ("final", "forgetting", "alignment", "text", "identity_held_out", "mmd", "diversity"),
        )
        for name in ("lora", "c-lora", "lora-independent")
    ),
    further=_FURTHER,
    asked=_asked,
    numbers=_numbers,
    parts=_parts,
    facts=_facts,
)
