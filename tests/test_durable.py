"""Files that must survive: synced before they take another's place, and by one function alone."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

import perdure
from perdure.bank_writing import writing_errors
from perdure.benchmarks.runner import finish
from perdure.checkpoint import write_atomically
from perdure.durable import replace_file, writing
from perdure.errors import PerdureError
from perdure.hosts.training import _cut_log
from perdure.measuring.matrix import TaskMatrix


class Cell:
    def __init__(self, record: Path) -> None:
        self.record = record


WRITERS = {
    "a file": lambda path: replace_file(path, b"{}"),
    "staged elsewhere": lambda path: replace_file(path, b"{}", staged=path.parent / "a" / "b"),
    "tensors": lambda path: write_atomically(path, {"w": torch.ones(2)}, {}),
    "a record": lambda path: finish(Cell(path), lambda cell: {}),
    "a matrix": lambda path: TaskMatrix(tasks=()).save(path),
    "a log": lambda path: _cut_log(path, 0),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_is_synced_before_it_takes_its_place_and_its_folder_after(
    writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def watch(name: str) -> None:
        original = getattr(os, name)

        def call(*args: Any) -> object:
            if name == "fsync":  # of a file or of a folder
                folder = stat.S_ISDIR(os.fstat(args[0]).st_mode)
                calls.append("folder" if folder else "file")
            else:
                calls.append(name)
            return original(*args)

        monkeypatch.setattr(os, name, call)

    watch("fsync")
    watch("replace")
    (tmp_path / "it").write_text("as it was")
    WRITERS[writer](tmp_path / "it")
    assert calls == ["file", "replace", "folder"]
    assert (tmp_path / "it").read_bytes() != b"as it was"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["it"]


def test_nobody_else_replaces_files_by_hand() -> None:
    source = Path(perdure.__file__).parent
    by_hand = re.compile(r"os\.replace\(|\bpart(?:ial)?\.replace\(|os\.fsync\(")
    found = {
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        if by_hand.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"durable.py", "classification/pretrain.py"}  # the latter puts a whole folder


@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "Input/output error"),
        Exception("Input/output error (os error 5)"),  # as tokenizers raises it
        SafetensorError("Error while serializing: I/O error: Input/output error (os error 5)"),
    ],
)
def test_an_error_of_the_disk_is_a_sentence_whoever_raises_it(error: Exception) -> None:
    for block in (writing("it"), writing_errors(Path("bank"))):
        with pytest.raises(PerdureError, match="cannot be written.*Input/output error"):
            with block:
                raise error
    for other in (ValueError("no"), BrokenPipeError(32, "Broken pipe"), PerdureError("As it was.")):
        for block in (writing("it"), writing_errors(Path("bank"))):
            with pytest.raises(type(other), match=str(other)[-2:]):
                with block:
                    raise other
