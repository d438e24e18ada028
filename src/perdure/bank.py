"""A bank: what is on disk. Transactions, lock, versions; no training.

    bank/
      bank.json                          format, base, method, tasks; replaced atomically, last
      concepts/rex/concept.safetensors   `token/rex`; a task's factors in its first concept's file
      tasks/03-rex/                      log, cost, previews
    together.safetensors               what a method trains for all tasks at once; replaced whole
      .learning/                         the workspace of a learn that is under way
      .lock

Only what bank.json lists exists: a writer first puts complete, synced files beside it and then
replaces it, so a crash at any instant leaves the old bank or the new one. Files that it does not
list are orphans of a crash; the next writer sweeps them, a reader never does. What the files say is
bank_format's business, who may write them bank_writing's.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import safetensors.torch
from torch import Tensor

from perdure.bank_format import (
    FORMAT,
    BaseIdentity,
    ConceptFile,
    State,
    TaskRecord,
    as_json,
    check_concept_name,
    check_finite,
    check_new_names,
    check_tensors,
    differences,
    from_bytes,
    orphans,
    read_state,
    to_bytes,
    together_to_bytes,
)
from perdure.bank_writing import WriterLock, writing_errors
from perdure.durable import sync_folder, sync_tree, write_file
from perdure.errors import PerdureError

__all__ = ["FORMAT", "BaseIdentity", "Bank", "TaskRecord", "check_concept_name"]


class Bank:
    """A folder of learned concepts that belongs to one base and one method.

    Make one with `create`, `open` or `open_or_create`. A `Bank` remembers bank.json as it was when
    it was opened, last written, locked or `reload`ed.
    """

    def __init__(self, path: Path, state: State) -> None:
        self.path = path
        self._state = state
        self._lock = WriterLock(path)

    # Opening

    @classmethod
    def create(
        cls, path: Path | str, *, base: BaseIdentity, method: str, config: Mapping[str, Any]
    ) -> Bank:
        """Make an empty bank. Raises PerdureError where a bank or other files already are."""
        path = Path(path).expanduser()
        ours = {".lock", ".learning", "concepts", "tasks"}  # what a crash in here may leave
        if (path / "bank.json").exists():
            raise PerdureError(f"{path} already is a bank: open it, or choose another folder.")
        if path.exists() and not path.is_dir():
            raise PerdureError(f"{path} is a file: choose another folder for the bank.")
        if path.is_dir() and {item.name for item in path.iterdir()} - ours:
            raise PerdureError(
                f"{path} is a folder with other files in it: choose an empty or a new one."
            )
        state = State(base=base, method=method, config=as_json(config), files={})
        bank = cls(path, state)
        with writing_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        with bank.lock(verb="create"), writing_errors(path):
            if (path / "bank.json").exists():
                raise PerdureError(f"{path} has just become a bank: open it.")
            bank._write_state(state)
            sync_folder(path.absolute().parent)
        return bank

    @classmethod
    def open(cls, path: Path | str) -> Bank:
        """Open a bank, writing nothing. Raises PerdureError where it is missing or unreadable."""
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

    def reload(self) -> None:
        """Read bank.json again: another process may have written it."""
        self._state = read_state(self.path)

    # What it says

    @property
    def base(self) -> BaseIdentity:
        """The base that the concepts were learned on."""
        return self._state.base

    @property
    def method(self) -> str:
        """Name of the method that learned the concepts."""
        return self._state.method

    @property
    def config(self) -> dict[str, Any]:
        """The method's configuration, as JSON values."""
        return as_json(self._state.config)

    @property
    def tasks(self) -> tuple[TaskRecord, ...]:
        """The tasks in the order in which they were learned."""
        return self._state.tasks

    @property
    def concepts(self) -> tuple[str, ...]:
        """The concepts' names, without brackets, in the order in which they were learned."""
        return tuple(name for task in self.tasks for name in task.concepts)

    @property
    def workspace(self) -> Path:
        """`.learning/`, for a learn's request, checkpoint and log; it may not exist yet."""
        return self.path / ".learning"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what bank.json says: it changes with every commit and remove."""
        return hashlib.sha256(self._state.to_json().encode()).hexdigest()

    def task_folder(self, task: TaskRecord | str) -> Path:
        """Folder of a task's log, cost and previews. `task` as in `read`."""
        return self.path / "tasks" / self._record(task).folder

    def concept_file(self, concept: str) -> Path:
        """The concept's safetensors file."""
        return self.path / "concepts" / concept / self._state.files[self._known(concept)].name

    # Checks

    def check_base(self, identity: BaseIdentity) -> None:
        """Raise PerdureError where `identity` is another base than the bank's (by its hash)."""
        if identity.hash != self.base.hash:
            raise PerdureError(
                f"The bank {self.path} was learned on the base {self.base}, but the base in use is"
                f" {identity}: open the bank with its own base, or give another --bank."
            )

    def check_method(self, method: str, config: Mapping[str, Any]) -> None:
        """Raise PerdureError where the method or its configuration is not the bank's."""
        if method != self.method:
            raise PerdureError(
                f"The bank {self.path} is learned with the method {self.method}, not {method}: use"
                f" {self.method}, or give another --bank."
            )
        if different := differences(self.config, as_json(config)):
            raise PerdureError(
                f"The bank {self.path} is learned with {self.method} and {different}: use these"
                " values, or give another --bank."
            )

    def check_new(self, concepts: Sequence[str]) -> None:
        """Raise PerdureError where a name is malformed, known here, or given twice."""
        check_new_names(self.path, concepts, known=self.concepts)

    # Reading

    def read(self, task: TaskRecord | str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What a task left behind.

        Args:
            task: its record, its folder's name, or the name of one of its concepts.

        Returns:
            tensors: `<layer>/<factor>` -> tensor, as the method kept them.
            rows: concept -> (n, d) rows of its n tokens.

        Raises:
            PerdureError: for an unknown task, and a missing or damaged file.
        """
        tensors: dict[str, Tensor] = {}
        rows: dict[str, Tensor] = {}
        for concept in self._record(task).concepts:
            factors, rows[concept], _ = self._load(concept)
            tensors |= factors
        return tensors, rows

    def kept(self) -> list[tuple[tuple[str, ...], dict[str, Tensor]]]:
        """Every task's concepts and tensors, in order. Raises as `read`."""
        return [(task.concepts, self._load(task.concepts[0])[0]) for task in self.tasks]

    def together(self) -> dict[str, Tensor]:
        """What the tasks share, as a `Together` method left it; empty where there is none.

        Raises PerdureError where the file is missing or damaged.
        """
        file = self._state.together
        if file is None:
            return {}
        mend = "restore it from a backup; the concepts' own files do not depend on it"
        return safetensors.torch.load(self._verified(self.path / file.name, file, mend))

    def rows(self) -> dict[str, Tensor]:
        """Every concept's token rows (n, d), in order. Raises as `read`."""
        return {concept: self._load(concept)[1] for concept in self.concepts}

    def metadata(self, concept: str) -> dict[str, Any]:
        """What the concept's file says of itself: format, method, config, base, task, facts."""
        return self._load(concept)[2]

    def _record(self, task: TaskRecord | str) -> TaskRecord:
        name = task if isinstance(task, str) else task.folder
        for record in self.tasks:
            if name == record.folder or name in record.concepts:
                return record
        raise self._unknown(name)

    def _known(self, concept: str) -> str:
        if concept not in self._state.files:
            raise self._unknown(concept)
        return concept

    def _unknown(self, name: str) -> PerdureError:
        known = ", ".join(self.concepts) or "none yet"
        return PerdureError(f"The bank {self.path} has no {name!r}; its concepts: {known}.")

    def _load(self, concept: str) -> tuple[dict[str, Tensor], Tensor, dict[str, Any]]:
        """(factors, token rows, metadata) of one verified file."""
        mend = f"restore it from a backup, or `perdure remove {concept}` and learn it again"
        file = self._state.files[self._known(concept)]
        return from_bytes(self._verified(self.concept_file(concept), file, mend), concept)

    def _verified(self, path: Path, file: ConceptFile, mend: str) -> bytes:
        """A listed file's bytes; PerdureError with the mend where they are not what was written."""
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise PerdureError(f"{path} is missing, though bank.json lists it: {mend}.") from error
        except OSError as error:
            raise PerdureError(f"{path} cannot be read ({error.strerror}): {mend}.") from error
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise PerdureError(f"{path} is damaged (its checksum is not bank.json's): {mend}.")
        return data

    # Writing

    @contextmanager
    def lock(self, wait: float = 0, *, verb: str = "write") -> Iterator[None]:
        """Hold the bank for writing; it may be taken again inside. The system frees it on a crash.

        Args:
            wait: seconds to wait for another writer; a negative number waits for ever.
            verb: what is being done, for the sentence that another writer is refused with.

        Raises:
            PerdureError: naming the process that holds the bank, and since when.
        """
        with self._lock.hold(wait, verb) as outermost:
            if outermost and (self.path / "bank.json").exists():  # not yet while it is created
                self.reload()
            yield

    def commit(
        self,
        *,
        concepts: Sequence[str],
        tensors: Mapping[str, Tensor],
        rows: Mapping[str, Tensor],
        facts: Mapping[str, Any],
        method: str,
        config: Mapping[str, Any],
        extra_files: Mapping[str, bytes] | Path | None = None,
        together: Mapping[str, Tensor] | None = None,
    ) -> TaskRecord:
        """Add one task: all of it, or after a crash at any instant nothing.

        Args:
            concepts: the new concepts' names, without brackets.
            tensors: `<layer>/<factor>` -> tensor, what the method kept.
            rows: concept -> (n, d) token rows, one entry for each of `concepts`.
            facts: steps, seed, seconds, loss ...; JSON values.
            method: must be the bank's, and so must `config`.
            extra_files: relative name -> bytes, or a folder to be copied, for the task's folder.
            together: what replaces `together()`; None leaves it as it is.

        Raises:
            PerdureError: for a name that is taken, another method, a locked bank, a full disk, and
                tensors that are not finite.
            ValueError: for rows that do not match the concepts, and names that cannot be stored.
        """
        concepts = tuple(concepts)
        with self._writing("learn"):
            self.check_method(method, config)
            self.check_new(concepts)
            check_tensors(concepts, tensors, rows)
            folder = f"{self._next_number():02d}-{concepts[0]}"
            if len(concepts) > 1:
                folder += f"+{len(concepts) - 1}"
            record = TaskRecord(folder=folder, concepts=concepts, facts=as_json(facts))

            files = dict(self._state.files)
            for index, concept in enumerate(concepts):
                factors = tensors if index == 0 else {}
                data, sha256 = to_bytes(self._state, record, concept, factors, rows[concept])
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
            state = self._with_together(together)
            self._write_state(replace(state, tasks=(*self.tasks, record), files=files))
            self._sweep()
        return record

    def set_together(self, together: Mapping[str, Tensor]) -> None:
        """Replace what the tasks share, atomically. Raises PerdureError as `commit`."""
        with self._writing("learn"):
            self._write_state(self._with_together(together))
            self._sweep()

    def _with_together(self, together: Mapping[str, Tensor] | None) -> State:
        """The state with a new file, put under a new name beside the one that is still listed."""
        if together is None:
            return self._state
        if not together:
            return replace(self._state, together=None)
        check_finite(together, "what the tasks share")
        data, sha256 = together_to_bytes(self._state, together)
        old = self._state.together
        name = "together.safetensors" if old is None else old.next_name()
        staged = self._staging / name
        write_file(staged, data)
        os.rename(staged, self.path / name)
        sync_folder(self.path)
        return replace(self._state, together=ConceptFile(name=name, sha256=sha256))

    def remove(self, concept: str, *, together: Mapping[str, Tensor] | None = None) -> None:
        """Forget a concept, and its task when it was the last of it; all of it or nothing.

        The other concepts of its task keep the task's factors: they move, unchanged, into the next
        one's file. Whether the method can do without them is the method's to say, beforehand.
        `together` replaces what the tasks share; None leaves it as it is.

        Raises:
            PerdureError: for an unknown concept, a locked bank and a full disk.
        """
        with self._writing("remove"):
            record = self._record(self._known(concept))
            rest = tuple(name for name in record.concepts if name != concept)
            files = {name: file for name, file in self._state.files.items() if name != concept}
            shorter = replace(record, concepts=rest)
            if rest and concept == record.concepts[0]:
                factors, _, _ = self._load(concept)
                _, row, _ = self._load(rest[0])
                data, sha256 = to_bytes(self._state, shorter, rest[0], factors, row)
                # Under a new name beside the old file, which bank.json lists until it is replaced.
                name = files[rest[0]].next_name()
                staged, home = self._staging / name, self.path / "concepts" / rest[0]
                write_file(staged, data)
                os.rename(staged, home / name)
                sync_folder(home)
                files[rest[0]] = ConceptFile(name=name, sha256=sha256)
            tasks = [shorter if task is record else task for task in self.tasks]
            kept = tuple(task for task in tasks if task.concepts)
            self._write_state(replace(self._with_together(together), tasks=kept, files=files))
            self._sweep()

    def add_task_file(self, task: TaskRecord | str, name: str, data: bytes) -> Path:
        """Write or replace one file in a task's folder, atomically. `task` as in `read`.

        Raises:
            PerdureError: for an unknown task, a locked bank and a full disk.
            ValueError: for a `name` that leads out of the folder.
        """
        with self._writing("write"):
            target = self.task_folder(task) / _relative(name)
            staged = self._staging / "file"
            write_file(staged, data)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(staged, target)
            sync_folder(target.parent)
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
        with self.lock(verb=verb), writing_errors(self.path):
            self.reload()
            self._sweep()
            yield
            shutil.rmtree(self._staging, ignore_errors=True)

    def _next_number(self) -> int:
        """One more than the greatest number in use: 1, 2, ..."""
        return 1 + max((int(task.folder.partition("-")[0]) for task in self.tasks), default=0)

    def _write_state(self, state: State) -> None:
        """The commit point: replace bank.json."""
        for folder in ("concepts", "tasks"):
            (self.path / folder).mkdir(exist_ok=True)
        staged = self._staging / "bank.json"
        write_file(staged, state.to_json().encode())
        os.replace(staged, self.path / "bank.json")
        self._state = state
        sync_folder(self.path)

    def _sweep(self) -> None:
        """Delete what a crash left: everything of ours that bank.json does not list."""
        for folder in ("concepts", "tasks"):
            (self.path / folder).mkdir(exist_ok=True)
        for orphan in orphans(self.path, self._state):
            if orphan.is_dir():
                shutil.rmtree(orphan)
            else:
                orphan.unlink()


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
