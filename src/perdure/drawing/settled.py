"""How all pictures of one call are drawn: what was chosen, else what the base advises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Literal

from PIL import Image

from perdure.drawing.closeup import CLOSEUP, Window, shared_out, windows
from perdure.drawing.regions import Region
from perdure.drawing.settings import DrawSettings
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.hosts.diffusion.session import Begun
from perdure.hosts.size import Size
from perdure.learning.photos import read_picture
from perdure.settings import Limits, checked

__all__ = ["Settled", "settled"]

STRENGTH = 0.6
"""Of an `init` picture, where none is given."""


@dataclass(frozen=True, kw_only=True)
class Settled:
    """How all pictures of one call are drawn."""

    negative: str
    steps: int
    guidance: float
    size: Size
    full: Size
    """Of a close-up."""
    layout: Literal["sentence", "none"]
    closeup: float
    begun: Begun | None

    def windows(self, regions: Sequence[Region]) -> dict[int, Window]:
        """Of those regions that are drawn over by themselves."""
        return windows(regions, self.size, self.full) if self.closeup else {}

    def steps_of_the_whole(self, regions: Sequence[Region]) -> int:
        """Fewer where close-ups come after it."""
        if self.begun is not None or not self.windows(regions):
            return self.steps
        return shared_out(self.steps)[0]


def settled(
    base: Base, chosen: DrawSettings, init: Path | str | Image.Image | None = None
) -> Settled:
    """What a base draws with; PerdureError for what it cannot, and for an ``init`` that is none."""
    advice = base.hints.get("drawing", {})
    steps, guidance, closeup = chosen.steps, chosen.guidance, chosen.closeup
    steps = int(advice.get("steps", 30)) if steps is None else steps
    checked("steps", steps, Annotated[int, Limits(least=1, most=base.most_steps)])
    can = bool(base.family.image_to_image)
    if closeup is None:
        closeup = CLOSEUP if can else 0.0
    if closeup and not can:
        raise PerdureError(
            f"{base.family.title} has no pipeline that begins with a picture: leave --closeup out, "
            "or choose another base."
        )
    size = base.fitting(chosen.size)
    return Settled(
        negative=chosen.negative,
        steps=steps,
        guidance=float(advice.get("guidance", 7.5) if guidance is None else guidance),
        size=size,
        full=min(base.size, size, key=prod),
        layout=chosen.layout,
        closeup=closeup,
        begun=_begun(init, size, steps, chosen.strength),
    )


def _begun(
    init: Path | str | Image.Image | None, size: Size, steps: int, strength: float | None
) -> Begun | None:
    """The picture to begin with; PerdureError where it is none, or nothing would be drawn."""
    if init is None:
        if strength is not None:
            raise PerdureError("strength has no effect without init: leave it out, or give both.")
        return None
    strength = STRENGTH if strength is None else strength
    if steps * strength < 1:
        raise PerdureError(
            f"A strength of {strength:g} leaves none of {steps} steps: take more of either."
        )
    return Begun(picture=read_picture(init, size=size), strength=strength)
