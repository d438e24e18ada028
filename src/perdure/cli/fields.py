"""A verb's options, made from the dataclasses that hold them."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields
from functools import wraps
from itertools import pairwise
from typing import Annotated, Any

import typer

from perdure.settings import Allowed, Settings, allowed

__all__ = ["Given", "docs_of", "flag_of", "with_options"]

Given = Mapping[str, Any]
"""Field -> value, of the options that were given; what is not in it is as elsewhere decided."""

_SENTENCE = re.compile(r".*?[^.]\.(?= [^a-z]|$)|.*")


def with_options(
    *, without: Collection[str] = (), **groups: type[Settings] | Settings
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a verb one option for each field of these dataclasses, but for those named ``without``.

    The verb's parameter of a group's name stands where the options do, and gets a `Given`. An
    instance in place of a dataclass holds the verb's own defaults, which are then always given.
    """
    usual = {
        group: settings if isinstance(settings, Settings) else settings()
        for group, settings in groups.items()
    }

    def decorated(verb: Callable[..., None]) -> Callable[..., None]:
        @wraps(verb)
        def called(**said: Any) -> None:
            for group, settings in usual.items():
                own = (name for name in allowed(type(settings)) if name not in without)
                texts = {name: said.pop(name, None) for name in own}
                given = {name: text for name, text in texts.items() if text is not None}
                said[group] = {**_own(settings), **settings.read(given)}
            verb(**said)

        signature = inspect.signature(verb, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            if parameter.name in usual:
                parameters += _options(usual[parameter.name], without)
            else:
                parameters.append(parameter)
        called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {one.name: one.annotation for one in parameters}
        return called

    return decorated


def flag_of(name: str, one: Allowed) -> str:
    """A field's option, such as `--batch-size`."""
    return "--" + (one.option or name).replace("_", "-")


def docs_of(settings: type[Settings]) -> dict[str, str]:
    """Field -> the docstring under it, in one line."""
    found: dict[str, str] = {}
    for cls in reversed(settings.__mro__):
        if not issubclass(cls, Settings) or cls is Settings:
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(tree, ast.ClassDef)
        for item, after in pairwise(tree.body):
            if isinstance(item, ast.AnnAssign) and isinstance(after, ast.Expr):
                text = ast.literal_eval(after.value)
                found[ast.unparse(item.target)] = " ".join(text.split())
    return found


def _own(usual: Settings) -> dict[str, Any]:
    """What is not as the dataclass has it."""
    values = ((field, getattr(usual, field.name)) for field in fields(usual))
    return {field.name: value for field, value in values if value != field.default}


def _options(usual: Settings, without: Collection[str]) -> Iterator[inspect.Parameter]:
    docs = docs_of(type(usual))
    for name, one in allowed(type(usual)).items():
        if name in without:
            continue
        flag, value = flag_of(name, one), _shown(name, one, getattr(usual, name))
        sentence = _SENTENCE.findall(docs[name])[0]
        option = typer.Option(
            f"{flag}/--no-{flag[2:]}" if one.type is bool else flag,
            help=f"{sentence}  [default: {value}]" if value else sentence,
            metavar=_metavar(one),
            show_default=False,
        )
        # Texts as they are: the dataclass reads and refuses them, as it does a Python call's.
        several = one.type is tuple and not one.form
        taken: Any = bool if one.type is bool else list[str] if several else str
        yield inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[taken | None, option],
        )


def _metavar(one: Allowed) -> str | None:
    if one.form:
        return f"<{one.form.example}>"
    if one.choices:
        return f"[{'|'.join(one.choices)}]"
    return {int: "<int>", float: "<float>", bool: None}.get(one.type, "<str>")


def _shown(name: str, one: Allowed, value: Any) -> str:
    """A default, as help has it; nothing where there is none to show."""
    if value is None or value == "":
        return ""
    if one.type is bool:
        return flag_of(name, one)[2:] if value else f"no-{flag_of(name, one)[2:]}"
    if one.type is float:
        return f"{value:g}"
    return ",".join(value) if one.type is tuple else str(value)
