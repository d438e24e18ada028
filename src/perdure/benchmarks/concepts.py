"""Records of runs that draw: concepts, taught one after another to a text-to-image model."""

from __future__ import annotations

import statistics
from typing import Any

from perdure.benchmarks.kind import Data, Kind
from perdure.benchmarks.runs import FORMAT
from perdure.measuring.matrix import TaskMatrix, accuracy_final, forgetting, mean_right_after
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
    Column(key="drift", title="base drift", higher_is_better=False, digits=3),
    Column(key="pair", title="both recognised, plain"),
    Column(key="boxed", title="both recognised, boxes"),
    Column(key="seconds", title="s a concept", higher_is_better=False, digits=1),
    Column(key="parameters", title="trained", higher_is_better=False, digits=0),
    Column(key="stored", title="kB stored a concept", higher_is_better=False, digits=0),
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


def _numbers(data: Data, matrix: TaskMatrix) -> dict[str, float]:
    reached = [
        (matrix.need("identity", matrix.learned_at(name), name) - floor) / (ceiling - floor)
        for name, (ceiling, floor) in data["bounds"].items()
    ]
    together = data["together"]
    found = {
        "after": mean_right_after(matrix, "identity"),
        "final": accuracy_final(matrix, "identity"),
        "reach": statistics.fmean(reached),
        "alignment": accuracy_final(matrix, "image_alignment"),
        "text": accuracy_final(matrix, "text_alignment"),
        "drift": accuracy_final(matrix, "base_drift"),
        "seconds": sum(data["seconds"]) / len(matrix.concepts),
        "parameters": data["parameters"],
        "stored": data["stored_bytes"] / 1000 / len(matrix.concepts),
    }
    if len(matrix.tasks) > 1:
        found["forgetting"] = forgetting(matrix, "identity")
    if together:
        found |= {"pair": together["plain"]["both"], "boxed": together["boxes"]["both"]}
    return found


def _facts(data: Data) -> dict[str, Any]:
    return {
        "order": data["stream"]["order"],
        "seed": data["seed"],
        "base": data["base"]["name"],
        "base_hash": data["base"]["hash"],
        "encoder": data["encoder"],
        "pictures": data["pictures"],
    }


DRAWING = Kind(
    format=FORMAT,
    methods=METHODS,
    order=_ORDER,
    alike={"base": "base", "encoder": "metric encoder", "pictures": "number of pictures"},
    title=lambda data: str(data["stream"]["name"]),
    stream=_stream,
    columns=_COLUMNS,
    numbers=_numbers,
    facts=_facts,
)
