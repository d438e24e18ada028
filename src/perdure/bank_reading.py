"""What a bank says of itself and its concepts: read and verified, nothing is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from perdure.adapters.prompts import Token
from perdure.bank_format import (
    BaseIdentity,
    ConceptFile,
    State,
    TaskRecord,
    as_json,
    check_agreement,
    differences,
    from_bytes,
    metadata_of,
    read_state,
    reading_errors,
    rebuilding,
)
from perdure.bank_names import check_new_names
from perdure.errors import PerdureError

__all__ = ["ReadableBank"]


class _Tensors(Mapping[str, Tensor]):
    """A task's tensors; its file is read and verified when they are first touched."""

    def __init__(self, read: Callable[[], Mapping[str, Tensor]]) -> None:
        self._read = read

    @cached_property
    def _all(self) -> Mapping[str, Tensor]:
        return self._read()

    def __getitem__(self, key: str) -> Tensor:
        return self._all[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


class _Tokens(Mapping[str, Token]):
    """Tokens by concept; a concept's file is read and verified when its token is first asked for.

    The names are known without reading.
    """

    def __init__(self, concepts: Sequence[str], read: Callable[[str], Token]) -> None:
        self._places = dict.fromkeys(concepts)
        self._read, self._found = read, dict[str, Token]()

    def __getitem__(self, concept: str) -> Token:
        if concept not in self._places:
            raise KeyError(concept)
        if concept not in self._found:
            self._found[concept] = self._read(concept)
        return self._found[concept]

    def __contains__(self, concept: object) -> bool:
        return concept in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class ReadableBank:
    """The part of `Bank` that reads. It remembers bank.json as it was when it was last read."""

    def __init__(self, path: Path, state: State) -> None:
        self.path = path
        self._state = state

    def reload(self) -> None:
        """Read bank.json again: another process may have written it."""
        self._state = read_state(self.path)

    # What it says

    @property
    def state(self) -> State:
        """bank.json as it was last read."""
        return self._state

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
    def derived(self) -> Path:
        """`.derived/`, for what follows from the concepts' files; it may be deleted at any time."""
        return self.path / ".derived"

    @property
    def prompts(self) -> Path:
        """Encoded prompts, for bases with large text encoders; part of `derived`."""
        return self.derived / "prompts"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what bank.json says: it changes with every commit and remove."""
        return self._state.checksum

    def fingerprint_at(self, tasks: int) -> str:
        """SHA-256 of what the bank draws with its first so many tasks; of their base, too.

        Later tasks leave it as it is, but for methods that train something for all of them.
        """
        state, shared = self._state, self._state.composition
        told = [
            state.base.hash,
            state.method,
            state.config,
            self.checksums()[:tasks],
            None if shared is None else shared.sha256,
        ]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def task_folder(self, task: TaskRecord | str) -> Path:
        """Folder of a task's log, cost and previews. `task` as in `read`."""
        return self.path / "tasks" / self._record(task).folder

    def concept_file(self, concept: str) -> Path:
        """The concept's safetensors file."""
        return self.path / "concepts" / concept / self._state.files[self._known(concept)].name

    def listed(self) -> list[Path]:
        """The files that bank.json lists: of the concepts, and of what the tasks share."""
        shared = self._state.composition
        own = [self.concept_file(concept) for concept in self.concepts]
        return own if shared is None else [*own, self.path / shared.name]

    def checksums(self) -> list[str]:
        """For every task, in order, the SHA-256 of its concepts' files as bank.json lists them."""
        files = self._state.files
        return [" ".join(files[name].sha256 for name in task.concepts) for task in self.tasks]

    def stored(self) -> dict[str, int]:
        """Bytes on disk of what bank.json lists: of the `concepts`' files, and `composition`."""
        composition = self._state.composition
        return {
            "concepts": sum(self.stored_of(concept) for concept in self._state.files),
            "composition": 0
            if composition is None
            else (self.path / composition.name).stat().st_size,
        }

    def stored_of(self, concept: str) -> int:
        """Bytes of a concept's file. Raises PerdureError where it is missing."""
        path = self.concept_file(concept)
        if not path.is_file():
            raise PerdureError(
                f"{path} is missing, though bank.json lists it: {self._mend(concept)}."
            )
        return path.stat().st_size

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

    def read(self, task: TaskRecord | str) -> tuple[dict[str, Tensor], dict[str, Token]]:
        """What a task left behind.

        Args:
            task: its record, its folder's name, or the name of one of its concepts.

        Returns:
            tensors: `<layer>/<factor>` -> tensor, as the method kept them.
            tokens: concept -> its token.

        Raises:
            PerdureError: for an unknown task, and a missing or damaged file.
        """
        tensors: dict[str, Tensor] = {}
        tokens: dict[str, Token] = {}
        for concept in self._record(task).concepts:
            factors, tokens[concept], _ = self.load(concept)
            tensors |= factors
        return tensors, tokens

    def kept(self) -> list[tuple[tuple[str, ...], Mapping[str, Tensor]]]:
        """Every task's concepts and tensors, in order.

        A task's file is read when its tensors are first touched, and that raises as `read`.
        """

        def read(concept: str) -> Callable[[], Mapping[str, Tensor]]:
            return lambda: self.load(concept)[0]

        return [(task.concepts, _Tensors(read(task.concepts[0]))) for task in self.tasks]

    def composition(self) -> dict[str, Tensor]:
        """What the tasks share, as a `Composed` method left it; empty where there is none.

        Raises PerdureError where the file is missing or damaged.
        """
        file = self._state.composition
        if file is None:
            names = ("composition", "together")  # the second is format 1's
            if any(task.facts.get(name) for task in self.tasks for name in names):
                raise PerdureError(
                    f"{self.path / 'bank.json'} does not list what the method trained for all of"
                    " its concepts (`composition`), though they were learned with it:"
                    f" {rebuilding(self.path)}."
                )
            return {}
        mend = "restore it from a backup; the concepts' own files do not depend on it"
        data = self._verified(self.path / file.name, file, mend)
        with reading_errors(self.path / file.name, mend):
            check_agreement(self.path, self._state, self.path / file.name, metadata_of(data))
            return safetensors.torch.load(data)

    def tokens(self, upto: int | None = None) -> Mapping[str, Token]:
        """The tokens of the first ``upto`` tasks' concepts, in order; all by default.

        A concept's file is read when its token is first asked for, and that raises as `read`.
        """
        concepts = [name for task in self.tasks[:upto] for name in task.concepts]
        return _Tokens(concepts, lambda concept: self.load(concept)[1])

    def metadata(self, concept: str) -> dict[str, Any]:
        """What the concept's file says of itself: format, method, config, base, task, facts."""
        return self.load(concept)[2]

    def load(self, concept: str) -> tuple[dict[str, Tensor], Token, dict[str, Any]]:
        """(factors, token, metadata) of a concept's file, verified and in agreement with bank.json;
        factors of a task's first concept alone. Raises as `read`."""
        path, file = self.concept_file(concept), self._state.files[concept]
        data = self._verified(path, file, self._mend(concept))
        with reading_errors(path, self._mend(concept)):
            factors, token, about = from_bytes(data, concept)
            check_agreement(self.path, self._state, path, about, self._record(concept))
        return factors, token, about

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

    def _mend(self, concept: str) -> str:
        return f"restore it from a backup, or `perdure remove {concept}` and learn it again"

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
