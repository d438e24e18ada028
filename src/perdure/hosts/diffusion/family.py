"""What a family of pipelines answers: everything that differs from one architecture to the next.

One file of `families/` is one family. Nothing else knows how a pipeline is made inside.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, ClassVar, Literal

import diffusers
import torch
from torch import Tensor, nn

from perdure.errors import PerdureError
from perdure.hosts.diffusion.conditioning import Conditioning, Encoded, Places
from perdure.hosts.diffusion.lora_files import Named
from perdure.hosts.diffusion.objective import Objective
from perdure.hosts.diffusion.passes import Rows
from perdure.hosts.diffusion.rooms import Rooms, masking
from perdure.hosts.diffusion.tokens import Tokens, spoken_in
from perdure.hosts.diffusion.vocabulary import Vocabulary
from perdure.hosts.frozen import Layer, Reads
from perdure.hosts.size import Size

__all__ = ["KEYS_VALUES", "Family", "Size", "own_modules"]

KEYS_VALUES = "keys-values"
"""The default set of target layers, a part of every other one."""


class Family(ABC):
    """One architecture of pipeline. It holds nothing; the pipeline is always the first argument."""

    title: ClassVar[str]
    pipelines: ClassVar[tuple[str, ...]]
    """Class names in `model_index.json`, the first also that of a hub id."""
    image_to_image: ClassVar[str] = ""
    """The stock pipeline of the same parts that begins with a picture; else empty."""
    component: ClassVar[str]
    """The pipeline's part that denoises and holds the target layers."""
    encoders: ClassVar[Mapping[str, str]]
    """Text encoder -> its tokenizer, both by the pipeline's names for them."""
    optional: ClassVar[frozenset[str]] = frozenset()
    """The text encoders that a pipeline may lack."""
    large_encoders: ClassVar[bool] = False
    """Are the text encoders so large that they should leave memory while nothing is encoded?"""
    autoencoder: ClassVar[str] = "vae"
    targets: ClassVar[Mapping[str, tuple[str, ...]]]
    """Set of target layers -> how their names end; every linear and convolution where empty."""
    states: ClassVar[str] = "encoder_hidden_states"
    """The denoiser's argument that holds the states of prompts."""
    keys_apart: ClassVar[bool] = False
    """Are keys and values of a prompt known from the prompt alone, so that a box can be given its
    own? Else its phrase is one more text."""
    time: ClassVar[str] = "timestep"
    """The denoiser's argument that says the time."""
    time_scale: ClassVar[float] = 1000.0
    """What the denoiser is told of the time where all is noise; 0 where it runs the other way, to
    1."""
    negatives_alone: ClassVar[bool] = False
    """Are negative prompts read without what stands before the others?"""
    comfyui: ClassVar[Literal["kohya", "diffusers", ""]] = ""
    """Whose names for a LoRA's modules ComfyUI reads; "" where none that the stock loader does."""
    embeddings: ClassVar[Mapping[str, str]] = {}
    """Text encoder -> its row's name in a file of a textual inversion, where there are several."""

    # Opening

    def pipeline_class(self, name: str) -> Any:
        """The class to open a pipeline with."""
        return getattr(diffusers, name)

    def arguments(self, index: Mapping[str, Any]) -> dict[str, Any]:
        """What `from_pretrained` is given beside the rest, by what `model_index.json` says: None
        for every encoder and tokenizer that the folder does without."""
        lacking = [part for part in self.optional if index.get(part, (None,))[0] is None]
        return {part: None for name in lacking for part in (name, self.encoders[name])}

    def check(self, pipeline: Any, resting: Collection[str] = ()) -> None:
        """PerdureError where a part is missing, but for encoders that rest, or of a kind that
        cannot be taught."""
        encoders = [part for part in self.encoders if part not in self.optional]
        tokenizers = [self.encoders[part] for part in encoders]
        for part in (self.component, self.autoencoder, *encoders, *tokenizers):
            if part not in resting and getattr(pipeline, part, None) is None:
                raise PerdureError(
                    f"The base has no {part}, without which it cannot be taught: download it whole."
                )

    def prepare(self, pipeline: Any, device: torch.device) -> None:  # noqa: B027
        """Settings that make the frozen model faster on a device; none unless overridden."""

    def denoiser(self, pipeline: Any) -> nn.Module:
        """The module that holds the target layers."""
        module = getattr(pipeline, self.component)
        assert isinstance(module, nn.Module)
        return module

    def frozen(self, pipeline: Any) -> list[nn.Module]:
        """Every module that must not train."""
        parts = (self.component, self.autoencoder, *self.encoders)
        modules = [getattr(pipeline, part) for part in parts]
        return [module for module in modules if module is not None]

    def vocabularies(self, pipeline: Any) -> list[Vocabulary]:
        """Every text encoder with its tokenizer, in the order of their parts in a token."""
        return [
            Vocabulary(pipeline, name, tokenizer)
            for name, tokenizer in self.encoders.items()
            if getattr(pipeline, tokenizer) is not None
        ]

    def advice(self, pipeline: Any) -> Mapping[str, Mapping[str, Any]]:
        """Settings that serve such a pipeline, as a base's own `perdure.json` advises them, which
        overrules it: `learning`, `drawing`."""
        return {}

    def distilled(self, pipeline: Any) -> str:
        """One sentence on what training a model means that was distilled to few steps; else ""."""
        return ""

    # Target layers

    def layers(self, pipeline: Any, targets: str) -> dict[str, Layer]:
        """Name -> layer of one of the sets, in the denoiser's own order."""
        ends = self.targets[targets]
        return {
            name: Layer(module, self.reads(name))
            for name, module in own_modules(self.denoiser(pipeline))
            if isinstance(module, nn.Linear | nn.Conv2d) and (not ends or name.endswith(ends))
        }

    @abstractmethod
    def reads(self, layer: str) -> Reads:
        """What the layer of this name reads."""

    def readers(self, pipeline: Any) -> dict[str, nn.Module]:
        """Name -> attention, in order, of those that read the prompt, L of them, each given it as
        `encoder_hidden_states`; empty where the text is a stream that each block changes."""
        return {}

    def features(self, pipeline: Any, states: Tensor) -> Tensor:
        """What layers that read the prompt read of its states (..., d): by default these."""
        return states

    def kohya(self, pipeline: Any, module: str) -> Named | None:
        """What kohya's trainers call a module of the denoiser; None where they have no name for it
        that the stock loader reads."""
        return None

    # Prompts

    @abstractmethod
    def state_width(self, pipeline: Any) -> int:
        """Width d of the states."""

    def places(self, tokens: Tokens, ids: Sequence[Tensor]) -> Places:
        """Where, in the states of prompts, concepts are spoken of and text ends, by the ids
        (N, positions) in each vocabulary. The states are those of the first, unless overridden."""
        first = tokens.vocabularies[0]
        spoken, ends = tokens.places(first, ids[0]), first.ends(ids[0])
        if first.wording is None or not first.wording.packed:
            return Places(spoken, ends)
        own = zip(ends, first.lengths(ids[0]), strict=True)  # what follows is others' padding
        return Places(spoken, ends, tuple((slice(end, length),) for end, length in own))

    @abstractmethod
    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Encoded:
        """Prompts through the pipeline's own `encode_prompt`, with a graph where rows train."""

    def blank(self, pipeline: Any) -> Encoded:
        """What a prompt is by its shapes alone: (1, P, d) and what else there must be; P as long as
        a prompt can be, or where prompts are as long as they are, as a sentence is."""
        (length, *_) = [vocabulary.length for vocabulary in self.vocabularies(pipeline)]
        return Encoded(states=torch.empty(1, length, self.state_width(pipeline)))

    def guides(self, pipeline: Any) -> bool:
        """Does it draw with a negative prompt beside the prompt?"""
        return True

    @abstractmethod
    def encode_negative(
        self, pipeline: Any, prompts: Sequence[str], positive: Encoded
    ) -> Encoded | None:
        """What guidance steps away from, where the pipeline `guides`; as it does where a prompt is
        empty."""

    def encoding(self, pipeline: Any) -> Mapping[str, Any]:
        """What `encode_prompt` must be given beside a prompt so that its words are where `places`
        looks for them, whatever the pipeline's call gives by itself."""
        return {}

    def refuse_concepts(self, prompts: Sequence[str]) -> None:
        """PerdureError where `negatives_alone`, and a negative prompt speaks of a concept."""
        for prompt in prompts if self.negatives_alone else ():
            if spoken := spoken_in(prompt):
                raise PerdureError(
                    f"{self.title} reads negative prompts without the instruction that concepts "
                    f"are learned behind: leave <{spoken[0]}> out of --negative."
                )

    def behind(self, parts: Sequence[Encoded]) -> Encoded:
        """N prompts with further ones behind each, in order, (N, P + P' + ..., d): one text, so
        that the denoiser reads them in one pass. What has no positions is the first one's."""
        length = parts[0].states.shape[1]
        return Encoded(
            states=torch.cat([part.states for part in parts], dim=1),
            beside={
                name: torch.cat([part.beside[name] for part in parts], dim=1)
                if tensor.shape[1:] == (length,)
                else tensor
                for name, tensor in parts[0].beside.items()
            },
        )

    @abstractmethod
    def passes(self, pipeline: Any, prompts: int) -> AbstractContextManager[Rows]:
        """A block in which the stock pipeline draws N prompts, and one can ask which rows of the
        pass that runs are theirs, and not those of the negative prompts."""

    def text(self, pipeline: Any, positions: int, size: Size) -> slice:
        """Of a sequence of so many text positions and a picture of a size, those of the text."""
        return slice(0, positions)

    def alone(self, positions: int) -> int:
        """How long the denoiser makes a text of so many positions."""
        return positions

    def text_of(self, pipeline: Any, positions: int, given: Mapping[str, Any]) -> slice:
        """As `text`, of a pass by what the denoiser is given, by name."""
        return self.text(pipeline, positions, self.size(pipeline))

    def size_of(self, pipeline: Any, given: Mapping[str, Any]) -> Size:
        """Of the pictures of a pass, by what the denoiser is given, by name."""
        return self.size(pipeline)

    # Latents

    @abstractmethod
    def objective(self, pipeline: Any, size: Size) -> Objective:
        """What the denoiser predicts of pictures of a size, and at which times it is trained."""

    @abstractmethod
    def size(self, pipeline: Any) -> Size:
        """The base's own size of pictures."""

    @abstractmethod
    def multiple(self, pipeline: Any) -> int:
        """What width and height must be multiples of."""

    def patches(self, pipeline: Any, size: Size) -> int:
        """How many positions a picture of a size has where text and picture are one sequence."""
        unit = self.multiple(pipeline)
        return size[0] // unit * (size[1] // unit)

    def to_latents(self, pipeline: Any, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation (N, C, h, w) of the latents of pictures (N, 3, H, W) in [-1, 1]."""
        config = pipeline.vae.config
        posterior = pipeline.vae.encode(pictures).latent_dist
        shift = getattr(config, "shift_factor", None)
        mean = posterior.mean if shift is None else posterior.mean - shift
        return mean * config.scaling_factor, posterior.std * config.scaling_factor

    def to_pictures(self, pipeline: Any, latents: Tensor) -> Tensor:
        """Pictures (N, 3, H, W), about in [-1, 1], of latents."""
        config = pipeline.vae.config
        latents = latents / config.scaling_factor
        shift = getattr(config, "shift_factor", None)
        pictures: Tensor = pipeline.vae.decode(latents if shift is None else latents + shift).sample
        return pictures

    def from_drawn(self, pipeline: Any, drawn: Tensor, size: Size) -> Tensor:
        """Latents as those of `to_latents`, of what the stock pipeline draws as `latent`."""
        return drawn

    # Denoising

    def held(self, pipeline: Any, tensor: Tensor) -> Tensor:
        """In the dtype that the denoiser's weights are held in; of fp32 autocast decides."""
        dtype = getattr(pipeline, self.component).dtype
        return tensor if dtype == torch.float32 else tensor.to(dtype)

    @abstractmethod
    def predict(
        self, pipeline: Any, noised: Tensor, t: Tensor, conditioning: Conditioning, size: Size
    ) -> Tensor:
        """What the denoiser says of noised latents of pictures of a size, shaped like them; by
        their objective's sign."""

    def done(self, pipeline: Any, given: Mapping[str, Any]) -> float:
        """What share of the noise is gone, by what the denoiser is given, by name."""
        time = float(torch.as_tensor(given[self.time]).float().max())
        return 1 - time / self.time_scale if self.time_scale else time

    def over_pictures(self, pipeline: Any) -> Any:
        """The pipeline that begins with a picture, of this one's parts and a schedule of its own;
        PerdureError where the family has none."""
        if not self.image_to_image:
            raise PerdureError(
                f"{self.title} has no pipeline that begins with a picture: leave --init out, or "
                "choose another base."
            )
        kind = getattr(diffusers, self.image_to_image)
        schedule = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
        parts = {**pipeline.config, **pipeline.components, "scheduler": schedule}
        asked = inspect.signature(kind.__init__).parameters
        # Not `from_pipe`, which would convert all weights to one dtype.
        begun = kind(**{name: part for name, part in parts.items() if name in asked})
        begun.set_progress_bar_config(disable=True)
        return begun

    def call(self, prompts: int, guidance: float) -> dict[str, Any]:
        """What the stock pipeline's call is given for N prompts, to guide as drawing does where
        there is no negative prompt."""
        return {"guidance_scale": guidance}

    def draw(
        self, pipeline: Any, positive: Encoded, negative: Encoded | None, **arguments: Any
    ) -> Any:
        """The stock pipeline's call; ``arguments`` are those that all pipelines know, and `image`
        and `strength` of one that begins with a picture."""
        said = {"prompt_embeds": positive.states, **positive.beside}
        if negative is not None:
            against = {"prompt_embeds": negative.states, **negative.beside}
            said |= {f"negative_{name}": tensor for name, tensor in against.items()}
        return pipeline(**said, **arguments).images

    @contextmanager
    def reading(self, pipeline: Any, by_layer: Tensor, rows: Rows) -> Iterator[None]:
        """A block in which each of `readers` reads its own of features (L, N, P, d) of the prompts;
        nothing changes where L is 1."""

        def hook_of(own: Tensor) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
            def hook(
                module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
            ) -> tuple[tuple[Any, ...], dict[str, Any]]:
                whole = kwargs["encoder_hidden_states"]
                given, *beside = whole if isinstance(whole, tuple) else (whole,)  # IP-Adapter's
                here = rows(len(given))
                states = torch.cat([given[: here.start], own.to(given), given[here.stop :]])
                said = (states, *beside) if isinstance(whole, tuple) else states
                return args, {**kwargs, "encoder_hidden_states": said}

            return hook

        modules = self.readers(pipeline).values() if len(by_layer) > 1 else ()
        handles = [
            module.register_forward_pre_hook(hook_of(own), with_kwargs=True)
            for module, own in zip(modules, by_layer, strict=len(by_layer) > 1)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def attending(
        self,
        pipeline: Any,
        regions: Sequence[Any],
        rows: Rows,
        size: Size,
        now: Callable[[], float] | None = None,
    ) -> AbstractContextManager[None]:
        """A block in which boxes attend to phrases of their own, by keys and values of their own:
        see `regional.py`. For a family with `keys_apart`; the others have `rooms`. ``now`` is what
        share of the noise is gone, where that is known of the one pass that runs."""
        assert not regions, regions
        return nullcontext()

    def rooms(self, pipeline: Any, rooms: Rooms, rows: Rows) -> AbstractContextManager[None]:
        """A block in which boxes attend to the phrases that stand behind the prompt: see
        `rooms.py`."""
        if not rooms.places:
            return nullcontext()
        denoiser = self.denoiser(pipeline)
        within = self.readers(pipeline).values() or [denoiser]
        return masking(denoiser, within, rooms, rows, partial(self.done, pipeline))


def own_modules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """As `named_modules`, without what PEFT puts in: a layer that it wraps has its own name."""
    seen: set[nn.Module] = set()

    def below(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        while isinstance(wrapped := getattr(module, "base_layer", None), nn.Module):
            module = wrapped
        if module in seen:
            return
        seen.add(module)
        yield name, module
        for child, one in module.named_children():
            yield from below(f"{name}.{child}" if name else child, one)

    return below("", module)
