"""A picture drawn again from what it knows, or another one like it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from PIL import Image

from perdure.bank import Bank
from perdure.drawing.facts import Facts, facts_of, read_facts
from perdure.drawing.painter import Painter
from perdure.drawing.regions import Region, read_region
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base

__all__ = ["draw_like"]

_KEPT = ("negative", "seed", "steps", "guidance", "size", "layout", "closeup")
_ROUNDING = {"at_once", "dtype", "environment", "quantize"}
"""What changes no more than how numbers are rounded."""
_BESIDE = {"scale", "version"}
"""What changes nothing that is drawn."""


def draw_like(
    base: Base,
    bank: Bank | Path | str,
    like: Facts | Path | str,
    prompts: str | Sequence[str] = (),
    *,
    regions: Sequence[Region] | None = None,
    init: Path | str | Image.Image | None = None,
    note: Callable[[str], None] = lambda sentence: None,
    progress: Callable[[int, int], None] = lambda done, of: None,
    **changes: Any,
) -> list[Image.Image]:
    """Draw a picture again, to the bit where the machine and its libraries are the same.

    The bank may have learned on since: it draws as it was then. Only with new prompts it draws with
    all that it knows now.

    Args:
        base: the one that it was drawn on.
        bank: the one that it was drawn with.
        like: its PNG, or what `read_facts` says of it.
        prompts: in place of its own.
        regions: in place of its own.
        init: the picture that it began with, or another one.
        note: told why the picture may not be the same, though nothing was changed, and how it is
            laid out.
        progress: as for `Painter.draw`.
        **changes: fields of `DrawSettings`, in place of its own.

    Raises PerdureError where base or bank are others, where it began with a picture that is not
    given, and as `Painter.draw`.
    """
    facts = like if isinstance(like, Facts) else read_facts(like)
    bank = bank if isinstance(bank, Bank) else Bank.open(bank)
    _check_same(facts, base, bank)
    if facts.init is not None and init is None:
        raise PerdureError(
            "It began with a picture, of which it keeps no copy: give that picture with --init."
        )
    given = {name: getattr(facts, name) for name in _KEPT}
    if init is not None and facts.strength is not None:
        given["strength"] = facts.strength
    drawn = Painter(base, bank, upto=None if prompts else facts.tasks).draw(
        prompts or facts.prompt,
        regions=[read_region(text) for text in facts.boxes] if regions is None else regions,
        init=init,
        progress=progress,
        note=note,
        **{**given, **changes},
    )
    now = facts_of(drawn[0])
    assert now is not None
    for sentence in _doubts(facts, now):
        note(sentence)
    return drawn


def _check_same(facts: Facts, base: Base, bank: Bank) -> None:
    if base.identity.hash != facts.base_hash:
        raise PerdureError(
            f"It was drawn on the base {facts.base} (weights {facts.base_hash[:16]}), but the base "
            f"in use is {base.identity}: give its own with --base."
        )
    if bank.fingerprint_at(facts.tasks) == facts.bank:
        return
    if bank.method != facts.method:
        why = f"learns with {bank.method}, not {facts.method}"
    elif len(bank.tasks) < facts.tasks:
        why = f"has {len(bank.tasks)} tasks, not {facts.tasks}"
    else:
        why = "has other concepts, or has lost or learned anew what it was drawn with"
    raise PerdureError(
        f"It was drawn with another bank than {bank.path}, which {why}: give its own with --bank."
    )


def _doubts(then: Facts, now: Facts) -> list[str]:
    """Why the picture may not be the same, where no one asked for another."""
    names = {field.name for field in fields(Facts)}
    differ = {name for name in names if getattr(then, name) != getattr(now, name)} - _BESIDE
    if then.init is not None and "init" in differ:
        return ["The picture of init is another than the one that it began with."]
    if not differ or differ - _ROUNDING:
        return []
    if then.at_once > 1:
        return [f"It was drawn in one pass with {then.at_once - 1} more: rounding may differ."]
    was, here = (
        ", ".join(filter(None, (facts.environment, facts.dtype, facts.quantize)))
        for facts in (then, now)
    )
    return [f"It was drawn with {was}, and now with {here}: rounding may differ."]
