"""A classifier on disk: safetensors, and one JSON file that names them and is replaced last.

classifier.json               backbone, method, settings, the classes of every task, file names
task-<sha256>.safetensors     what the method kept of a task; never changes
state-<sha256>.safetensors    head, moments, kept pictures: as after the last task
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from perdure.classification.moments import readers
from perdure.durable import replace_file
from perdure.errors import PerdureError
from perdure.methods.protocol import Kept
from perdure.outputs import output_folder
from perdure.untrusted import read_json

__all__ = ["INDEX", "State", "read", "write"]

INDEX = "classifier.json"
FORMAT = 1
_MOMENTS = "moments/"


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """All of a classifier but its backbone's weights."""

    backbone: str
    hash: str
    preprocessing: Mapping[str, Any]
    method: Mapping[str, Any]
    settings: Mapping[str, Any]
    tasks: tuple[tuple[int | str, ...], ...]
    facts: tuple[dict[str, float], ...]
    kept: tuple[Kept, ...]
    tensors: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    """By layer; those that share one are stored once."""


def write(folder: Path, state: State) -> None:
    """Save; a crash leaves the folder as it was or as it is to be."""
    output_folder(folder)
    firsts = set(readers(state.moments).values())
    whole = dict(state.tensors)
    whole |= {f"{_MOMENTS}{layer}": state.moments[layer] for layer in firsts}
    index = {
        "format": FORMAT,
        "backbone": {"name": state.backbone, "hash": state.hash},
        "preprocessing": dict(state.preprocessing),
        **state.method,
        "settings": dict(state.settings),
        "tasks": [
            {"classes": classes, "facts": facts, "file": _put(folder, "task", kept.tensors)}
            for classes, facts, kept in zip(state.tasks, state.facts, state.kept, strict=True)
        ],
        "layers": list(state.moments),
        "state": _put(folder, "state", whole),
    }
    replace_file(folder / INDEX, (json.dumps(index, indent=1) + "\n").encode())
    named = {index["state"], *(task["file"] for task in index["tasks"])}
    for kind in ("task", "state"):
        for path in folder.glob(f"{kind}-*.safetensors"):
            if path.name not in named:
                path.unlink()


def read(folder: Path) -> State:
    """Load what `write` wrote; PerdureError where it is not there or not readable."""
    try:
        index = read_json(folder / INDEX)
        if index["format"] != FORMAT:
            raise PerdureError(f"{folder} has the format {index['format']}, and this reads 1.")
        whole = load_file(folder / index["state"])
        tasks = tuple(tuple(task["classes"]) for task in index["tasks"])
        files = [task["file"] for task in index["tasks"]]
        kept = tuple(
            Kept(tuple(map(str, classes)), load_file(folder / file))
            for classes, file in zip(tasks, files, strict=True)
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise PerdureError(f"{folder} is not a readable classifier: {error}") from error
    moments = {
        layer: whole[f"{_MOMENTS}{first}"] for layer, first in readers(index["layers"]).items()
    }
    return State(
        backbone=index["backbone"]["name"],
        hash=index["backbone"]["hash"],
        preprocessing=index["preprocessing"],
        method={"method": index["method"], "config": index["config"]},
        settings=index["settings"],
        tasks=tasks,
        facts=tuple(task["facts"] for task in index["tasks"]),
        kept=kept,
        tensors={key: value for key, value in whole.items() if not key.startswith(_MOMENTS)},
        moments=moments,
    )


def _put(folder: Path, kind: str, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors under the name of their bytes' hash, unless they are there; the file's name."""
    data = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    name = f"{kind}-{hashlib.sha256(data).hexdigest()[:32]}.safetensors"
    if not (folder / name).exists():
        replace_file(folder / name, data)
    return name
