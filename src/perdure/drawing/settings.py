"""How to draw: the typed options of every drawing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from perdure.hosts.size import AnySize
from perdure.settings import Count, Limits, NotNegative, Settings, Share

__all__ = ["DrawSettings"]


@dataclass(frozen=True, kw_only=True)
class DrawSettings(Settings):
    """Options of a drawing. A base may advise steps and guidance in its `perdure.json`."""

    called: ClassVar[str] = "drawing"

    steps: Annotated[int, Limits(least=1, most=1000)] | None = None
    """Denoising steps; where not given, what the base advises, else 30."""
    guidance: NotNegative | None = None
    """Classifier-free guidance; where not given, what the base advises, else 7.5."""
    negative: str = ""
    """What the pictures should not show."""
    size: AnySize | None = None
    """Width and height, such as 768x512; the base's own by default."""
    count: Annotated[int, Limits(least=1, most=10_000)] = 1
    """Pictures of each prompt."""
    seed: Annotated[int, Limits(least=0, most=2**32 - 1)] = 0
    """Seed of the first picture of each prompt; the next one's is one more, and so on."""
    strength: Share | None = None
    """How much of an init picture is drawn over, up to 1; where not given, 0.6."""
    layout: Literal["sentence", "none"] = "sentence"
    """Where the subjects of a prompt stand, if it speaks of several and no box is given: as the
    sentence says, or `none` to leave it to the base."""
    closeup: Annotated[float, Limits(least=0, most=1)] | None = None
    """How much of each subject in a picture of several is drawn over by itself at full scale, up to
    1; 0 for none; where not given, 0.6 on bases that can begin with a picture."""
    batch_size: Count = 1
    """Pictures in one pass: more are faster on small bases, and round otherwise."""
