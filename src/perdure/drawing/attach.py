"""A bank's concepts on a pipeline that somebody else made."""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, Self

from diffusers.modular_pipelines import ModularPipeline

from perdure.bank import Bank
from perdure.drawing.modular import ConceptsStep, text_steps
from perdure.drawing.voice import held
from perdure.errors import PerdureError

__all__ = ["Attachment", "attach"]


def attach(
    pipeline: Any, bank: Bank | Path | str, *, layout: Literal["sentence", "none"] = "sentence"
) -> Attachment:
    """Teach an open diffusers pipeline what a bank has learned, until `Attachment.detach`.

    Afterwards `pipeline("a photo of <rex>")` knows `<rex>`, and so does its `encode_prompt`.

    Args:
        pipeline: of one of the families, whatever it draws from beside text: pictures, masks,
            ControlNets, IP-Adapters, LoRAs; with any scheduler; or a modular one.
        bank: learned on the pipeline's base.
        layout: where the subjects of a prompt stand, as of `DrawSettings`. A picture is laid out
            where the denoiser is a U-Net and the method acts in prompts, with the guidance that is
            given.

    Raises PerdureError where the bank was learned on another base, a bank is attached already, or
    the pipeline is of no family.
    """
    if isinstance(pipeline, ModularPipeline):
        return _to_blocks(pipeline, bank)
    if isinstance(pipeline, type) or not hasattr(pipeline, "components"):
        raise PerdureError(
            f"A bank is attached to an open diffusers pipeline, and this is {_what(pipeline)}: "
            "give what from_pretrained returns."
        )
    encode = getattr(pipeline, "encode_prompt", None)
    if encode is None or "image" in inspect.signature(encode).parameters:
        raise PerdureError(
            f"A {type(pipeline).__name__} does not encode prompts by themselves, which concepts "
            "are taught through: attach the bank to another pipeline of its family."
        )
    undo = ExitStack()
    undo.callback(held(pipeline, bank, pipeline, laid_out=layout != "none").release)
    return Attachment(undo)


def _to_blocks(modular: Any, bank: Bank | Path | str) -> Attachment:
    places = list(text_steps(modular._blocks))
    if len(places) != 1:
        raise PerdureError(
            f"Of the blocks of this {type(modular).__name__}, {len(places)} encode prompts, and a "
            "bank is attached to one: put perdure.ConceptsStep in its place yourself."
        )
    ((steps, name),) = places
    own = steps[name]
    step = ConceptsStep(own, bank)
    step.attach(modular)
    steps[name] = step
    undo = ExitStack()
    undo.callback(steps.__setitem__, name, own)
    undo.callback(step.detach)
    return Attachment(undo)


class Attachment:
    """A bank on a pipeline; leaving its block detaches it."""

    def __init__(self, undo: ExitStack) -> None:
        self._undo: ExitStack | None = undo

    def detach(self) -> None:
        """Make the pipeline what it was, to the bit; PerdureError where that is done already."""
        if self._undo is None:
            raise PerdureError("The bank is detached from this pipeline already: attach it anew.")
        undo, self._undo = self._undo, None
        undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._undo is not None:
            self.detach()


def _what(given: Any) -> str:
    return f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"
