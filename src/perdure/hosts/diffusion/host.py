"""The frozen pipeline: open it, say what it is, and change it for a while by a session."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from torch import Tensor, nn

from perdure.adapters import Token
from perdure.errors import PerdureError
from perdure.hosts.diffusion.encoders import Source
from perdure.hosts.diffusion.family import KEYS_VALUES, Family, own_modules
from perdure.hosts.diffusion.files import read_index
from perdure.hosts.diffusion.identity import BaseIdentity
from perdure.hosts.diffusion.objective import Objective
from perdure.hosts.diffusion.opening import DTYPES, opened
from perdure.hosts.diffusion.prompt_cache import PromptCache
from perdure.hosts.diffusion.session import ORDINARY, Session
from perdure.hosts.diffusion.tokens import Tokens
from perdure.hosts.diffusion.vocabulary import Vocabulary
from perdure.hosts.frozen import Frozen, Layer
from perdure.hosts.size import Size, read_size
from perdure.quiet import quietly

__all__ = ["Base"]


class Base(Frozen):
    """A frozen pipeline of one of the families. It changes only within a `session`."""

    def __init__(
        self,
        pipeline: Any,
        family: Family,
        *,
        name: str,
        encoder: str,
        encoder_name: str | None = None,
        hints: Mapping[str, Any] | None = None,
        device: torch.device | None = None,
        identity: BaseIdentity | None = None,
        sources: Mapping[str, Source] | None = None,
        stored: Callable[[str], Tensor] | None = None,
        quantize: str | None = None,
    ) -> None:
        """
        Args:
            pipeline: of diffusers.
            family: its family.
            name: what results call it.
            encoder: folder or hub id of the metric encoder that goes with this base.
            encoder_name: what results call it where it is the base's own: as the base. None is its
                folder or id.
            hints: what the base's own `perdure.json` advises: `learning` for all methods and
                `learning_of` one, `methods` (their options), `drawing`, `size`, `psnr`.
            device: where it computes; the CPU by default.
            identity: where it is known already; it is taken from the weights otherwise.
            sources: text encoders that the pipeline is opened without, until they are needed.
            stored: of quantised weights, those of the files, by name.
            quantize: how the denoiser's weights were asked to be held.
        """
        super().__init__()
        self.pipeline, self.family, self.name = pipeline, family, name
        self.encoder, self.encoder_name = encoder, encoder_name
        self.quantize = quantize
        own = family.advice(pipeline).items()
        advice = {key: {**of, **(hints or {}).get(key, {})} for key, of in own}
        self.hints: Mapping[str, Any] = {**(hints or {}), **advice}
        self.device = device or torch.device("cpu")
        frozen = family.frozen(pipeline)
        self._training = [m for one in frozen for m in one.modules() if m.training]
        self._trainable = [p for one in frozen for p in one.parameters() if p.requires_grad]
        for module in frozen:
            module.requires_grad_(False).eval()
        self.aim(KEYS_VALUES)
        self.tokens = Tokens(
            family.vocabularies(pipeline), state_width=family.state_width(pipeline)
        )
        for vocabulary in self.tokens.vocabularies:
            vocabulary.source = (sources or {}).get(vocabulary.name)
        self.objective = family.objective(pipeline, self.size)
        self._lock = threading.Lock()
        self._user: int | None = None
        self._identity, self._stored = identity, stored

    @classmethod
    def open(
        cls,
        name: str | Path = "smallworld",
        *,
        device: str | torch.device | None = None,
        encoder: str | None = None,
        dtype: str | torch.dtype | None = None,
        config: str | Path | None = None,
        quantize: str | None = None,
    ) -> Base:
        """Open `smallworld`, a diffusers folder, one `.safetensors` file, or a hub id, which
        `hf://user/name@revision` never takes for a folder.

        Args:
            name: which base.
            device: defaults to the accelerator where there is one, else the CPU.
            encoder: the metric encoder's folder or hub id. Defaults to what the folder's
                `perdure.json` names, else to `openai/clip-vit-large-patch14`.
            dtype: `float32`, `bfloat16` or `float16`. Defaults to what the folder's `perdure.json`
                names, else to that of the denoiser's weights in its files. On a CPU, which has no
                fast arithmetic in fp16, such a base computes in fp32.
            config: of one file: a diffusers folder of the same model, with or without weights.
            quantize: `int8` (torchao), `bnb-int8` or `bnb-nf4` (bitsandbytes): hold the denoiser's
                weights so. What is learned runs beside them; nothing is folded into them.

        The identity is of the stored values, whatever the dtype that they are opened in. Raises
        PerdureError where the folder is missing, is no diffusers folder, is of another family, or
        lacks a part.
        """
        what = opened(name, device, dtype=dtype, config=config, quantize=quantize)
        known: dict[str, Any] = {
            "name": what.name,
            "encoder": encoder or what.encoder,
            "encoder_name": what.name if what.own_encoder and not encoder else None,
            "hints": what.hints,
            "sources": what.sources,
            "stored": what.stored,
            "quantize": quantize,
        }
        identity = None
        if what.dtype != torch.float32:  # fp32 holds every stored value as it is
            identity = cls(what.pipeline, what.family, **known).identity
        what.family.prepare(what.pipeline, what.device)
        with quietly():  # it warns of parts that are kept in fp32, also where there are none
            if what.stored is None:
                _move(what.pipeline, what.family, what.device, what.dtype)
            else:
                denoiser = what.family.denoiser(what.pipeline)
                for module in what.family.frozen(what.pipeline):  # what is quantised keeps its kind
                    module.to(what.device)
                    if module is not denoiser:
                        module.to(what.dtype)
        return cls(what.pipeline, what.family, device=what.device, identity=identity, **known)

    @contextmanager
    def session(
        self,
        *,
        targets: str = KEYS_VALUES,
        tokens: Mapping[str, Token] | None = None,
        deltas: Mapping[str, Tensor] | None = None,
        cache: PromptCache | None = None,
    ) -> Iterator[Session]:
        """A block in which this base is one's own; afterwards it is what it was, to the bit.

        Args:
            targets: the set of target layers.
            tokens: the concepts that can be spoken of.
            deltas: what is folded, by layer.
            cache: of encoded prompts, for a base with large text encoders: see `cache`.

        Another thread waits until the block ends. RuntimeError where the same thread asks again
        inside it, which would wait for ever.
        """
        if self._user == threading.get_ident():
            raise RuntimeError("this base is in use by a session of this very thread: end it first")
        with self._lock:
            self._user = threading.get_ident()
            try:
                self.aim(targets)
                session = Session(self, cache)
                session.speak(tokens or {})
                session.fold(deltas or {})
                yield session
            finally:
                self.fold({})
                self.tokens.set({})
                self._user = None

    def cache(self, folder: Path, *, write: bool = False) -> PromptCache | None:
        """Encoded prompts in a folder; None where the text encoders are small."""
        if not self.family.large_encoders:
            return None
        name = f"{self.identity.hash} {self.dtype_name}"
        return PromptCache(folder, base=name, write=write)

    def need_encoders(self) -> None:
        """Read the text encoders that rest."""
        for vocabulary in self.tokens.vocabularies:
            vocabulary.need(self.device, self.dtype)

    def rest_encoders(self) -> None:
        """Take large text encoders out of memory until they are needed again."""
        for vocabulary in self.tokens.vocabularies:
            vocabulary.rest()
        if self.device.type != "cpu":
            torch.accelerator.empty_cache()

    def release(self) -> None:
        """Make the pipeline what it was before this base was made of it."""
        for vocabulary in self.tokens.vocabularies:
            vocabulary.put_back()
        for module in self._training:
            module.training = True
        for parameter in self._trainable:
            parameter.requires_grad_(True)

    def named(self, targets: str) -> Mapping[str, Layer]:
        return self.family.layers(self.pipeline, targets)

    @property
    def denoiser(self) -> nn.Module:
        """The module that holds the target layers."""
        return self.family.denoiser(self.pipeline)

    @property
    def dtype(self) -> torch.dtype:
        """What the frozen weights are held in; adapters and optimiser are fp32 in any case."""
        weights = (p for p in self.denoiser.parameters() if type(p) is nn.Parameter)
        return next(p.dtype for p in weights if p.is_floating_point())

    @property
    def dtype_name(self) -> str:
        """The same as `--dtype` has it."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def sampler(self) -> str:
        """The class of its schedule."""
        return type(self.pipeline.scheduler).__name__

    @property
    def fast_bf16(self) -> bool:
        """Is the base fp32 and the hardware good at bf16? Autocast is for such bases alone."""
        return self.dtype == torch.float32 and super().fast_bf16

    @property
    def readers(self) -> int:
        """How many modules read the encoders' states; 0 where the text is a stream."""
        return len(self.family.readers(self.pipeline))

    @property
    def most_steps(self) -> int:
        """How many steps the schedule has to draw in."""
        return int(self.pipeline.scheduler.config.num_train_timesteps)

    @property
    def size(self) -> Size:
        """Width and height of its own pictures in pixels."""
        own = self.hints.get("size")
        return self.family.size(self.pipeline) if own is None else read_size(own)

    def objective_at(self, size: Size) -> Objective:
        """What the denoiser predicts of pictures of a size, and at which times it is trained."""
        own = size == self.size
        return self.objective if own else self.family.objective(self.pipeline, size)

    def fitting(self, size: Size | str | None) -> Size:
        """The size, such as `768x512`, or for None the base's own; PerdureError where it has no
        pictures of that size."""
        try:
            width, height = self.size if size is None else read_size(size)
        except ValueError as error:
            raise PerdureError(f"{error}.") from error
        unit = self.family.multiple(self.pipeline)
        if width % unit or height % unit:
            near = "x".join(str(max(unit, round(side / unit) * unit)) for side in (width, height))
            raise PerdureError(
                f"{self.name} has no pictures of {width}x{height}: width and height must be "
                f"multiples of {unit}, such as {near}."
            )
        return width, height

    @cached_property
    def identity(self) -> BaseIdentity:
        """Name and hash: sha256 of keys and values, token tables and what the base predicts."""
        if self._identity is not None:
            return self._identity
        return self.identified(self._init, Vocabulary.rows)

    def identified(
        self, weight: Callable[[str, Layer], Tensor], rows: Callable[[Vocabulary], Tensor]
    ) -> BaseIdentity:
        """The identity by these weights of layers and rows of token tables."""
        digest = hashlib.sha256(self.objective.prediction.encode())
        keys_values = self.named(KEYS_VALUES)  # in every set
        weights = [(name, weight(name, layer)) for name, layer in keys_values.items()]
        weights += [("tokens", rows(vocabulary)) for vocabulary in self.tokens.vocabularies]
        for name, tensor in weights:
            digest.update(json.dumps([name, list(tensor.shape)]).encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return BaseIdentity(name=self.name, hash=digest.hexdigest())

    def _init(self, name: str, layer: Layer) -> Tensor:
        """`W_init` of a layer, of a quantised one as its file has it."""
        if not layer.quantised or self._stored is None:
            return self.pristine.get(name, layer.weight)
        return self.stored_init(layer, self._stored)

    def stored_init(self, layer: Layer, stored: Callable[[str], Tensor]) -> Tensor:
        """`W_init` of a layer as files have it, ``stored`` by its module's name."""
        paths = {id(module): path for path, module in own_modules(self.denoiser)}
        weight = stored(f"{paths[id(layer.module)]}.weight")
        whole = layer.rows is None or weight.dtype not in DTYPES.values()
        return weight if whole else weight[layer.rows]

    def stock(self, folder: Path | str) -> Any:
        """The stock loader's pipeline of a folder of this family, on the same device."""
        kind = self.family.pipeline_class(type(self.pipeline).__name__)
        with quietly():
            pipeline = kind.from_pretrained(
                folder,
                dtype=self.dtype,
                use_safetensors=True,
                **self.family.arguments(read_index(Path(folder))),
            )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(self.device)

    @cached_property
    def state_scale(self) -> float:
        """`std(states) / std(rows of the first table)`, over the words of ordinary prompts."""
        self.need_encoders()
        with torch.no_grad():
            return self.scale_of(self.family.encode(self.pipeline, ORDINARY).states)

    def scale_of(self, states: Tensor) -> float:
        """The same of the states of `ORDINARY`, (4, P, d)."""
        vocabulary, states = self.tokens.vocabularies[0], states.float()
        ends = vocabulary.ends(vocabulary.ids(ORDINARY))
        words = torch.cat([of[1:end] for of, end in zip(states, ends, strict=True)])
        return float(words.std()) / vocabulary.scale

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation (N, C, h, w) of the latents of pictures (N, 3, H, W) in [-1, 1]."""
        parts = [
            self.family.to_latents(self.pipeline, part.to(self.device, self.dtype))
            for part in pictures.split(4)
        ]
        means, deviations = zip(*parts, strict=True)
        return torch.cat(means).float(), torch.cat(deviations).float()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in [-1, 1] of latents (N, C, h, w)."""
        parts = [self.family.to_pictures(self.pipeline, z.to(self.dtype)) for z in latents.split(4)]
        return torch.cat(parts).float().clamp(-1, 1)


def _move(pipeline: Any, family: Family, device: torch.device, dtype: torch.dtype) -> None:
    """To a device and a dtype, but for what the stock loader leaves in fp32: buffers that no file
    holds, such as tables of positions, and weights that a model of diffusers keeps so."""
    computed, precise = [], []
    for module in family.frozen(pipeline):
        if isinstance(module, ModelMixin) and (keeps := set(module._keep_in_fp32_modules or ())):
            weights = module.named_parameters()
            precise += [(p, p.data) for name, p in weights if keeps.intersection(name.split("."))]
        stored = module.state_dict().keys()
        computed += [(module, *item) for item in module.named_buffers() if item[0] not in stored]
    pipeline.to(device, dtype)
    for module, name, buffer in computed:
        owner, _, own = name.rpartition(".")
        setattr(module.get_submodule(owner), own, buffer.to(device))
    for weight, data in precise:
        weight.data = data.to(device)
