"""Open a pipeline and hold it frozen: target layers, tokens, objective, identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from safetensors import SafetensorError
from torch import Tensor, nn

from perdure import precision
from perdure.adapters import Prompts, fold_into
from perdure.base.families import FAMILIES, KEYS_VALUES, Family, Layer, family_of, target_layers
from perdure.base.identity import BaseIdentity
from perdure.base.objective import Objective
from perdure.base.tokens import ConceptTokens
from perdure.errors import PerdureError
from perdure.quiet import StableDiffusionPipeline, quietly

__all__ = ["Base"]

SMALLWORLD = "smallworld"
_WEIGHTS = Path(__file__).parent.parent / "smallworld" / "weights"


@dataclass(eq=False)
class Base:
    """A frozen pipeline. Its weights change only through `fold`, always from `W_init`."""

    pipeline: StableDiffusionPipeline
    family: Family
    name: str
    encoder: str
    """Folder or hub id of the metric encoder that goes with this base."""
    encoder_name: str | None = None
    """What results call it where it is the base's own: as the base. None is its folder or id."""
    hints: Mapping[str, Any] = field(default_factory=dict)
    """What the base's own `perdure.json` advises: `learning` for all methods and `learning_of` one,
    `methods` (their options), `drawing`, `psnr`."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        for module in (self.pipeline.vae, self.pipeline.text_encoder, self.denoiser):
            module.requires_grad_(False).eval()
        self.layers: Mapping[str, Layer] = {}
        self.pristine: Mapping[str, Tensor] = {}
        self.aim(KEYS_VALUES)
        self.tokens = ConceptTokens(self.pipeline.tokenizer, self.pipeline.text_encoder)
        scheduler = self.pipeline.scheduler
        self.objective = Objective(scheduler.alphas_cumprod, scheduler.config.prediction_type)

    @classmethod
    def open(
        cls,
        name: str | Path = "smallworld",
        *,
        device: str | torch.device | None = None,
        encoder: str | None = None,
    ) -> Base:
        """Open `smallworld`, a diffusers folder, or a hub id of the Stable Diffusion family.

        Args:
            name: which base.
            device: defaults to the accelerator where there is one, else the CPU.
            encoder: the metric encoder's folder or hub id. Defaults to what the folder's
                `perdure.json` names, else to `openai/clip-vit-large-patch14`.

        Raises PerdureError where the folder is missing, is no diffusers folder, is of another
        family, or lacks a part.
        """
        return _open(cls, name, device, encoder)

    def aim(self, targets: str) -> None:
        """Make one of the family's sets the target layers; their weights are `W_init` again."""
        self.fold({})
        layers = target_layers(self.denoiser, self.family, targets)
        if layers.keys() != self.layers.keys():
            self.layers = layers
            self.pristine = {name: layer.weight.detach().clone() for name, layer in layers.items()}

    @property
    def denoiser(self) -> nn.Module:
        """The U-Net."""
        module = getattr(self.pipeline, self.family.denoiser)
        assert isinstance(module, nn.Module)
        return module

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Target layer -> (d_out, d_in); of a convolution d_in is channels x height x width."""
        return {name: (len(w), w[0].numel()) for name, w in self.pristine.items()}

    @property
    def size(self) -> int:
        """Side of its pictures in pixels."""
        return int(self.pipeline.unet.config.sample_size * self.pipeline.vae_scale_factor)

    @cached_property
    def identity(self) -> BaseIdentity:
        """Name and hash: sha256 of keys and values, token table and what the base predicts."""
        digest = hashlib.sha256(self.objective.prediction.encode())
        own = self.tokens.embedding().weight[: self.tokens.own]
        keys_values = target_layers(self.denoiser, self.family, KEYS_VALUES)  # in every set
        weights = [(name, self.pristine[name]) for name in keys_values]
        for name, tensor in [*weights, ("tokens", own)]:
            digest.update(json.dumps([name, list(tensor.shape)]).encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return BaseIdentity(name=self.name, hash=digest.hexdigest())

    def fold(self, deltas: Mapping[str, Tensor]) -> None:
        """Make the weights `W_init + dW`; `{}` restores the base to the bit."""
        fold_into(self.layers, self.pristine, deltas)

    def states(self, ids: Tensor) -> Tensor:
        """The text encoder's states (N, positions, d) of token ids (N, positions).

        A prompt that stands there several times is encoded once.
        """
        once, place = torch.unique(ids, dim=0, return_inverse=True)
        encoded = self.pipeline.text_encoder(once.to(self.device))
        states: Tensor = encoded[0][place.to(self.device)]
        return states

    def prompts(self, ids: Tensor, states: Tensor) -> Prompts:
        """What the layers are about to read, of token ids (N, positions) and their states."""
        names = {self.tokens.id_of(name): name for name in self.tokens.names}
        rows = ids.tolist()
        end = self.tokens.tokenizer.eos_token_id
        return Prompts(
            states=states,
            spoken=tuple(
                tuple((names[token], place) for place, token in enumerate(row) if token in names)
                for row in rows
            ),
            ends=tuple(row.index(end) for row in rows),
        )

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation (N, C, h, w) of the latents of pictures (N, 3, H, W) in [-1, 1]."""
        factor = self.pipeline.vae.config.scaling_factor
        posteriors = [
            self.pipeline.vae.encode(part.to(self.device)).latent_dist for part in pictures.split(4)
        ]
        mean = torch.cat([p.mean for p in posteriors])
        std = torch.cat([p.std for p in posteriors])
        return mean * factor, std * factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in [-1, 1] of latents (N, C, h, w)."""
        factor = self.pipeline.vae.config.scaling_factor
        parts = [self.pipeline.vae.decode(z / factor).sample for z in latents.split(4)]
        return torch.cat(parts).clamp(-1, 1)

    @cached_property
    def fast_bf16(self) -> bool:
        """Is the hardware good at bf16?"""
        return precision.fast_bf16(self.device)

    def autocast(self) -> torch.autocast:
        """bf16 where the hardware is good at it, else nothing."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.fast_bf16)


def default_device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    if torch.accelerator.is_available():
        return torch.device(str(torch.accelerator.current_accelerator()))
    return torch.device("cpu")


def _open(
    cls: type[Base],
    name: str | Path,
    device: str | torch.device | None,
    encoder: str | None,
) -> Base:
    text = str(name)
    folder = _WEIGHTS / "base" if text == SMALLWORLD else Path(text).expanduser()
    if text == SMALLWORLD and not folder.is_dir():
        raise PerdureError(
            "The weights of smallworld are not installed: reinstall perdure, or make them with "
            "`python -m perdure.smallworld.train`."
        )
    if folder.is_dir():
        where, family = str(folder), family_of(_pipeline_class(folder), text)
    elif text.startswith((".", "/", "~")) or text.count("/") != 1:
        raise PerdureError(
            f"There is no base {text!r}: give 'smallworld', a diffusers folder, or a hub id such "
            "as 'stable-diffusion-v1-5/stable-diffusion-v1-5'."
        )
    else:
        where, family = text, FAMILIES[0]
    hints = _hints(folder)
    place = torch.device(device) if device is not None else default_device()
    try:
        with quietly():
            pipeline = StableDiffusionPipeline.from_pretrained(
                where,
                dtype=torch.float32,
                use_safetensors=True,
                safety_checker=None,
                requires_safety_checker=False,
            )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise PerdureError(f"The base {text!r} cannot be opened: {_first_line(error)}") from error
    pipeline.set_progress_bar_config(disable=True)
    if place.type == "cpu" and pipeline.unet.config.sample_size <= 32:
        # torch's fused attention is half as fast as plain products with few positions on a CPU
        pipeline.unet.set_attn_processor(AttnProcessor())
    pipeline.to(place)
    if "encoder" in hints:
        own = str((folder / str(hints["encoder"])).resolve())
    else:
        own = "openai/clip-vit-large-patch14"
    called = folder.name if folder.is_dir() and text != SMALLWORLD else text
    return cls(
        pipeline=pipeline,
        family=family,
        name=called,
        encoder=encoder or own,
        encoder_name=called if "encoder" in hints and not encoder else None,
        hints=hints,
        device=place,
    )


def _pipeline_class(folder: Path) -> str:
    index = folder / "model_index.json"
    if not index.is_file():
        raise PerdureError(
            f"{folder} is no diffusers folder: it has no model_index.json. Save the model with "
            "diffusers' save_pretrained first."
        )
    try:
        return str(json.loads(index.read_text())["_class_name"])
    except (ValueError, KeyError) as error:
        raise PerdureError(f"{index} is broken ({error}): download the base again.") from error


def _hints(folder: Path) -> dict[str, Any]:
    """What a base's folder says of itself in `perdure.json`: encoder, settings, reconstruction."""
    path = folder / "perdure.json"
    if not path.is_file():
        return {}
    try:
        hints: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise PerdureError(f"{path} is broken ({error}): mend it or take it away.") from error
    return hints


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
