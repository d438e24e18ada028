"""Records of runs that classify: classes, taught task after task to a vision transformer."""

from __future__ import annotations

from typing import Any

from perdure.benchmarks.kind import Data, Kind
from perdure.classification.registry import CLASSIFIERS
from perdure.classification.run import FORMAT, derived
from perdure.classification.settings import FitSettings
from perdure.measuring.matrix import TaskMatrix
from perdure.measuring.tables import Column

__all__ = ["CLASSIFICATION", "asked_of"]

_COLUMNS = (
    Column(key="A_N", title="A_N %", scale=100),
    Column(key="A_mean", title="A_mean %", scale=100),
    Column(key="F_N", title="F_N %", scale=100, higher_is_better=False),
    Column(key="F_N_max", title="best - last %", scale=100, higher_is_better=False),
    Column(key="trained", title="trained", digits=0, higher_is_better=False),
    Column(key="stored", title="stored", digits=0, higher_is_better=False),
    Column(key="seconds", title="s a task", digits=1, higher_is_better=False),
)
_ORDER = (  # what stays, what simply goes on, the papers', ours, what keeps pictures, the bound
    "probe",
    "ft",
    "ft++",
    "lwf",
    "ewc",
    "lora",
    "coda-prompt",
    "inflora",
    "c-lora",
    "stamina",
    "feature-space",
    "replay",
    "joint",
)


def _title(data: Data) -> str:
    count = len(data["class_order"])
    return f"{data['stream']['name']} in {count} task{'' if count == 1 else 's'}"


def _stream(data: Data) -> Any:
    told = data["stream"]
    classes = sorted(name for task in data["class_order"] for name in task)
    return told["name"], told["train"], told["test"], len(data["class_order"]), classes


def _numbers(data: Data, matrix: TaskMatrix) -> dict[str, float]:
    found = {key: value for key, value in derived(matrix).items() if value is not None}
    return found | {
        "trained": data["trained"],
        "stored": data["stored"],
        "seconds": sum(data["seconds"]) / len(data["class_order"]),
    }


def _facts(data: Data) -> dict[str, Any]:
    return {
        "tasks": len(data["class_order"]),
        "seed": data["seed"],
        "backbone": data["backbone"]["name"],
        "backbone_hash": data["backbone"]["hash"],
        "device": data["asked"]["device"],
    }


def asked_of(data: Data) -> dict[str, Any]:
    """What must be equal for a run not to be repeated; on what it computes is no part of it."""
    told = {key: value for key, value in data["asked"].items() if key != "device"}
    own = {f"method.{key}": value for key, value in data["config"].items()}
    return {**told, **data["settings"], **own}


CLASSIFICATION = Kind(
    format=FORMAT,
    methods=CLASSIFIERS,
    settings=FitSettings,
    order=_ORDER,
    alike={"backbone": "backbone", "preprocessing": "preprocessing"},
    title=_title,
    stream=_stream,
    columns=_COLUMNS,
    paired=(("c-lora", ("A_N", "A_mean", "F_N", "F_N_max")),),
    further=(),
    asked=asked_of,
    numbers=_numbers,
    parts=lambda data, matrix: {},
    facts=_facts,
)
