"""Training state on disk: named tensors and optimiser moments in safetensors, put there whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from perdure.durable import replacing_from_folder
from perdure.untrusted import parse_json

__all__ = ["checkpoint_facts", "load_checkpoint", "save_checkpoint", "write_atomically"]


def write_atomically(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file so that a crash leaves the old file or the new one."""
    whole = {k: v.detach().contiguous() for k, v in tensors.items()}
    with replacing_from_folder(path) as partial:
        save_file(whole, partial, dict(metadata))


def save_checkpoint(
    path: Path,
    *,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    facts: Mapping[str, object],
    extra: Mapping[str, Tensor] | None = None,
) -> None:
    """Save parameters, the optimiser's state of each, and JSON facts (such as the step).

    Args:
        path: the file to replace.
        parameters: every trained parameter by name.
        optimizer: holds exactly these parameters; its state is tensors, numbers and None.
        facts: anything that JSON can hold.
        extra: further tensors, such as an average of the weights.
    """
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, object]] = {}
    for name, parameter in parameters.items():
        tensors[f"parameter/{name}"] = parameter
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):  # a copy, for some share a table between parameters
                tensors[f"optimizer/{key}/{name}"] = value.clone()
            else:
                numbers.setdefault(name, {})[key] = value
    groups = [
        {key: value for key, value in group.items() if isinstance(value, int | float)}
        for group in optimizer.param_groups
    ]
    tensors |= {f"extra/{name}": value for name, value in (extra or {}).items()}
    told = {"groups": groups, "numbers": numbers}
    metadata = {"facts": json.dumps(facts), "optimizer": json.dumps(told)}
    write_atomically(path, tensors, metadata)


def checkpoint_facts(path: Path) -> dict[str, object]:
    """The facts of what `save_checkpoint` wrote; ValueError where it is no such file."""
    try:
        with safe_open(path, "pt") as file:
            facts: dict[str, object] = parse_json(file.metadata()["facts"])
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no checkpoint ({error})") from error
    return facts


def load_checkpoint(
    path: Path,
    *,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    extra: Mapping[str, Tensor] | None = None,
) -> dict[str, object]:
    """Load what `save_checkpoint` wrote, in place; returns the facts.

    Raises ValueError where it is no such file, and where one of ``parameters`` or of ``extra`` is
    missing in it or of another shape; then nothing was loaded.
    """
    facts = checkpoint_facts(path)
    with safe_open(path, "pt") as file:
        stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        told = parse_json((file.metadata() or {}).get("optimizer", "{}"))
    wanted = {f"parameter/{name}": of.shape for name, of in parameters.items()}
    wanted |= {f"extra/{name}": of.shape for name, of in (extra or {}).items()}
    for key, shape in wanted.items():
        if key not in stored or stored[key].shape != shape:
            raise ValueError(f"{path} has no {key} of the shape {tuple(shape)}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(stored[f"parameter/{name}"])
            state = {
                key.split("/", 2)[1]: value
                if key.startswith("optimizer/step/")
                else value.to(parameter.device)
                for key, value in stored.items()
                if key.startswith("optimizer/") and key.split("/", 2)[2] == name
            }
            state |= told.get("numbers", {}).get(name, {})
            if state:
                optimizer.state[parameter] = state
        for group, values in zip(optimizer.param_groups, told.get("groups", ()), strict=False):
            group.update(values)
        for name, value in (extra or {}).items():
            value.copy_(stored[f"extra/{name}"])
    return facts
