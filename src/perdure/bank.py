"""A bank: what is on disk. Transactions, lock, versions; no training.

    bank/
      bank.json                          format, base, method, tasks; replaced atomically, last
      concepts/rex/concept.safetensors   its token, `word/<encoder>/rex` or `state/rex`; a task's
                                         factors in its first concept's file
      tasks/03-rex/                      log, cost, previews
      composition.safetensors            what a method trains for all tasks at once; replaced whole
      .derived/                          sums over tasks, a cache: see totals.py
      .learning/                         the workspace of a learn that is under way
      .lock

Only what bank.json lists exists: a writer first puts complete, synced files beside it and then
replaces it, so a crash at any instant leaves the old bank or the new one. Files that it does not
list are orphans of a crash; the next writer sweeps them, a reader never does. What the files say is
bank_format's business, reading and checking them bank_reading's, who may write them bank_writing's.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from perdure.adapters.prompts import Token
from perdure.bank_forgetting import forget_traces
from perdure.bank_format import (
    FORMAT,
    BaseIdentity,
    ConceptFile,
    State,
    TaskRecord,
    as_json,
    check_buildable,
    check_finite,
    check_tensors,
    composition_to_bytes,
    folder_of,
    lost,
    number_of,
    read_state,
    rebuilding,
    to_bytes,
    without,
)
from perdure.bank_leftovers import orphans
from perdure.bank_names import check_concept_name
from perdure.bank_reading import ReadableBank
from perdure.bank_writing import MARKER, WriterLock, writing_errors
from perdure.durable import replace_file, sync_folder, sync_tree, write_file
from perdure.errors import PerdureError
from perdure.hub import downloaded, spelt

__all__ = ["BANK_FILES", "FORMAT", "BaseIdentity", "Bank", "TaskRecord", "check_concept_name"]

BANK_FILES = ("bank.json", "concepts/*", "composition*.safetensors")
"""What a bank is drawn from, as patterns of names inside its folder."""


class Bank(ReadableBank):
    """A folder of learned concepts that belongs to one base and one method.

    Make one with `create`, `open` or `open_or_create`. A `Bank` remembers bank.json as it was when
    it was opened, last written or locked, or `reload` read it.
    """

    def __init__(self, path: Path, state: State, *, origin: str = "") -> None:
        super().__init__(path, state)
        self._lock, self._origin = WriterLock(path), origin

    # Opening

    @classmethod
    def create(
        cls, path: Path | str, *, base: BaseIdentity, method: str, config: Mapping[str, Any]
    ) -> Bank:
        """Make an empty bank. Raises PerdureError where a bank or other files already are."""
        _refuse_hub(spelt(path))
        path = Path(path).expanduser()
        ours = {".lock", MARKER, ".learning", "concepts", "tasks"}  # what a crash in here may leave
        if (path / "bank.json").exists():
            raise PerdureError(f"{path} already is a bank: open it, or choose another folder.")
        if lost(path):  # a writer would take them for what a crash left
            raise PerdureError(
                f"{path} holds concepts, but its bank.json is missing: {rebuilding(path)}."
            )
        if path.exists() and not path.is_dir():
            raise PerdureError(f"{path} is a file: choose another folder for the bank.")
        if path.is_dir() and {item.name for item in path.iterdir()} - ours:
            raise PerdureError(
                f"{path} is a folder with other files in it: choose an empty or a new one."
            )
        state = State(base=base, method=method, config=as_json(config), files={})
        check_buildable(path / "bank.json", state)
        bank = cls(path, state)
        with writing_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        with bank.lock(verb="create"):
            if (path / "bank.json").exists():
                raise PerdureError(f"{path} has just become a bank: open it.")
            bank._write_state(state)
            sync_folder(path.absolute().parent)
        return bank

    @classmethod
    def open(cls, path: Path | str) -> Bank:
        """Open a bank, writing nothing: a folder, or by `hf://user/name` one on the hub, which can
        be read alone. Raises PerdureError where it is missing or unreadable."""
        if name := spelt(path):
            folder = downloaded(name, BANK_FILES)
            if not (folder / "bank.json").is_file():
                raise PerdureError(f"{name} holds no bank: it has no bank.json.")
            return cls(folder, read_state(folder), origin=str(name))
        path = Path(path).expanduser()
        return cls(path, read_state(path))

    @classmethod
    def open_or_create(
        cls, path: Path | str, *, base: BaseIdentity, method: str, config: Mapping[str, Any]
    ) -> Bank:
        """Open the bank there and check its base and method, or make an empty one."""
        if not (Path(path).expanduser() / "bank.json").exists():
            return cls.create(path, base=base, method=method, config=config)
        bank = cls.open(path)
        bank.check_base(base)
        bank.check_method(method, config)
        return bank

    # Writing

    @contextmanager
    def lock(self, wait: float = 0, *, verb: str = "write") -> Iterator[None]:
        """Hold the bank for writing; it may be taken again inside. The system frees it on a crash.

        Args:
            wait: seconds to wait for another writer; a negative number waits for ever.
            verb: what is being done, for the sentence that another writer is refused with.

        Raises:
            PerdureError: naming the process that holds the bank, and since when; where the bank was
                read from the hub; and where a file cannot be written inside.
        """
        _refuse_hub(self._origin)
        with writing_errors(self.path), self._lock.hold(wait, verb) as outermost:
            if outermost and (self.path / "bank.json").exists():  # not yet while it is created
                self.reload()
            yield

    def commit(
        self,
        *,
        concepts: Sequence[str],
        tensors: Mapping[str, Tensor],
        tokens: Mapping[str, Token],
        facts: Mapping[str, Any],
        method: str,
        config: Mapping[str, Any],
        extra_files: Mapping[str, bytes] | Path | None = None,
        composition: Mapping[str, Tensor] | None = None,
    ) -> TaskRecord:
        """Add one task: all of it, or after a crash at any instant nothing.

        Args:
            concepts: the new concepts' names, without brackets.
            tensors: `<layer>/<factor>` -> tensor, what the method kept.
            tokens: concept -> its token, one entry for each of `concepts`.
            facts: steps, seed, seconds, loss ...; JSON values.
            method: must be the bank's, and so must `config`.
            extra_files: relative name -> bytes, or a folder to be copied, for the task's folder.
            composition: what replaces `composition()`; None leaves it as it is.

        Raises:
            PerdureError: for a name that is taken, another method, a locked bank, a full disk, and
                tensors that are not finite.
            ValueError: for tokens that do not match the concepts, and names that cannot be stored.
        """
        concepts = tuple(concepts)
        with self._writing("learn"):
            self.check_method(method, config)
            self.check_new(concepts)
            check_tensors(concepts, tensors, tokens)
            folder = folder_of(self._next_number(), concepts)
            record = TaskRecord(folder=folder, concepts=concepts, facts=as_json(facts))

            files = dict(self._state.files)
            for index, concept in enumerate(concepts):
                factors = tensors if index == 0 else {}
                data, sha256 = to_bytes(self._state, record, concept, factors, tokens[concept])
                file = files[concept] = ConceptFile(name="concept.safetensors", sha256=sha256)
                write_file(self._staging / "concepts" / concept / file.name, data)
            staged_task = self._staging / "tasks" / folder
            staged_task.mkdir(parents=True)
            for name, content in _contents(extra_files):
                write_file(staged_task / _relative(name), content)
            sync_tree(self._staging)

            for concept in concepts:
                target = self.path / "concepts" / concept
                os.rename(self._staging / "concepts" / concept, target)
            os.rename(staged_task, self.path / "tasks" / folder)
            sync_folder(self.path / "concepts")
            sync_folder(self.path / "tasks")
            state = self._with_composition(composition)
            self._write_state(replace(state, tasks=(*self.tasks, record), files=files))
            self._sweep()
        return record

    def set_composition(self, composition: Mapping[str, Tensor]) -> None:
        """Replace what the tasks share, atomically. Raises PerdureError as `commit`."""
        with self._writing("learn"):
            self._write_state(self._with_composition(composition))
            self._sweep()

    def _with_composition(self, composition: Mapping[str, Tensor] | None) -> State:
        """The state with a new file, put under a new name beside the one that is still listed."""
        if composition is None:
            return self._state
        if not composition:
            return replace(self._state, composition=None)
        check_finite(composition, "what the tasks share")
        data, sha256 = composition_to_bytes(self._state, composition)
        old = self._state.composition
        name = "composition.safetensors" if old is None else old.next_name()
        replace_file(self.path / name, data, staged=self._staging / name)
        return replace(self._state, composition=ConceptFile(name=name, sha256=sha256))

    def remove(self, concept: str, *, composition: Mapping[str, Tensor] | None = None) -> None:
        """Forget a concept, and its task when it was the last of it; all of it or nothing.

        The other concepts of its task keep the task's factors: their files are written anew, with
        the same tensors and without its name. Whether the method can do without them is the
        method's to say, beforehand. `composition` replaces what the tasks share; None leaves it.

        Raises:
            PerdureError: for an unknown concept, a locked bank and a full disk.
        """
        with self._writing("remove"):
            record = self._record(self._known(concept))
            shutil.rmtree(self.derived, ignore_errors=True)  # no sum may outlive a part of it
            forget_traces(self.path, self._state, concept)
            files = {name: file for name, file in self._state.files.items() if name != concept}
            shorter = without(record, concept)
            if shorter.concepts:
                files |= self._written_anew(record, shorter)
            tasks = [shorter if task is record else task for task in self.tasks]
            kept = tuple(task for task in tasks if task.concepts)
            self._write_state(replace(self._with_composition(composition), tasks=kept, files=files))
            self._sweep()

    def _written_anew(self, record: TaskRecord, shorter: TaskRecord) -> dict[str, ConceptFile]:
        """The files of a task that has lost a concept, under new names beside the old ones, which
        bank.json lists until it is replaced; its folder too, if that has another name."""
        files = {}
        factors, _, _ = self.load(record.concepts[0])
        for index, name in enumerate(shorter.concepts):
            _, token, _ = self.load(name)
            own = factors if index == 0 else {}
            data, sha256 = to_bytes(self._state, shorter, name, own, token)
            file = self._state.files[name].next_name()
            replace_file(self.path / "concepts" / name / file, data, staged=self._staging / file)
            files[name] = ConceptFile(name=file, sha256=sha256)
        if shorter.folder != record.folder:
            staged = self._staging / shorter.folder
            if self.task_folder(record).is_dir():
                shutil.copytree(self.task_folder(record), staged)
            else:
                staged.mkdir()
            sync_tree(staged)
            os.rename(staged, self.path / "tasks" / shorter.folder)
            sync_folder(self.path / "tasks")
        return files

    def add_task_file(self, task: TaskRecord | str, name: str, data: bytes) -> Path:
        """Write or replace one file in a task's folder, atomically. `task` as in `read`.

        Raises:
            PerdureError: for an unknown task, a locked bank and a full disk.
            ValueError: for a `name` that leads out of the folder.
        """
        with self._writing("write"):
            target = self.task_folder(task) / _relative(name)
            replace_file(target, data, staged=self._staging / "file")
        return target

    def clear_workspace(self) -> None:
        """Delete `.learning/` and what a learn left in it."""
        with self._writing("clear"):
            shutil.rmtree(self.workspace, ignore_errors=True)

    @property
    def _staging(self) -> Path:
        return self.workspace / f"commit-{os.getpid()}"

    @contextmanager
    def _writing(self, verb: str) -> Iterator[None]:
        """The lock, the newest state, no orphans, and OSErrors as sentences."""
        with self.lock(verb=verb):
            self.reload()
            self._sweep()
            yield
            shutil.rmtree(self._staging, ignore_errors=True)

    def _next_number(self) -> int:
        """One more than the greatest number in use: 1, 2, ..."""
        return 1 + max((number_of(task.folder) for task in self.tasks), default=0)

    def _write_state(self, state: State) -> None:
        """The commit point: replace bank.json."""
        for folder in ("concepts", "tasks"):
            (self.path / folder).mkdir(exist_ok=True)
        staged = self._staging / "bank.json"
        replace_file(self.path / "bank.json", state.to_json().encode(), staged=staged)
        self._state = state

    def _sweep(self) -> None:
        """Delete what a crash left: everything of ours that bank.json does not list."""
        for folder in ("concepts", "tasks"):
            (self.path / folder).mkdir(exist_ok=True)
        for orphan in orphans(self.path, self._state):
            if orphan.is_dir():
                shutil.rmtree(orphan)
            else:
                orphan.unlink()


def _refuse_hub(name: object) -> None:
    if name:
        raise PerdureError(
            f"{name} is a bank on the hub, which is only read: give a folder of your own with "
            "--bank, and send it there with `perdure push`."
        )


def _relative(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\\" in name:
        raise ValueError(f"a task's file needs a relative name inside its folder, not {name!r}")
    return path


def _contents(extra_files: Mapping[str, bytes] | Path | None) -> Iterator[tuple[str, bytes]]:
    if isinstance(extra_files, Path):
        for path in sorted(extra_files.rglob("*")):
            if path.is_file():
                yield path.relative_to(extra_files).as_posix(), path.read_bytes()
    elif extra_files is not None:
        yield from extra_files.items()
