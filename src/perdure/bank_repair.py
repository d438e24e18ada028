"""A bank.json that is lost or hurt, made anew from what the concepts' files say of themselves."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from perdure.bank_format import (
    COMPOSITION_FILE,
    CONCEPT_FILE,
    BaseIdentity,
    ConceptFile,
    State,
    TaskRecord,
    check_agreement,
    check_buildable,
    differences,
    from_bytes,
    metadata_of,
    number_of,
    reading_errors,
)
from perdure.bank_names import composed
from perdure.bank_writing import WriterLock, writing_errors
from perdure.durable import replace_file
from perdure.errors import PerdureError

__all__ = ["Rebuilt", "rebuild"]

_SHA256 = re.compile(rb"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """A bank.json that was made anew, and what to know before it is used."""

    file: Path
    """Beside the bank's own, under a name that nothing had."""
    concepts: tuple[str, ...]
    notes: tuple[str, ...]
    """Sentences: files that could not be read, and such as no old checksum vouches for."""


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A concept's file that can be read."""

    path: Path
    sha256: str
    about: Mapping[str, Any]

    @property
    def task(self) -> str:
        return str(self.about["task"])

    @property
    def concept(self) -> str:
        return str(self.about["concept"])

    @property
    def members(self) -> tuple[str, ...]:
        """The task's concepts when the file was written; the first one's file has the factors."""
        return tuple(self.about["concepts"])


def rebuild(path: Path | str) -> Rebuilt:
    """Write `bank.rebuilt.json` (or `bank.rebuilt-1.json` ...) into the bank's folder.

    Neither bank.json nor any other file is touched. Raises PerdureError where no concept's file can
    be read, where they are of different banks, and where another process writes to the bank.
    """
    path = Path(path).expanduser()
    if not (path / "concepts").is_dir():
        raise PerdureError(f"There are no concepts at {path}: check --bank.")
    with WriterLock(path).hold(0, "repair"):
        files, notes = _files(path)
        with reading_errors(path / "concepts", "restore the folder from a backup"):
            state = _state(path, files, notes)
            State.from_json(json.loads(state.to_json()))  # as strict as reading it will be
        vouched = _listed_before(path / "bank.json")
        doubtful = [name for name, file in state.files.items() if file.sha256 not in vouched]
        if doubtful:
            names = ", ".join(f"<{name}>" for name in doubtful)
            notes.append(
                f"No old checksum vouches for the files of {names}: they can be read, and whether"
                " they are what was written nobody can tell; draw them and look."
            )
        target = path / "bank.rebuilt.json"
        number = 0
        while target.exists():
            number += 1
            target = path / f"bank.rebuilt-{number}.json"
        with writing_errors(path):
            replace_file(target, state.to_json().encode())
    return Rebuilt(file=target, concepts=tuple(state.files), notes=tuple(notes))


def _files(path: Path) -> tuple[list[_Found], list[str]]:
    """The concepts' files that can be read, and sentences about the others."""
    found, notes = [], []
    for file in sorted((path / "concepts").glob("*/*")):
        if CONCEPT_FILE.fullmatch(file.name):
            try:
                with reading_errors(file, "restore it from a backup"):
                    data = file.read_bytes()
                    about = metadata_of(data)
                    from_bytes(data, composed(file.parent.name))
                    one = _Found(path=file, sha256=hashlib.sha256(data).hexdigest(), about=about)
                    if one.concept != composed(file.parent.name) or not one.members:
                        raise ValueError(f"it is of {one.concept!r}")
                    number_of(one.task)
                found.append(one)
            except (PerdureError, OSError) as error:
                notes.append(f"Left out: {error}")
    if not found:
        raise PerdureError(f"No concept's file in {path} can be read: restore the folder.")
    return found, notes


def _state(path: Path, files: Sequence[_Found], notes: list[str]) -> State:
    """What bank.json said, as far as the files tell."""
    tasks: dict[str, list[_Found]] = {}
    for file in files:
        tasks.setdefault(file.task, []).append(file)
    newest = max(files, key=lambda file: number_of(file.task)).about
    chosen: dict[str, ConceptFile] = {}
    records = []
    for folder, of_task in sorted(tasks.items(), key=lambda item: number_of(item[0])):
        if (members := _members(of_task)) is None:
            lost = ", ".join(f"<{file.concept}>" for file in of_task)
            notes.append(f"Left out: {lost}, for what was learned with them in {folder} is lost.")
            continue
        for file in members:
            if different := _differences(newest, file.about):
                raise PerdureError(
                    f"{file.path} is of another bank ({different}): take it out of the folder."
                )
            chosen[file.concept] = ConceptFile(name=file.path.name, sha256=file.sha256)
        names = tuple(file.concept for file in members)
        records.append(TaskRecord(folder=folder, concepts=names, facts=members[0].about["facts"]))
    if not records:
        raise PerdureError(
            f"None of the tasks in {path} is whole: {' '.join(notes)} Restore the folder from a"
            " backup."
        )
    state = State(
        base=BaseIdentity(**newest["base"]),
        method=newest["method"],
        config=newest["config"],
        tasks=tuple(records),
        files=chosen,
    )
    check_buildable(path / "bank.json", state)
    return _with_composition(path, state, notes)


def _members(of_task: Sequence[_Found]) -> list[_Found] | None:
    """The task's files, the one with the factors first; None where that is lost.

    Of several that may be it, which a removal that was cut short leaves, the one that lost nothing.
    """
    heads = [file for file in of_task if file.members[0] == file.concept]
    if not heads:
        return None
    head = max(heads, key=lambda file: (len(file.members), file.path.name))
    rest = {
        file.concept: file
        for file in of_task
        if file.concept in head.members[1:] and file.members[0] != file.concept
    }
    return [head, *(rest[name] for name in head.members[1:] if name in rest)]


def _with_composition(path: Path, state: State, notes: list[str]) -> State:
    """With the newest file of what the tasks share, where there is one."""
    files = [file for file in path.iterdir() if COMPOSITION_FILE.fullmatch(file.name)]
    for file in sorted(files, key=_number, reverse=True):
        with suppress(PerdureError), reading_errors(file, ""):
            data = file.read_bytes()
            check_agreement(path, state, file, metadata_of(data))
            if len(files) > 1:
                notes.append(f"Of several files of what the tasks share {file.name} was taken.")
            listed = ConceptFile(name=file.name, sha256=hashlib.sha256(data).hexdigest())
            return replace(state, composition=listed)
    return state


def _number(file: Path) -> int:
    known = COMPOSITION_FILE.fullmatch(file.name)
    return int(known[2] or 0) if known else 0


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Where the banks of two files differ, "rank = 8 (not 16)"; or ""."""
    told = [
        {**of["config"], "method": of["method"], "base": of["base"]["hash"]} for of in (other, one)
    ]
    return differences(*told)


def _listed_before(file: Path) -> set[str]:
    """Whatever looks like a checksum in what is left of a bank.json."""
    with suppress(OSError):
        return {text.decode() for text in _SHA256.findall(file.read_bytes())}
    return set()
