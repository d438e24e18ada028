"""What a crash left in a bank: files and folders that its bank.json does not list."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from perdure.bank_format import COMPOSITION_FILE, CONCEPT_FILE, State, is_task_folder
from perdure.bank_names import composed, is_name
from perdure.durable import is_partial

__all__ = ["orphans"]

_PREVIEW = re.compile(r"(.+?)(?:-[0-9]+\.png|\.sha256)")


def orphans(path: Path, state: State) -> Iterator[Path]:
    """What a crash left in the bank at `path`: files and folders of ours that it does not list."""
    yield from (path / ".learning").glob("commit-*")
    yield from (file for file in (path / ".derived").rglob("*") if is_partial(file))
    for file in path.iterdir():
        own = state.composition is not None and file.name == state.composition.name
        if not own and COMPOSITION_FILE.fullmatch(file.name):
            yield file
    for home in _folders(path / "concepts"):
        name = composed(home.name)
        kept = state.files.get(name)
        if kept is not None:
            for file in home.iterdir():
                if file.name != kept.name and CONCEPT_FILE.fullmatch(file.name):
                    yield file
        elif is_name(name):
            yield home
    listed = {task.folder: task.concepts for task in state.tasks}
    for file in (path / "tasks").glob("*/previews/*"):
        known = _PREVIEW.fullmatch(file.name)
        of = listed.get(composed(file.parent.parent.name))
        if known and of is not None and composed(known[1]) not in of:
            yield file
    for home in _folders(path / "tasks"):
        name = composed(home.name)
        if name not in listed and is_task_folder(name):
            yield home


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.iterdir() if path.is_dir() and not path.is_symlink()]
