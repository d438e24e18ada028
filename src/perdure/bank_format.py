"""What a bank's files say: bank.json, the concepts' safetensors, and the names in them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from perdure.adapters.prompts import STATE, WORD, Token
from perdure.bank_names import is_name
from perdure.errors import PerdureError
from perdure.hosts.diffusion.identity import BaseIdentity
from perdure.methods import build
from perdure.untrusted import parse_json

__all__ = [
    "FORMAT",
    "BaseIdentity",
    "ConceptFile",
    "State",
    "TaskRecord",
    "COMPOSITION_FILE",
    "CONCEPT_FILE",
    "as_json",
    "check_agreement",
    "check_buildable",
    "check_finite",
    "check_tensors",
    "differences",
    "folder_of",
    "from_bytes",
    "is_task_folder",
    "lost",
    "metadata_of",
    "number_of",
    "read_state",
    "reading_errors",
    "rebuilding",
    "to_bytes",
    "without",
    "composition_to_bytes",
]

FORMAT = 2
"""The format of bank.json and of the concepts' files that this version writes. It reads format 1,
too, in which a token is `token/<concept>`, a row of the one text encoder's table."""

CHECKSUM = "sha256"
"""The key of bank.json's checksum of all its other keys. Banks from before it have none."""

CONCEPT_FILE = re.compile(r"(concept)(?:\.(\d+))?\.safetensors")
COMPOSITION_FILE = re.compile(r"(composition|together)(?:\.(\d+))?\.safetensors")
_TASK_FOLDER = re.compile(r"[0-9]{2,}-(.+?)(?:\+[0-9]+)?")
_TOKENS = (f"{WORD}/", f"{STATE}/")
_OLD_TOKEN, _OLD_ENCODER = "token/", "text_encoder"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NUMBERS = {"loss", "norm", "parameters", "penalty", "seconds"}
_TABLES = {"nouns", "settings", "composition", "together"}
_OF_CONCEPTS = {"nouns", "pictures", "psnr"}
"""Facts by concept."""
_UNSET = object()

T = TypeVar("T")


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
class ConceptFile:
    """A concept's file in its folder, or the bank's own, and the SHA-256 of its bytes."""

    name: str
    sha256: str

    def next_name(self) -> str:
        """A name for the file that replaces it: concept.1.safetensors, concept.2.safetensors."""
        known = CONCEPT_FILE.fullmatch(self.name) or COMPOSITION_FILE.fullmatch(self.name)
        assert known is not None
        return f"{known[1]}.{int(known[2] or 0) + 1}.safetensors"


@dataclass(frozen=True, kw_only=True)
class State:
    """The contents of bank.json."""

    base: BaseIdentity
    method: str
    config: dict[str, Any]
    tasks: tuple[TaskRecord, ...] = ()
    files: Mapping[str, ConceptFile]
    composition: ConceptFile | None = None
    """What the tasks share, in a file of the bank's own that is replaced whole."""

    def to_json(self) -> str:
        content = {**self._content(), CHECKSUM: self.checksum}
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    @property
    def checksum(self) -> str:
        """SHA-256 of what bank.json says: another one for whatever else it says."""
        return _checksum(self._content())

    def _content(self) -> dict[str, Any]:
        tasks = [
            {
                "folder": task.folder,
                "concepts": [
                    {"name": name, "file": self.files[name].name, "sha256": self.files[name].sha256}
                    for name in task.concepts
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
        if self.composition is not None:
            file = self.composition
            content["composition"] = {"file": file.name, "sha256": file.sha256}
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> State:
        """Raises KeyError, TypeError or ValueError where `content` is not a bank's."""
        files: dict[str, ConceptFile] = {}
        tasks: list[TaskRecord] = []
        for task in _of(list, content, "tasks"):
            names = []
            for entry in _of(list, task, "concepts"):
                # Names become paths that are deleted one day: none may lead out of the bank.
                name, file = _of(str, entry, "name"), _file(entry, CONCEPT_FILE)
                if not is_name(name):
                    raise ValueError(f"bad concept entry {entry!r}")
                if name in files:
                    raise ValueError(f"concept {name!r} is listed twice")
                files[name] = file
                names.append(name)
            folder = _of(str, task, "folder")
            if not is_task_folder(folder) or not names:
                raise ValueError(f"bad task entry {folder!r}")
            if tasks and number_of(folder) <= number_of(tasks[-1].folder):
                raise ValueError(f"task {folder!r} comes after {tasks[-1].folder!r}")
            facts = _checked_facts(_of(dict, task, "facts"))
            tasks.append(TaskRecord(folder=folder, concepts=tuple(names), facts=facts))
        base = _of(dict, content, "base")
        shared = content.get("composition", content.get("together"))  # its name in format 1
        return cls(
            composition=_file(shared, COMPOSITION_FILE) if shared is not None else None,
            base=BaseIdentity(name=_of(str, base, "name"), hash=_of(str, base, "hash")),
            method=_of(str, content, "method"),
            config=_of(dict, content, "config"),
            tasks=tuple(tasks),
            files=files,
        )


def folder_of(number: int, concepts: Sequence[str]) -> str:
    """The name of a task's folder: "03-rex", of three concepts "03-rex+2"."""
    others = f"+{len(concepts) - 1}" if len(concepts) > 1 else ""
    return f"{number:02d}-{concepts[0]}{others}"


def without(task: TaskRecord, concept: str) -> TaskRecord:
    """What is left of a task when one of its concepts is forgotten: nothing that names it."""
    rest = tuple(name for name in task.concepts if name != concept)
    folder = folder_of(number_of(task.folder), rest) if rest else task.folder
    facts = {
        key: {name: fact for name, fact in value.items() if name != concept}
        if key in _OF_CONCEPTS and isinstance(value, dict)
        else value
        for key, value in task.facts.items()
    }
    return TaskRecord(folder=folder, concepts=rest, facts=facts)


def number_of(folder: str) -> int:
    """The number of a task's folder: 3 of "03-rex"."""
    return int(folder.partition("-")[0])


def _of(kind: type[T], content: Any, key: str) -> T:
    """The value of a key, of this kind: KeyError or TypeError otherwise."""
    value = content[key]
    if not isinstance(value, kind):
        raise TypeError(f"{key} is {value!r}")
    return value


def _file(entry: Any, names: re.Pattern[str]) -> ConceptFile:
    file = ConceptFile(name=_of(str, entry, "file"), sha256=_of(str, entry, "sha256"))
    if not names.fullmatch(file.name) or not _SHA256.fullmatch(file.sha256):
        raise ValueError(f"bad entry {entry!r}")
    return file


def _checked_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts, where those that are read one day are of the kind that a learn writes."""
    for key, value in facts.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if (key in _NUMBERS and not number) or (key in _TABLES and not isinstance(value, dict)):
            raise TypeError(f"{key} is {value!r}")
    templates = facts.get("settings", {}).get("templates", ["{}"])
    if not isinstance(templates, list) or not templates:
        raise TypeError(f"templates is {templates!r}")
    if not all(isinstance(text, str) and "{}" in text for text in templates):
        raise TypeError(f"templates is {templates!r}")
    return facts


def _checksum(content: Mapping[str, Any]) -> str:
    """Of the values: how the file sets them out does not matter."""
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def rebuilding(path: Path) -> str:
    """How a bank.json comes back, for the sentences that say that it is hurt."""
    return (
        f"rebuild it with `perdure doctor --bank {path} --repair`, or restore the folder from a"
        " backup"
    )


def read_state(path: Path) -> State:
    """The bank.json of the bank at `path`. Raises PerdureError where it is none."""
    file = path / "bank.json"
    mend = rebuilding(path)
    try:
        content = parse_json(file.read_bytes())
        json.dumps(content, allow_nan=False)  # JSON has neither NaN nor infinity, Python's has
    except (FileNotFoundError, NotADirectoryError) as error:
        if lost(path):
            raise PerdureError(f"{file} is missing, though concepts lie there: {mend}.") from error
        raise PerdureError(
            f"There is no bank at {path}: check --bank; `perdure learn` makes a new one."
        ) from error
    except OSError as error:
        raise PerdureError(f"{file} cannot be read ({error.strerror}): check it.") from error
    except ValueError as error:
        raise PerdureError(f"{file} is damaged ({error}): {mend}.") from error
    try:
        number = content["format"]
        if type(number) is not int or number < 1:
            raise TypeError(f"format is {number!r}")
        if number > FORMAT:
            raise PerdureError(
                f"The bank {path} was written by a newer perdure (format {number}, this one reads"
                f" {FORMAT}): upgrade with `pip install -U perdure`."
            )
        written = content.pop(CHECKSUM, None)
        if written not in (None, _checksum(content)):
            raise PerdureError(
                f"{file} is damaged (what it says is not what its checksum is of): {mend}."
            )
        state = State.from_json(content)
    except (KeyError, TypeError, ValueError) as error:
        raise PerdureError(f"{file} is not a bank's ({error!r}): {mend}.") from error
    check_buildable(file, state)
    return state


def check_buildable(file: Path, state: State) -> None:
    """Raise PerdureError where there is no such method, or it does not take this configuration.

    Options that the configuration lacks are younger than the bank and have their defaults.
    """
    try:
        build(state.method, **state.config)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise PerdureError(
            f"{file} cannot be used ({error}): {rebuilding(file.parent)}, or, if a newer perdure"
            " wrote it, upgrade with `pip install -U perdure`."
        ) from error


def check_agreement(
    path: Path, state: State, file: Path, about: Mapping[str, Any], task: TaskRecord | None = None
) -> None:
    """Raise PerdureError where a file's metadata is not what the bank.json at `path` says.

    Both are written from one `State`, so they are equal to the letter, options that only one of
    them has included.

    Args:
        path: of the bank.
        state: what its bank.json says.
        file: whose metadata it is.
        about: the metadata.
        task: of the concept whose file it is, where it is a concept's.
    """
    here = {**about.get("config", {}), "method": about.get("method")}
    there = {**state.config, "method": state.method}
    here["base"], there["base"] = about.get("base", {}).get("hash"), state.base.hash
    if task is not None:
        here["task"], there["task"] = about.get("task"), task.folder
        if about.get("concept") == task.concepts[0]:  # its file holds the task's factors
            here["first concept"], there["first concept"] = about["concepts"][0], task.concepts[0]
    if different := differences(here, there):
        raise PerdureError(
            f"{file} says {different}, unlike {path / 'bank.json'}: {rebuilding(path)}."
        )


def lost(path: Path) -> bool:
    """Do concepts' files lie at `path`, where there is no bank.json that lists them?"""
    homes = path / "concepts"
    return not (path / "bank.json").exists() and any(
        CONCEPT_FILE.fullmatch(file.name) for file in homes.glob("*/*")
    )


def to_bytes(
    state: State, task: TaskRecord, concept: str, factors: Mapping[str, Tensor], token: Token
) -> tuple[bytes, str]:
    """A concept's safetensors file and its SHA-256."""
    about = {
        "format": FORMAT,
        "method": state.method,
        "config": state.config,
        "base": asdict(state.base),
        "concept": concept,
        "task": task.folder,
        "concepts": task.concepts,
        "facts": task.facts,
    }
    parts = {f"{part}/{concept}": rows for part, rows in token.parts.items()}
    tensors = {
        key: tensor.detach().cpu().clone().contiguous()
        for key, tensor in {**factors, **parts}.items()
    }
    # One key only: safetensors writes several in no fixed order.
    metadata = {"perdure": json.dumps(about, sort_keys=True, allow_nan=False)}
    data = safetensors.torch.save(tensors, metadata)
    return data, hashlib.sha256(data).hexdigest()


def composition_to_bytes(state: State, tensors: Mapping[str, Tensor]) -> tuple[bytes, str]:
    """The safetensors file of what the tasks share, and its SHA-256."""
    about = {
        "format": FORMAT,
        "method": state.method,
        "config": state.config,
        "base": asdict(state.base),
    }
    whole = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in tensors.items()}
    metadata = {"perdure": json.dumps(about, sort_keys=True, allow_nan=False)}
    data = safetensors.torch.save(whole, metadata)
    return data, hashlib.sha256(data).hexdigest()


def from_bytes(data: bytes, concept: str) -> tuple[dict[str, Tensor], Token, dict[str, Any]]:
    """(factors, token, metadata) of a concept's file, of this format or an older one."""
    tensors = safetensors.torch.load(data)
    about = metadata_of(data)
    if about["format"] == 1:
        parts = {f"{WORD}/{_OLD_ENCODER}": tensors.pop(_OLD_TOKEN + concept)}
    else:
        own = [key for key in tensors if key.startswith(_TOKENS)]
        parts = {key.removesuffix(f"/{concept}"): tensors.pop(key) for key in own}
    return tensors, Token(parts), about


@contextmanager
def reading_errors(path: Path, mend: str) -> Iterator[None]:
    """What a safetensors file raises that is none, or none of ours, as PerdureErrors."""
    try:
        yield
    except (SafetensorError, KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise PerdureError(f"{path} is no file of a bank ({error!r}): {mend}.") from error


def metadata_of(data: bytes) -> dict[str, Any]:
    """What a safetensors file of ours says of itself; KeyError or ValueError where it is none."""
    # safetensors reads metadata from paths alone: 8 bytes of length, then a JSON header.
    header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")])
    about: dict[str, Any] = parse_json(header["__metadata__"]["perdure"])
    return about


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as they come back from a JSON file: tuples are lists, and nothing is shared."""
    content: dict[str, Any] = json.loads(json.dumps(dict(values), allow_nan=False))
    return content


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    """Where two configurations differ, "rank = 8 (not 16), mask = unset (not true)"; or ""."""

    def text(config: Mapping[str, Any], name: str) -> str:
        return json.dumps(config[name]) if name in config else "unset"

    return ", ".join(
        f"{name} = {text(here, name)} (not {text(there, name)})"
        for name in sorted(here.keys() | there.keys())
        if here.get(name, _UNSET) != there.get(name, _UNSET)
    )


def is_task_folder(text: str) -> bool:
    """Is it the name of a task's folder?"""
    known = _TASK_FOLDER.fullmatch(text)
    return known is not None and is_name(known[1])


def check_tensors(
    concepts: Sequence[str], tensors: Mapping[str, Tensor], tokens: Mapping[str, Token]
) -> None:
    """Raise ValueError or PerdureError where a task's tensors cannot be kept."""
    if tokens.keys() != set(concepts):
        raise ValueError(f"tokens must be given for {list(concepts)}, not for {list(tokens)}")
    parts = {f"{part}/{name}": t for name, of in tokens.items() for part, t in of.parts.items()}
    for key, rows in parts.items():
        if rows.ndim != 2:
            raise ValueError(f"{key!r} must have the shape (n, d), not {tuple(rows.shape)}")
    for key in tensors:
        if key.startswith(_TOKENS):
            raise ValueError(f"the key {key!r} is kept for tokens")
    check_finite({**tensors, **parts}, ", ".join(concepts))


def check_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Raise PerdureError where a tensor of what was learned is not finite."""
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise PerdureError(
                f"Learning {what} diverged ({key} is not finite), nothing was kept:"
                " learn it again with a lower learning rate or another seed."
            )
