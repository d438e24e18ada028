"""A bank's tasks as its method takes them, and sums over tasks that grow by one task at a time.

    .derived/deltas.safetensors    sum of dW_t, one dense fp32 matrix a layer, of a method that sums
    .derived/moments.safetensors   sum of c c^T over the prompts of past concepts

They follow from the concepts' files and are a cache: each says in its metadata how many tasks it
sums, and a digest of those tasks' checksums and of itself. One that does not fit is made anew. A
total is added up task by task, in order, so it is the same to the bit whether it was there or not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from perdure.bank import Bank, TaskRecord
from perdure.bank_format import metadata_of
from perdure.bank_writing import writing_errors
from perdure.checkpoint import write_atomically
from perdure.methods import Kept, Method
from perdure.methods.summed import Summed, as_one

__all__ = ["kept_of", "running_total"]


def kept_of(
    bank: Bank, method: Method, *, upto: int | None = None, write: bool = False
) -> list[Kept]:
    """The bank's first ``upto`` tasks (all by default) as the method takes them.

    Each by itself, read when it is first touched; of a method whose tasks add up one `Kept` that
    holds their sum. ``write`` as in `running_total`. Raises PerdureError for a damaged file.
    """
    if not isinstance(method, Summed):
        return [Kept(concepts=names, tensors=tensors) for names, tensors in bank.kept()[:upto]]

    def delta(task: TaskRecord) -> Mapping[str, Tensor]:
        return method.past([Kept(concepts=task.concepts, tensors=bank.read(task)[0])])

    concepts = [name for task in bank.tasks[:upto] for name in task.concepts]
    total = running_total(bank, "deltas", delta, upto=upto, write=write)
    return [as_one(concepts, total)] if concepts else []


def running_total(
    bank: Bank,
    name: str,
    of_task: Callable[[TaskRecord], Mapping[str, Tensor]],
    *,
    recipe: str = "",
    upto: int | None = None,
    write: bool = False,
) -> dict[str, Tensor]:
    """The sum by key of ``of_task`` over the first ``upto`` tasks (all by default), in order.

    Args:
        bank: whose tasks; ``name`` is the total's among them.
        of_task: called for the tasks that the total in `.derived/` does not yet hold.
        recipe: what ``of_task`` depends on besides the tasks' files; another one starts anew.
        write: keep what was added; only for who holds the bank's lock.
    """
    path, marks = bank.derived / f"{name}.safetensors", bank.checksums()[:upto]
    done, total = _read(path, recipe, marks)
    for task in bank.tasks[done : len(marks)]:
        for key, tensor in of_task(task).items():
            total[key] = total[key] + tensor if key in total else tensor
    if write and done < len(marks):
        about = {"tasks": len(marks), "sha256": _digest(recipe, marks, total)}
        with writing_errors(bank.path):
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, total, {"perdure": json.dumps(about)})
    return total


def _read(path: Path, recipe: str, marks: Sequence[str]) -> tuple[int, dict[str, Tensor]]:
    """How many of these tasks the file sums, and the sum; 0 and nothing where it does not fit."""
    with suppress(OSError, SafetensorError, KeyError, TypeError, ValueError):
        data = path.read_bytes()
        about, total = metadata_of(data), safetensors.torch.load(data)
        done = int(about["tasks"])
        if 0 < done <= len(marks) and about["sha256"] == _digest(recipe, marks[:done], total):
            return done, total
    return 0, {}


def _digest(recipe: str, marks: Sequence[str], total: Mapping[str, Tensor]) -> str:
    """SHA-256 of what is summed and of the sum."""
    digest = hashlib.sha256(json.dumps([recipe, *marks]).encode())
    for key, tensor in sorted(total.items()):
        digest.update(json.dumps([key, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
