"""A bank: what is on disk. Transactions, lock, versions; no training.

    bank/
      bank.json                          format, base, method, tasks; replaced atomically, last
      concepts/rex/concept.safetensors   `token/rex`; a task's factors in its first concept's file
      tasks/03-rex/                      log, cost, previews
      .learning/                         the workspace of a learn that is under way
      .lock

Only what bank.json lists exists: a writer first puts complete, synced files beside it and then
replaces it, so a crash at any instant leaves the old bank or the new one. Files that it does not
list are orphans of a crash; the next writer sweeps them, a reader never does.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

import safetensors.torch
from filelock import FileLock, Timeout
from torch import Tensor

from perdure.errors import PerdureError

__all__ = ["FORMAT", "BaseIdentity", "Bank", "TaskRecord", "check_concept_name"]

FORMAT = 1
"""The format of bank.json and of the concepts' files that this version reads and writes."""

_CONCEPT = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
_TASK_FOLDER = re.compile(r"(\d{2,})-[A-Za-z0-9_+-]+")
_CONCEPT_FILE = re.compile(r"concept(?:\.(\d+))?\.safetensors")
_TOKEN = "token/"


@dataclass(frozen=True, kw_only=True)
class BaseIdentity:
    """Which frozen model a bank belongs to: a name for people, the hash of its weights for us."""

    name: str
    hash: str

    def __str__(self) -> str:
        return f"{self.name} (weights {self.hash[:16]})"


@dataclass(frozen=True, kw_only=True)
class TaskRecord:
    """One learning step that the bank has kept."""

    folder: str
    """Its folder below tasks/, "03-rex"."""

    concepts: tuple[str, ...]
    """The names of its concepts, without brackets; the first one's file holds the factors."""

    facts: dict[str, Any]
    """Steps, seed, seconds, loss and the like, as JSON."""


@dataclass(frozen=True, kw_only=True)
class _File:
    """A concept's file in its folder, and the SHA-256 of its bytes."""

    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class _State:
    """The contents of bank.json."""

    base: BaseIdentity
    method: str
    config: dict[str, Any]
    tasks: tuple[TaskRecord, ...] = ()
    files: Mapping[str, _File]

    def to_json(self) -> str:
        tasks = [
            {
                "folder": task.folder,
                "concepts": [
                    {"name": name, **_file_json(self.files[name])} for name in task.concepts
                ],
                "facts": task.facts,
            }
            for task in self.tasks
        ]
        content = {
            "format": FORMAT,
            "base": asdict(self.base),
            "method": self.method,
            "config": self.config,
            "tasks": tasks,
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> _State:
        """Raises KeyError, TypeError or ValueError where `content` is not a bank's."""
        files: dict[str, _File] = {}
        tasks = []
        for task in content["tasks"]:
            names = []
            for entry in task["concepts"]:
                name, file = entry["name"], _File(name=entry["file"], sha256=entry["sha256"])
                # Names become paths that are deleted one day: none may lead out of the bank.
                if not _CONCEPT.fullmatch(name) or not _CONCEPT_FILE.fullmatch(file.name):
                    raise ValueError(f"bad concept entry {entry!r}")
                if name in files:
                    raise ValueError(f"concept {name!r} is listed twice")
                files[name] = file
                names.append(name)
            if not _TASK_FOLDER.fullmatch(task["folder"]) or not names:
                raise ValueError(f"bad task entry {task['folder']!r}")
            facts = dict(task["facts"])
            tasks.append(TaskRecord(folder=task["folder"], concepts=tuple(names), facts=facts))
        base = BaseIdentity(name=content["base"]["name"], hash=content["base"]["hash"])
        config = dict(content["config"])
        method = str(content["method"])
        return cls(base=base, method=method, config=config, tasks=tuple(tasks), files=files)


class Bank:
    """A folder of learned concepts that belongs to one base and one method.

    Make one with `create`, `open` or `open_or_create`. A `Bank` remembers bank.json as it was when
    it was opened, last written, locked or `reload`ed.
    """

    def __init__(self, path: Path, state: _State) -> None:
        self.path = path
        self._state = state
        self._lock = FileLock(path / ".lock")

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
        state = _State(base=base, method=method, config=_as_json(config), files={})
        bank = cls(path, state)
        with _os_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        with bank.lock(verb="create"), _os_errors(path):
            if (path / "bank.json").exists():
                raise PerdureError(f"{path} has just become a bank: open it.")
            bank._write_state(state)
            _sync_folder(path.absolute().parent)
        return bank

    @classmethod
    def open(cls, path: Path | str) -> Bank:
        """Open a bank, writing nothing. Raises PerdureError where it is missing or unreadable."""
        path = Path(path).expanduser()
        return cls(path, _read_state(path))

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
        self._state = _read_state(self.path)

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
        return _as_json(self._state.config)

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
        here, there = self.config, _as_json(config)
        if here != there:
            names = [
                name
                for name in sorted(here.keys() | there.keys())
                if name not in here or name not in there or here[name] != there[name]
            ]
            differences = ", ".join(
                f"{name} = {json.dumps(here[name]) if name in here else 'unset'} (not"
                f" {json.dumps(there[name]) if name in there else 'unset'})"
                for name in names
            )
            raise PerdureError(
                f"The bank {self.path} is learned with {self.method} and {differences}: use these"
                " values, or give another --bank."
            )

    def check_new(self, concepts: Sequence[str]) -> None:
        """Raise PerdureError where a name is malformed, known here, or given twice."""
        if not concepts:
            raise PerdureError("No concept was named: give at least one name.")
        known = {name.lower(): name for name in self.concepts}
        fresh: dict[str, str] = {}
        for name in concepts:
            check_concept_name(name)
            if name in known.values():
                raise PerdureError(
                    f"The bank {self.path} already has a concept {name!r}: choose another name, or"
                    f" forget the old one first with `perdure remove {name}`."
                )
            twin = known.get(name.lower()) or fresh.get(name.lower())
            if twin is not None:
                how = (
                    "is given twice" if twin == name else f"differs from {twin!r} only by its case"
                )
                raise PerdureError(f"The concept name {name!r} {how}: choose another name.")
            fresh[name.lower()] = name

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
        path = self.concept_file(concept)
        mend = f"restore it from a backup, or `perdure remove {concept}` and learn it again"
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise PerdureError(f"{path} is missing, though bank.json lists it: {mend}.") from error
        except OSError as error:
            raise PerdureError(f"{path} cannot be read ({error.strerror}): {mend}.") from error
        if hashlib.sha256(data).hexdigest() != self._state.files[concept].sha256:
            raise PerdureError(f"{path} is damaged (its checksum is not bank.json's): {mend}.")
        tensors = safetensors.torch.load(data)
        row = tensors.pop(_TOKEN + concept)
        return tensors, row, _read_metadata(data)

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
        outermost = not self._lock.is_locked
        with _os_errors(self.path):
            try:
                self._lock.acquire(timeout=wait)
            except Timeout:
                raise PerdureError(
                    f"The bank {self.path} is being written by {self._holder()}: wait until it is"
                    " done, or stop it."
                ) from None
        try:
            if outermost:
                since = datetime.now().astimezone().isoformat(timespec="seconds")
                self._sign({"pid": os.getpid(), "verb": verb, "since": since})
                if (self.path / "bank.json").exists():  # not yet where it is being created
                    self.reload()
            yield
        finally:
            if outermost:
                self._sign(None)
            self._lock.release()

    def _sign(self, holder: dict[str, Any] | None) -> None:
        """Write into .lock who holds it; a courtesy, so a failure is no error."""
        if not isinstance(self._lock, FileLock):
            return  # a file system without flock: filelock fell back to a marker that is not ours
        try:
            (self.path / ".lock").write_text(json.dumps(holder) if holder else "")
        except OSError:
            pass

    def _holder(self) -> str:
        try:
            holder = json.loads((self.path / ".lock").read_text())
            return f"process {holder['pid']} ({holder['verb']}, since {holder['since']})"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

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
    ) -> TaskRecord:
        """Add one task: all of it, or after a crash at any instant nothing.

        Args:
            concepts: the new concepts' names, without brackets.
            tensors: `<layer>/<factor>` -> tensor, what the method kept.
            rows: concept -> (n, d) token rows, one entry for each of `concepts`.
            facts: steps, seed, seconds, loss ...; JSON values.
            method: must be the bank's, and so must `config`.
            extra_files: relative name -> bytes, or a folder to be copied, for the task's folder.

        Raises:
            PerdureError: for a name that is taken, another method, a locked bank, a full disk, and
                tensors that are not finite.
            ValueError: for rows that do not match the concepts, and names that cannot be stored.
        """
        concepts = tuple(concepts)
        with self._writing("learn"):
            self.check_method(method, config)
            self.check_new(concepts)
            _check_tensors(concepts, tensors, rows)
            folder = f"{self._next_number():02d}-{concepts[0]}"
            if len(concepts) > 1:
                folder += f"+{len(concepts) - 1}"
            record = TaskRecord(folder=folder, concepts=concepts, facts=_as_json(facts))

            files = dict(self._state.files)
            for index, concept in enumerate(concepts):
                factors = tensors if index == 0 else {}
                data = self._concept_bytes(record, concept, factors, rows[concept])
                name = "concept.safetensors"
                _write_file(self._staging / "concepts" / concept / name, data)
                files[concept] = _File(name=name, sha256=hashlib.sha256(data).hexdigest())
            staged_task = self._staging / "tasks" / folder
            staged_task.mkdir(parents=True)
            for name, content in _contents(extra_files):
                _write_file(staged_task / _relative(name), content)
            _sync_tree(self._staging)

            for concept in concepts:
                target = self.path / "concepts" / concept
                os.rename(self._staging / "concepts" / concept, target)
            os.rename(staged_task, self.path / "tasks" / folder)
            _sync_folder(self.path / "concepts")
            _sync_folder(self.path / "tasks")
            self._write_state(replace(self._state, tasks=(*self.tasks, record), files=files))
        return record

    def remove(self, concept: str) -> None:
        """Forget a concept, and its task when it was the last of it; all of it or nothing.

        The other concepts of its task keep the task's factors: they move, unchanged, into the next
        one's file. Whether the method can do without them is the method's to say, beforehand.

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
                data = self._concept_bytes(shorter, rest[0], factors, row)
                # Under a new name beside the old file, which bank.json lists until it is replaced.
                last = _CONCEPT_FILE.fullmatch(files[rest[0]].name)
                assert last is not None
                name = f"concept.{int(last[1] or 0) + 1}.safetensors"
                staged, home = self._staging / name, self.path / "concepts" / rest[0]
                _write_file(staged, data)
                os.rename(staged, home / name)
                _sync_folder(home)
                files[rest[0]] = _File(name=name, sha256=hashlib.sha256(data).hexdigest())
            tasks = [shorter if task is record else task for task in self.tasks]
            kept = tuple(task for task in tasks if task.concepts)
            self._write_state(replace(self._state, tasks=kept, files=files))
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
            _write_file(staged, data)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(staged, target)
            _sync_folder(target.parent)
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
        with self.lock(verb=verb), _os_errors(self.path):
            self.reload()
            self._sweep()
            yield
            shutil.rmtree(self._staging, ignore_errors=True)

    def _next_number(self) -> int:
        """One more than the greatest number in use: 1, 2, ..."""
        return 1 + max((int(task.folder.partition("-")[0]) for task in self.tasks), default=0)

    def _concept_bytes(
        self, record: TaskRecord, concept: str, factors: Mapping[str, Tensor], row: Tensor
    ) -> bytes:
        about = {
            "format": FORMAT,
            "method": self.method,
            "config": self.config,
            "base": asdict(self.base),
            "concept": concept,
            "task": record.folder,
            "concepts": record.concepts,
            "facts": record.facts,
        }
        tensors = {**factors, _TOKEN + concept: row}
        tensors = {
            key: tensor.detach().cpu().clone().contiguous() for key, tensor in tensors.items()
        }
        # One key only: safetensors writes several in no fixed order.
        metadata = {"perdure": json.dumps(about, sort_keys=True, allow_nan=False)}
        return safetensors.torch.save(tensors, metadata)

    def _write_state(self, state: _State) -> None:
        """The commit point: replace bank.json."""
        for folder in ("concepts", "tasks"):
            (self.path / folder).mkdir(exist_ok=True)
        staged = self._staging / "bank.json"
        _write_file(staged, state.to_json().encode())
        os.replace(staged, self.path / "bank.json")
        self._state = state
        _sync_folder(self.path)

    def _sweep(self) -> None:
        """Delete what a crash left: everything of ours that bank.json does not list."""
        for folder in ("concepts", "tasks"):
            (self.path / folder).mkdir(exist_ok=True)
        for staging in self.workspace.glob("commit-*"):
            shutil.rmtree(staging)
        for home in _folders(self.path / "concepts"):
            if home.name not in self._state.files and _CONCEPT.fullmatch(home.name):
                shutil.rmtree(home)
                continue
            for file in home.iterdir():
                stale = (
                    home.name in self._state.files
                    and file.name != self._state.files[home.name].name
                )
                if stale and _CONCEPT_FILE.fullmatch(file.name):
                    file.unlink()
        listed = {task.folder for task in self.tasks}
        for home in _folders(self.path / "tasks"):
            if home.name not in listed and _TASK_FOLDER.fullmatch(home.name):
                shutil.rmtree(home)


def check_concept_name(name: str) -> None:
    """Raise PerdureError where `name` cannot be a concept's."""
    if not _CONCEPT.fullmatch(name):
        raise PerdureError(
            f"{name!r} cannot be a concept's name: take letters, digits, - and _, a letter first,"
            " at most 40 of them and no brackets."
        )


def _read_state(path: Path) -> _State:
    file = path / "bank.json"
    mend = "restore it from a backup"
    try:
        content = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PerdureError(
            f"There is no bank at {path}: check --bank; `perdure learn` makes a new one."
        ) from error
    except OSError as error:
        raise PerdureError(f"{file} cannot be read ({error.strerror}): check it.") from error
    except ValueError as error:
        raise PerdureError(f"{file} is damaged ({error}): {mend}.") from error
    try:
        number = content["format"]
        if not isinstance(number, int):
            raise TypeError(f"format is {number!r}")
        if number > FORMAT:
            raise PerdureError(
                f"The bank {path} was written by a newer perdure (format {number}, this one reads"
                f" {FORMAT}): upgrade with `pip install -U perdure`."
            )
        return _State.from_json(content)
    except (KeyError, TypeError, ValueError) as error:
        raise PerdureError(f"{file} is not a bank's ({error!r}): {mend}.") from error


def _read_metadata(data: bytes) -> dict[str, Any]:
    """The `perdure` entry of a safetensors file: 8 bytes of length, then a JSON header."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    about: dict[str, Any] = json.loads(header["__metadata__"]["perdure"])
    return about


def _check_tensors(
    concepts: Sequence[str], tensors: Mapping[str, Tensor], rows: Mapping[str, Tensor]
) -> None:
    if rows.keys() != set(concepts):
        raise ValueError(f"rows must be given for {list(concepts)}, not for {list(rows)}")
    for name, row in rows.items():
        if row.ndim != 2:
            raise ValueError(f"rows of {name!r} must have the shape (n, d), not {tuple(row.shape)}")
    for key, tensor in [*tensors.items(), *rows.items()]:
        if key.startswith(_TOKEN):
            raise ValueError(f"the key {key!r} is kept for token rows")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise PerdureError(
                f"Learning {', '.join(concepts)} diverged ({key} is not finite), nothing was kept:"
                " learn it again with a lower learning rate or another seed."
            )


def _file_json(file: _File) -> dict[str, str]:
    return {"file": file.name, "sha256": file.sha256}


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as they come back from a JSON file: tuples are lists, and nothing is shared."""
    content: dict[str, Any] = json.loads(json.dumps(dict(values), allow_nan=False))
    return content


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


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.iterdir() if path.is_dir() and not path.is_symlink()]


def _write_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Make the renames in a folder last; Windows cannot open folders."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_tree(path: Path) -> None:
    for child in sorted(path.rglob("*")):
        if child.is_dir():
            _sync_folder(child)
    _sync_folder(path)


@contextmanager
def _os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PerdureError(
            f"The bank {path} cannot be written ({error}); what it held is intact: check the disk's"
            " free space and your permissions, and try again."
        ) from error
