"""Typed options: written once, they feed the command line, a Python call and a result's JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from perdure.errors import PerdureError

__all__ = [
    "Allowed",
    "Commas",
    "Count",
    "Form",
    "Limits",
    "NotNegative",
    "Option",
    "Positive",
    "Seed",
    "Settings",
    "Share",
    "allowed",
    "checked",
]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a number may be, in a field's `Annotated`: both ends belong to it but for `above`."""

    least: float | None = None
    above: float | None = None
    most: float | None = None

    def hold(self, value: float) -> bool:
        """Is the value inside? A whole number beyond all floats is not."""
        try:
            finite = math.isfinite(value)
        except OverflowError:
            return False
        return (
            finite
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
        )

    def __str__(self) -> str:
        start = "" if self.least is None else f"of at least {self.least:.12g}"
        start = start if self.above is None else f"above {self.above:.12g}"
        if self.most is None:
            return start
        if self.least is not None:
            return f"from {self.least:.12g} to {self.most:.12g}"
        return f"{start} and up to {self.most:.12g}".removeprefix(" and ")


@dataclass(frozen=True)
class Option:
    """In a field's `Annotated`: the option's name where it is not the field's."""

    name: str


@dataclass(frozen=True)
class Form:
    """In a field's `Annotated`: how a value of another form than the usual ones is read."""

    read: Callable[[Any], Any]
    """Makes the value from a text, a value or JSON; ValueError with name, value and mend."""
    example: str


class Commas:
    """In a field's `Annotated`: several values may come as one, with commas between."""


Count = Annotated[int, Limits(least=1)]
Seed = Annotated[int, Limits(least=0, most=2**31 - 1)]
NotNegative = Annotated[float, Limits(least=0)]
Positive = Annotated[float, Limits(above=0)]
Share = Annotated[float, Limits(above=0, most=1)]


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What the values of one field may be, as its annotation says."""

    type: type
    """int, float, bool, str, or tuple of str; whatever a `form` makes."""
    form: Form | None = None
    limits: Limits = Limits()
    choices: tuple[str, ...] = ()
    optional: bool = False
    commas: bool = False
    option: str | None = None

    def check(self, name: str, value: Any) -> Any:
        """The value, of a list or one text a tuple; ValueError with name, value and mend."""
        if value is None and self.optional:
            return value
        if self.form:
            return self.form.read(value)
        if self.type is tuple:
            value = (value,) if isinstance(value, str) else value
            if isinstance(value, Sequence) and all(isinstance(item, str) for item in value):
                return tuple(_parted(value) if self.commas else value)
        elif self.type in (int, float):
            number = isinstance(value, Integral if self.type is int else Real)
            if number and not isinstance(value, bool) and self.limits.hold(value):
                return value if isinstance(value, int | float) else self.type(value)
        elif isinstance(value, self.type) and (not self.choices or value in self.choices):
            return value
        raise ValueError(f"{name} is {value!r}, but must be {self}")

    def read(self, text: Any) -> Any:
        """The value that a text stands for; the text itself where it stands for none."""
        if self.type not in (int, float):
            return text
        try:
            return self.type(text)
        except ValueError:
            return text

    def __str__(self) -> str:
        words = {
            int: f"a whole number {self.limits}",
            float: f"a finite number {self.limits}",
            bool: "true or false",
            tuple: "a list of texts",
            str: "a text",
        }[self.type].strip()
        if self.choices:
            *first, last = map(repr, self.choices)
            words = f"{', '.join(first)} or {last}"
        return words + (", or None" if self.optional else "")


def checked(name: str, value: Any, hint: Any) -> Any:
    """A value that stands alone, where it fits an annotation; PerdureError as from `Settings`."""
    try:
        return _allowed(hint).check(name, value)
    except ValueError as error:
        raise PerdureError(f"{error}.") from error


def _parted(texts: Sequence[str]) -> Iterator[str]:
    return (part.strip() for text in texts for part in text.split(","))


def _fields(settings: type) -> Mapping[str, Allowed]:
    hints = get_type_hints(settings, include_extras=True)
    return {field.name: _allowed(hints[field.name]) for field in fields(settings)}


allowed: Callable[[type], Mapping[str, Allowed]] = cache(_fields)
"""Of a dataclass: field -> what it may be."""


def _allowed(hint: Any) -> Allowed:
    told: dict[str, Any] = {}
    while True:
        if get_origin(hint) is Annotated:
            for extra in hint.__metadata__:
                if isinstance(extra, Limits):
                    told["limits"] = extra
                elif isinstance(extra, Option):
                    told["option"] = extra.name
                elif isinstance(extra, Form):
                    told["form"] = extra
                elif extra is Commas:
                    told["commas"] = True
            hint = hint.__origin__
        elif get_origin(hint) in (Union, UnionType):
            told["optional"] = True
            (hint,) = (part for part in get_args(hint) if part is not NoneType)
        else:
            break
    if get_origin(hint) is Literal:
        return Allowed(type=str, choices=get_args(hint), **told)
    return Allowed(type=get_origin(hint) or hint, **told)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options, a field each: its annotation says what it may be, the docstring under it what it is.

    ValueError, when made, for a value that does not fit.
    """

    called: ClassVar[str] = ""
    """Whose options they are, in what the user reads."""

    def __post_init__(self) -> None:
        for name, one in allowed(type(self)).items():
            object.__setattr__(self, name, one.check(name, getattr(self, name)))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """From a user's values, or from JSON; PerdureError for an option that does not exist or a
        value that does not fit."""
        known = allowed(cls)
        for name in values:
            if name not in known:
                raise PerdureError(
                    f"There is no {cls.called} option {name!r}: choose from {', '.join(known)}."
                )
        try:
            return cls(**values)
        except ValueError as error:
            raise cls._refused(error) from error

    @classmethod
    def read(cls, texts: Mapping[str, Any]) -> dict[str, Any]:
        """What a command line gave, as values; each is checked, and the rest is left out."""
        try:
            return {
                name: one.check(name, one.read(texts[name]))
                for name, one in allowed(cls).items()
                if name in texts
            }
        except ValueError as error:
            raise cls._refused(error) from error

    @classmethod
    def _refused(cls, error: ValueError) -> PerdureError:
        return PerdureError(f"{cls.called.capitalize()} option {error}.")

    def to_json(self) -> dict[str, Any]:
        """Field -> JSON value; `of` makes it again."""
        return asdict(self)
