"""What a bank answers of the prompts of a pipeline that somebody else made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perdure.adapters import PromptDelta, Prompts, Token
from perdure.bank import Bank
from perdure.drawing.painter import Painter
from perdure.errors import PerdureError
from perdure.hosts.diffusion.around import base_around
from perdure.hosts.diffusion.attached import Attached
from perdure.hosts.diffusion.session import Boxed, Place, Session
from perdure.hosts.diffusion.tokens import known_in

__all__ = ["Voice", "held"]


class Voice(Painter):
    """The `Speaker` of a bank."""

    _folded: object = None
    laid_out = True
    """Are prompts of several subjects laid out?"""

    @property
    def targets(self) -> str:
        return self.method.targets

    @property
    def live(self) -> bool:
        return self.method.acts_in_prompts or self.method.layerwise

    def tokens_of(self, texts: Sequence[str]) -> Mapping[str, Token]:
        spoken = {name for text in texts for name in known_in(text, self.tokens)}
        return {name: self.tokens[name] for name in self.tokens if name in spoken}

    @torch.no_grad()
    def fold(self, session: Session, texts: Sequence[str]) -> None:
        groups = {self.shared(text) for text in texts or ("",)}
        if len(groups) > 1:
            raise PerdureError(
                f"What {self.method.name} draws depends on what a prompt speaks of, so one call is "
                "for prompts that speak of the same: call the pipeline once for each."
            )
        if self._folded != groups:
            session.fold(self._mixed(session, texts[0] if texts else ""))
            self._folded = groups

    def said(self, prompts: Prompts) -> Sequence[PromptDelta]:
        return self.in_prompts(prompts) if self.method.acts_in_prompts else ()

    def by_layer(self, session: Session, texts: Sequence[str]) -> Tensor | None:
        if not self.method.layerwise:
            return None
        session.speak(self.tokens_of(texts))
        return session.conditioning(texts).by_layer

    @torch.no_grad()
    def regions(self, session: Session, text: str) -> Sequence[Boxed]:
        """As `Painter.draw` has them, and below them the whole picture, which reads the nouns."""
        family = self.base.family
        if not (self.laid_out and family.keys_apart and self.method.mixes_by == "bank"):
            return ()
        layout = self._laid([text], lambda sentence: None, self.base.size).get(text)
        if layout is None:
            return ()
        session.speak(self.tokens_of([text]))
        behind = 1 + max(region.depth for region in layout.regions)
        whole = Place(box=(0.0, 0.0, 1.0, 1.0), depth=behind)
        below = session.region(whole, layout.prompt, self.in_prompts)
        laid = [below, *(self._region(session, region) for region in layout.regions)]
        return [one for one in laid if isinstance(one, Boxed)]


def held(
    parts: Any, bank: Bank | Path | str, pipeline: Any = None, *, laid_out: bool = True
) -> Attached:
    """A bank on a pipeline's parts: see `Attached`.

    PerdureError where the bank was learned on another base, or one is attached already.
    """
    bank = bank if isinstance(bank, Bank) else Bank.open(bank)
    base = base_around(parts, bank.base)
    try:
        voice = Voice(base, bank)
        voice.laid_out = laid_out
        return Attached(base, voice, pipeline)
    except BaseException:
        base.release()
        raise
