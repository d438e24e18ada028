"""What can befall a bank.json: parts that are gone, of another kind, of another value, or cut."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

KINDS: tuple[Any, ...] = (None, True, 0, -1, 3, 0.5, float("inf"), "", "x", [], ["x"], {}, {"x": 1})


def mutations(text: str) -> Iterator[tuple[str, str]]:
    """What was done, and the text that came of it; every one once, none as it was."""
    content = json.loads(text)
    seen = {json.dumps(content)}
    for path in _paths(content):
        name = "/".join(map(str, path))
        for what, change in (
            ("gone", _gone),
            ("twice", _twice),
            ("reversed", _reversed),
            *((f"is {value!r}", _put(value)) for value in (*KINDS, *_near(_at(content, path)))),
        ):
            other = copy.deepcopy(content)
            change(_at(other, path[:-1]), path[-1])
            changed = json.dumps(other)
            if changed not in seen:
                seen.add(changed)
                yield f"{name} {what}", changed
    for k in range(0, len(text), max(1, len(text) // 40)):
        yield f"cut at {k}", text[:k]
        yield f"zeroed at {k}", text[:k] + "\0" * 16 + text[k + 16 :]


def _paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in children:
        yield (*before, key)
        if isinstance(child, dict | list):
            yield from _paths(child, (*before, key))


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _near(value: Any) -> tuple[Any, ...]:
    """Other values of the same kind, which only what else is known can tell from the right one."""
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int | float):
        return (value + 1, value * 2, value / 2, str(value))
    if isinstance(value, str):
        return (value + "x", value[1:], value.upper(), value[::-1])
    return ()


def _gone(home: Any, key: Any) -> None:
    del home[key]


def _put(value: Any) -> Any:
    def put(home: Any, key: Any) -> None:
        home[key] = value

    return put


def _twice(home: Any, key: Any) -> None:
    if isinstance(home, list):
        home.append(home[key])


def _reversed(home: Any, key: Any) -> None:
    if isinstance(home[key], list):
        home[key] = home[key][::-1]
