"""A bank's concepts on a pipeline that somebody else made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from perdure.adapters import PromptDelta, Prompts, Token
from perdure.bank import Bank
from perdure.drawing.painter import Painter
from perdure.errors import PerdureError
from perdure.hosts.diffusion.around import base_around
from perdure.hosts.diffusion.attached import Attached
from perdure.hosts.diffusion.session import Session
from perdure.hosts.diffusion.tokens import known_in

__all__ = ["Attachment", "attach"]


def attach(pipeline: Any, bank: Bank | Path | str) -> Attachment:
    """Teach an open diffusers pipeline what a bank has learned, until `Attachment.detach`.

    Afterwards `pipeline("a photo of <rex>")` knows `<rex>`, and so does its `encode_prompt`.

    Args:
        pipeline: of one of the families, whatever it draws from beside text: pictures, masks,
            ControlNets, IP-Adapters, LoRAs; with any scheduler.
        bank: learned on the pipeline's base.

    Raises PerdureError where the bank was learned on another base, a bank is attached already, or
    the pipeline is of no family.
    """
    if isinstance(pipeline, type) or not hasattr(pipeline, "encode_prompt"):
        raise PerdureError(
            f"A bank is attached to an open diffusers pipeline, and this is {_what(pipeline)}: "
            "give what from_pretrained returns."
        )
    return Attachment(pipeline, bank, pipeline)


class Attachment:
    """A bank on a pipeline; leaving its block detaches it."""

    def __init__(self, parts: Any, bank: Bank | Path | str, pipeline: Any = None) -> None:
        bank = bank if isinstance(bank, Bank) else Bank.open(bank)
        base = base_around(parts, bank.base)
        try:
            self._held: Attached | None = Attached(base, _Voice(base, bank), pipeline)
        except BaseException:
            base.release()
            raise

    def detach(self) -> None:
        """Make the pipeline what it was, to the bit; PerdureError where that is done already."""
        if self._held is None:
            raise PerdureError("The bank is detached from this pipeline already: attach it anew.")
        held, self._held = self._held, None
        held.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._held is not None:
            self.detach()


class _Voice(Painter):
    """What a bank answers of the prompts of a pipeline: see `Speaker`."""

    _folded: object = ()

    @property
    def targets(self) -> str:
        return self.method.targets

    @property
    def live(self) -> bool:
        return self.method.acts_in_prompts or self.method.layerwise

    def tokens_of(self, texts: Sequence[str]) -> Mapping[str, Token]:
        spoken = dict.fromkeys(name for text in texts for name in known_in(text, self.tokens))
        return {name: self.tokens[name] for name in self.tokens if name in spoken}

    @torch.no_grad()
    def fold(self, session: Session, texts: Sequence[str]) -> None:
        groups = {self.shared(text) for text in texts} or {self.shared("")}
        if len(groups) > 1:
            raise PerdureError(
                f"What {self.method.name} draws depends on what a prompt speaks of, so one call is "
                "for prompts that speak of the same: call the pipeline once for each."
            )
        (group,) = groups
        if self._folded != (group,):
            session.fold(self._mixed(session, texts[0] if texts else ""))
            self._folded = (group,)

    def said(self, prompts: Prompts) -> Sequence[PromptDelta]:
        return self._in_prompts(prompts) if self.method.acts_in_prompts else ()

    def by_layer(self, session: Session, texts: Sequence[str]) -> Tensor | None:
        if not self.method.layerwise:
            return None
        session.speak(self.tokens_of(texts))
        return session.conditioning(texts).by_layer


def _what(given: Any) -> str:
    return f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"
