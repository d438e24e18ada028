"""A LoRA, or a textual inversion, that was trained elsewhere becomes a concept of a bank."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from perdure.adapters import Token
from perdure.bank import Bank, TaskRecord
from perdure.bank_names import check_concept_name, composed
from perdure.errors import PerdureError
from perdure.exchange.reading import Adapter, read_file
from perdure.hosts.diffusion.host import Base
from perdure.hosts.diffusion.inversions import read_inversion, word_of
from perdure.hosts.diffusion.lora_reading import by_layer, read
from perdure.learning.learn import bank_for, build_method
from perdure.learning.request import refuse_unfinished
from perdure.methods import METHODS, Method, build
from perdure.settings import checked

__all__ = ["adopt"]

_SETS = ("keys-values", "cross-attention", "all")
"""Of target layers, each a part of the next."""
Pairs = Mapping[str, tuple[Tensor, Tensor]]


def adopt(
    base: Base,
    bank: Bank | Path | str,
    name: str,
    source: Path | str,
    *,
    embedding: Path | str | None = None,
    trigger: str | None = None,
    scale: float = 1.0,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    note: Callable[[str], None] = lambda sentence: None,
    wait: float = 0,
) -> TaskRecord:
    """Take a LoRA or a textual inversion into a bank as a concept; all of it or nothing.

    Args:
        base: the frozen model that it was trained on; a new bank is bound to it.
        bank: a bank of a method that takes such concepts, or its folder, which is made where it is
            missing.
        name: of the concept, without brackets.
        source: a `.safetensors` file of kohya's, diffusers' or PEFT's, or PEFT's folder; or a
            textual inversion.
        embedding: of a LoRA the textual inversion that was trained with it, as its token.
        trigger: else the words of the base that it was trained with; the token is their row.
        scale: the LoRA's weight; alpha and rank count as the file says.
        method: of a new bank: by default `lora-independent` with the fewest target layers that hold
            the LoRA, or `textual-inversion`.
        options: of a new bank's method.
        note: told sentences for the user.
        wait: seconds to wait for another writer.

    Raises PerdureError for what the bank or its method cannot hold; the bank is then what it was.
    """
    name = composed(name)
    check_concept_name(name)
    checked("scale", scale, float)
    found = read_file(source)
    token, told = _token(base, found, embedding, trigger)
    modules = read(base, found.tensors, found.about, str(found.file)) if found.is_lora else {}
    made = None if _exists(bank) else _new_method(base, modules, found, method, options)
    if made is None:
        opened = bank_for(bank, base, method, options)
        made = build(opened.method, **opened.config)
    _check_takes(made, found)
    pairs = _pairs(base, made, modules, found)
    with base.session(tokens={name: token}):
        pass  # it is of this base, and no word of it
    if made.acts_in_prompts and modules:
        note(
            f"{made.name} lets it act at <{name}> and the prompt's end alone; where it was trained "
            "it acted on every word."
        )
    if told:
        note(told)
    if not _exists(bank):
        config = made.describe()["config"]
        bank = Bank.create(Path(str(bank)), base=base.identity, method=made.name, config=config)
    bank = bank if isinstance(bank, Bank) else Bank.open(bank)
    with bank.lock(wait, verb="adopt"):
        refuse_unfinished(bank)
        bank.check_base(base.identity)
        return bank.commit(
            concepts=[name],
            tensors={
                f"{layer}/{factor}": tensor
                for layer, (up, down) in pairs.items()
                for factor, tensor in (("A", up * scale), ("B", down))
            },
            tokens={name: token},
            facts={
                "adopted": {
                    "file": found.file.name,
                    "sha256": hashlib.sha256(found.file.read_bytes()).hexdigest(),
                    "embedding": None if embedding is None else Path(embedding).name,
                    "trigger": trigger,
                    "scale": scale,
                    "rank": max((len(down) for _, down in pairs.values()), default=0),
                    "layers": len(pairs),
                },
                "seconds": 0.0,
            },
            method=bank.method,
            config=bank.config,
        )


def _exists(bank: Bank | Path | str) -> bool:
    return isinstance(bank, Bank) or (Path(bank).expanduser() / "bank.json").exists()


def _token(
    base: Base, found: Adapter, embedding: Path | str | None, trigger: str | None
) -> tuple[Token, str]:
    """The concept's word, and a sentence where it is not all of what the trainer spoke of."""
    if not found.is_lora:
        if embedding is not None or trigger is not None:
            raise PerdureError(
                f"{found.file} is a textual inversion, which is the token itself: leave the "
                "embedding and the trigger out."
            )
        return read_inversion(base, found.tensors, str(found.file)), ""
    if (embedding is None) == (trigger is None):
        raise PerdureError(
            f"{found.file} is a LoRA: say either by which word of the base it was trained, such as "
            "--trigger sks, or give its textual inversion with --embedding."
        )
    if embedding is not None:
        own = read_file(embedding)
        if own.is_lora:
            raise PerdureError(f"{own.file} is a LoRA and no textual inversion.")
        return read_inversion(base, own.tensors, str(own.file)), ""
    assert trigger is not None
    token, words = word_of(base, trigger)
    if words == 1:
        return token, ""
    return token, (
        f"The trigger {trigger!r} is {words} tokens of this base, and the concept's word is their "
        "mean: write the trigger itself beside it in prompts to draw as the LoRA was trained."
    )


def _new_method(
    base: Base,
    modules: Pairs,
    found: Adapter,
    method: str | None,
    options: Mapping[str, Any] | None,
) -> Method:
    """What a new bank is to learn with."""
    if not found.is_lora:
        return build_method(method or "textual-inversion", base, options)
    made = build_method(method or "lora-independent", base, options)
    if "targets" not in made.config.to_json() or "targets" in (options or {}):
        return made
    for targets in _SETS:
        if not by_layer(base, base.named(targets), modules)[1]:
            return build_method(made.name, base, {**(options or {}), "targets": targets})
    return build_method(made.name, base, {**(options or {}), "targets": _SETS[-1]})


def _check_takes(method: Method, found: Adapter) -> None:
    takes = sorted(name for name, one in METHODS.items() if one.takes_adapters)
    if found.is_lora and not method.takes_adapters:
        raise PerdureError(
            f"A bank of {method.name} takes no LoRA that was trained elsewhere, on the base alone: "
            f"adopt it into a bank of {', '.join(takes)}."
        )
    apart = method.acts_in_prompts or method.mixes_by == "concepts"
    if not found.is_lora and method.trains_weights and not (method.takes_adapters and apart):
        raise PerdureError(
            f"A bank of {method.name} takes no token without weights: adopt it into a bank of "
            "textual-inversion, lora-independent or gated."
        )


def _pairs(base: Base, method: Method, modules: Pairs, found: Adapter) -> Pairs:
    """By the method's target layers; PerdureError where these do not hold all of it."""
    pairs, left = by_layer(base, base.named(method.targets), modules)
    if left:
        raise PerdureError(
            f"{found.file} changes {left}, which is none of the layers that this bank's "
            f"{method.name} has ({method.targets}): adopt it into a new bank of lora-independent."
        )
    return pairs
