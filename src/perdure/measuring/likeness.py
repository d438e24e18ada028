"""Does a concept that was just learned draw anything like its pictures?

Measured against what the base draws of ordinary prompts: a concept whose drawings are no more like
its pictures than those has learned nothing that shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from perdure.bank import Bank
from perdure.drawing.painter import Painter
from perdure.hosts.diffusion.host import Base
from perdure.hosts.diffusion.session import ORDINARY
from perdure.learning.photos import read_pictures
from perdure.learning.sources import files_of
from perdure.learning.weighted import Given
from perdure.measuring.cost import SEEDS, previews
from perdure.measuring.features import MetricEncoder
from perdure.measuring.scores import image_alignment

__all__ = ["Likeness", "Likenesses"]


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """Mean cosines of identities with those of a concept's pictures."""

    concept: str
    own: float
    """Of what the concept draws."""
    ordinary: float
    """Of what the base draws of ordinary prompts."""


class Likenesses:
    """Of the concepts of one base, whose ordinary pictures are drawn once."""

    def __init__(self, base: Base, encoder: MetricEncoder) -> None:
        self.base, self.encoder = base, encoder
        self._ordinary: Tensor | None = None

    def of(self, bank: Bank | Path | str, sources: Mapping[str, Given]) -> list[Likeness]:
        """Likeness of these concepts' previews (`what_it_cost` draws them) to their own pictures.

        A concept without previews is left out. Raises PerdureError where pictures are missing.
        """
        bank = bank if isinstance(bank, Bank) else Bank.open(bank)
        found = []
        for name, source in sources.items():
            if not (drawn := previews(bank, name)):
                continue
            pixels = read_pictures(files_of(source)[0], size=self.base.size).tensor
            shown = ((pixels + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
            real = self.encoder.identities(shown)
            if self._ordinary is None:
                pictures = Painter(self.base, bank, upto=0).draw(ORDINARY, seeds=SEEDS)
                self._ordinary = self.encoder.identities(pictures)
            own = image_alignment(self.encoder.identities(drawn), real)
            ordinary = image_alignment(self._ordinary, real)
            found.append(Likeness(concept=name, own=own, ordinary=ordinary))
        return found
