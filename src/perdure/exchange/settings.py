"""How to export and to push: the typed options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from perdure.settings import Count, Settings

__all__ = ["ExportSettings", "PushSettings"]


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


@dataclass(frozen=True, kw_only=True)
class PushSettings(Settings):
    """Options of a push."""

    called: ClassVar[str] = "push"

    consent: str = ""
    """Whose pictures taught the concepts, and that they agreed: one line of the card."""
    licence: str = ""
    """The base's licence, which binds what is learned on it; known of smallworld."""
    public: bool = False
    """Make a new repository public; by default it is your own to see."""
