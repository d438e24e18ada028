"""How to export: the typed options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from perdure.settings import Count, Settings

__all__ = ["ExportSettings"]


@dataclass(frozen=True, kw_only=True)
class ExportSettings(Settings):
    """Options of an export."""

    called: ClassVar[str] = "export"

    format: Literal["diffusers", "peft", "kohya", "comfyui", "embeddings"] = "diffusers"
    """A folded diffusers folder; a LoRA as PEFT and diffusers, as kohya's trainers and A1111, or as
    ComfyUI has it, with its tokens; or tokens alone, as textual inversions."""
    rank: Count | None = None
    """Rank that a LoRA is cut to; by default sums of low rank are kept whole, and all else is cut
    to 64."""
    check: bool = True
    """Load what was written with the stock loader, and compare its pictures with the bank's."""
