"""A block of modular diffusers that carries a bank: anyone's step that encodes prompts, taught."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Self

from diffusers.modular_pipelines import ModularPipelineBlocks

from perdure.bank import Bank
from perdure.drawing.voice import held
from perdure.errors import PerdureError
from perdure.hosts.diffusion.attached import Attached, texts_of

__all__ = ["ConceptsStep", "text_steps"]

_PROMPT, _NEGATIVE = "prompt", "negative_prompt"
_STATES = "prompt_embeds"


class ConceptsStep(ModularPipelineBlocks):
    """A step that encodes prompts, which knows a bank's concepts.

    It stands in the place of the step that it is given. When it first runs it attaches the bank to
    the pipeline's denoiser, where what acts in a prompt then acts in every pass of its states,
    whoever runs it; `detach` ends that.
    """

    def __init__(self, step: Any, bank: Bank | Path | str) -> None:
        """
        Args:
            step: any block with `prompt` among its inputs and `prompt_embeds` among its outputs.
            bank: learned on the base that the pipeline's components are of.
        """
        super().__init__()
        self.step, self.bank = step, bank
        self.model_name = step.model_name
        self._attached: Attached | None = None

    @property
    def description(self) -> str:
        return f"{self.step.description} It knows the concepts of a perdure bank."

    @property
    def expected_components(self) -> list[Any]:
        return list(self.step.expected_components)

    @property
    def expected_configs(self) -> list[Any]:
        return list(self.step.expected_configs)

    @property
    def inputs(self) -> list[Any]:
        return list(self.step.inputs)

    @property
    def intermediate_outputs(self) -> list[Any]:
        return list(self.step.intermediate_outputs)

    def __deepcopy__(self, memo: Mapping[int, Any]) -> Self:
        """A pipeline copies its blocks: the copy is attached to nothing."""
        return type(self)(self.step, self.bank)

    def attach(self, components: Any) -> None:
        """Attach the bank to a pipeline's parts; PerdureError as `perdure.attach`, and where the
        denoiser is compiled and something would act in its passes."""
        attached = held(components, self.bank)
        if attached.speaker.live and attached.is_compiled(components):
            attached.release()
            raise PerdureError(
                "What this bank's method adds acts inside the denoiser's passes, which blocks run "
                "compiled: attach the bank to a pipeline that is not compiled."
            )
        self._attached = attached

    def detach(self) -> None:
        """Make the pipeline's parts what they were, to the bit."""
        if self._attached is not None:
            self._attached.release()
            self._attached = None

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        if self._attached is None:
            self.attach(components)
        attached = self._attached
        assert attached is not None
        texts, negatives = (texts_of(state.get(name)) for name in (_PROMPT, _NEGATIVE))
        attached.begin()
        with attached.speaking(components, texts, negatives):
            components, state = self.step(components, state)
        state.set(_STATES, attached.heard(state.get(_STATES), texts))
        against = state.get(f"negative_{_STATES}")
        if negatives and against is not None:
            state.set(f"negative_{_STATES}", attached.avoided(against, negatives))
        return components, state


def text_steps(blocks: Any) -> Iterator[tuple[MutableMapping[str, Any], str]]:
    """Where in blocks prompts are encoded: the mapping that holds a step, and its name there."""
    for name, block in blocks.sub_blocks.items():
        if _PROMPT in block.input_names and _STATES in block.intermediate_output_names:
            yield blocks.sub_blocks, name
        else:
            yield from text_steps(block)
