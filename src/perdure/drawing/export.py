"""A bank as an ordinary diffusers folder, compared with what the bank draws."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perdure.bank import Bank
from perdure.drawing.painter import Painter
from perdure.drawing.stock import prompts_of, stock_difference
from perdure.hosts.diffusion.host import Base

__all__ = ["Exported", "export"]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A folder that was written, and how its pictures compare with the bank's."""

    folder: Path
    pipeline: str
    """The class of diffusers that opens it."""
    compared: tuple[str, ...]
    """Concepts that both drew; none where nothing was compared."""
    difference: int | None
    """The largest of a colour value, of 255; a few come of another order of additions."""


def export(
    base: Base,
    bank: Bank | Path | str,
    folder: Path | str,
    *,
    concepts: Sequence[str] = (),
    check: bool = True,
) -> Exported:
    """Fold a bank into an ordinary diffusers folder: see `Painter.save_folded`.

    Args:
        base: the bank's base.
        bank: what was learned.
        folder: must not exist, or be empty.
        concepts: what to fold, for a method that cannot fold all of them.
        check: open the folder with the stock loader and compare pictures of up to two concepts.
    """
    painter = Painter(base, bank)
    painter.save_folded(folder, spoken=concepts)
    compared = tuple(concepts or tuple(painter.tokens)[-2:]) if check else ()
    prompts = prompts_of(painter, compared) if compared else []
    index = json.loads((Path(folder) / "model_index.json").read_text(encoding="utf-8"))
    return Exported(
        folder=Path(folder),
        pipeline=index["_class_name"],
        compared=compared,
        difference=stock_difference(painter, folder, prompts) if prompts else None,
    )
