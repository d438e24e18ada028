"""A TOML file that says what a bank is to learn, concept after concept.

method = "gated"            # and base, bank, [options]: as on the command line

[learn]                     # fields of LearnSettings, for every concept
steps = 400

[[concept]]
pictures = "photos/rex"     # a folder, or a list of files, beside the TOML file
noun = "dog"

[[concept]]
name = "bo"
pictures = [{ from = "photos/bo", weight = 2 }, "photos/more"]    # several folders

[[concept]]
name = "ink"                # the folder's name where it is not given
pictures = "photos/inkwash"
template = "a painting in the style of {}"
steps = 800                 # of this concept alone
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perdure.bank_names import composed
from perdure.errors import PerdureError
from perdure.learning.settings import LearnSettings
from perdure.learning.weighted import Source
from perdure.settings import allowed

__all__ = ["Lesson", "Lessons", "read_lessons"]

_TOP = {"method": str, "options": dict, "learn": dict, "concept": list}
_OWN = {"name": str, "pictures": (str, list), "noun": str}
_SOURCE = {"from": str, "weight": (int, float)}
_WORDS = {
    (int, float): "a number",
    str: "a text",
    dict: "a table",
    list: "[[concept]] tables",
    (str, list): "a text or list",
}
_MOST = 1_000_000
"""Bytes of a file."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One concept, and what is asked for it alone."""

    name: str
    pictures: Path | Sequence[Path | Source]
    noun: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """What is to be learned; for every concept its own settings come before the common ones."""

    lessons: tuple[Lesson, ...]
    method: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def read_lessons(path: Path) -> Lessons:
    """Read a file; paths in it are beside it.

    Raises PerdureError, naming the file and the mend, for one that cannot be read, a key that does
    not exist, a value that does not fit, and a concept that is there twice.
    """
    try:
        if path.stat().st_size > _MOST:
            raise PerdureError(f"{path} is far too large for a list of concepts: give a TOML file.")
        told = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise PerdureError(f"{path} cannot be read ({error.strerror}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PerdureError(f"{path} is no TOML file that can be read: {error}.") from error
    _check(told, _TOP, str(path))
    tables = told.get("concept", [])
    if not tables or not all(isinstance(table, dict) for table in tables):
        raise PerdureError(f"{path} teaches nothing: give each concept a [[concept]] table.")
    lessons = tuple(_lesson(table, path, k) for k, table in enumerate(tables, 1))
    names = [lesson.name for lesson in lessons]
    if twice := [name for name in names if names.count(name) > 1]:
        raise PerdureError(f"{path} has the concept {twice[0]!r} twice: give one another name.")
    return Lessons(
        lessons=lessons,
        method=told.get("method"),
        options=told.get("options", {}),
        settings=_settings(told.get("learn", {}), f"{path}, [learn]"),
    )


def _lesson(table: Mapping[str, Any], path: Path, number: int) -> Lesson:
    where = f"{path}, concept {number}"
    own = {key: value for key, value in table.items() if key in _OWN}
    _check(own, _OWN, where)
    given = own.get("pictures")
    if not given or not all(isinstance(one, str | dict) for one in given):
        raise PerdureError(f"{where} has no pictures: say pictures = a folder, or a list of files.")
    several = not isinstance(given, str)
    listed = [given] if isinstance(given, str) else given
    pictures = tuple(_source(one, path.parent, where) for one in listed)
    if several and "name" not in own:
        raise PerdureError(f"{where} has several sources and no name: give it one.")
    return Lesson(
        name=composed(own.get("name") or Source.of(pictures[0]).pictures.resolve().name),
        pictures=pictures if several else path.parent / given,
        noun=own.get("noun", ""),
        settings=_settings({k: v for k, v in table.items() if k not in _OWN}, where),
    )


def _source(given: str | Mapping[str, Any], folder: Path, where: str) -> Path | Source:
    if isinstance(given, str):
        return folder / given
    _check(given, _SOURCE, where)
    if "from" not in given:
        raise PerdureError(f"{where} has pictures from nowhere: say from = a folder.")
    return Source(folder / given["from"], given.get("weight", 1.0))


def _settings(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields by their own names or as on the command line: `batch-size`, `template`."""
    known = {name: name for name in allowed(LearnSettings)}
    known |= {one.option: name for name, one in allowed(LearnSettings).items() if one.option}
    read = {known.get(key.replace("-", "_"), key): value for key, value in values.items()}
    try:
        LearnSettings.of(read)
    except PerdureError as error:
        raise PerdureError(f"{where}: {error}") from error
    return read


def _check(told: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    for key, value in told.items():
        if key not in known:
            raise PerdureError(f"{where} has {key!r}, which means nothing: {', '.join(known)} do.")
        if not isinstance(value, known[key]):
            raise PerdureError(f"{where}: {key} is {value!r}, but must be {_WORDS[known[key]]}.")
