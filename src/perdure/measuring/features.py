"""The metric encoder, a CLIP or DINO folder or hub id: pictures, and CLIP's texts, to features."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import linear, normalize
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Model,
    Dinov2WithRegistersModel,
    DINOv3ViTModel,
    PreTrainedModel,
    ViTModel,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from transformers.utils import cached_file

from perdure.errors import PerdureError
from perdure.measuring.eyes import WIDTH, Eyes, pixels_of
from perdure.quiet import quietly

if TYPE_CHECKING:
    from perdure.hosts.diffusion.host import Base

IDENTITY_HEAD = "identity_head.safetensors"
_MODELS: dict[str, type[PreTrainedModel]] = {
    "clip": CLIPModel,
    "vit": ViTModel,  # DINO's first version
    "dinov2": Dinov2Model,
    "dinov2_with_registers": Dinov2WithRegistersModel,
    "dinov3_vit": DINOv3ViTModel,
}

_OWN = {
    "smallworld-eyes": Path(__file__).parents[1] / "smallworld" / "weights" / "eyes",
}

Pictures = Tensor | Sequence[Image.Image]


@dataclass(frozen=True, kw_only=True, eq=False)
class MetricEncoder:
    """Pictures and texts to unit vectors, in fp32 and without gradients; results are on the CPU.

    A picture's embedding is CLIP's projected one, or DINO's class token after the last norm.
    `identity_weight` (d_id, d_pooled) and `identity_bias` (d_id) are the optional identity head,
    a linear map of the vision tower's pooled output.
    """

    name: str
    model: Any
    """A model of transformers, or `Eyes`."""
    processor: Any
    tokenizer: CLIPTokenizer | None = None
    """None where the model reads no texts."""
    identity_weight: Tensor | None = None
    identity_bias: Tensor | None = None
    batch_size: int = 64

    @classmethod
    def open(
        cls,
        path_or_id: str | Path,
        *,
        device: str | torch.device = "cpu",
        batch_size: int = 64,
        name: str | None = None,
    ) -> MetricEncoder:
        """Open a folder or hub id: a CLIP with its tokenizer, or a DINO; and its image processor;
        or `smallworld-eyes`, the drawn world's second judge.

        Weights are read from safetensors alone. Raises PerdureError with one sentence that says
        what is missing or wrong.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if (own := _OWN.get(str(path_or_id))) is not None:
            return cls._of_eyes(own, name or str(path_or_id), device, batch_size)
        where, folder = str(path_or_id), Path(path_or_id)
        if not folder.is_dir() and (isinstance(path_or_id, Path) or where.count("/") > 1):
            raise PerdureError(f"There is no metric encoder at {where}: no such folder.")
        model = _open_model(where)
        try:
            with quietly():
                processor = _open_processor(where, model.config.model_type)
        except (ImportError, OSError, ValueError) as error:
            raise PerdureError(
                f"The metric encoder {where} has no readable preprocessor_config.json: {error}"
            ) from error
        clip = isinstance(model, CLIPModel)
        tokenizer = _open_tokenizer(where, model.config.text_config.eos_token_id) if clip else None
        tower = model.config.vision_config if clip else model.config
        weight, bias = _open_head(where, tower.hidden_size)
        return cls(
            name=name or (folder.resolve().name if folder.is_dir() else where),
            model=model.to(device),
            processor=processor,
            tokenizer=tokenizer,
            identity_weight=None if weight is None else weight.to(device),
            identity_bias=None if bias is None else bias.to(device),
            batch_size=batch_size,
        )

    @classmethod
    def _of_eyes(
        cls, folder: Path, name: str, device: str | torch.device, batch_size: int
    ) -> MetricEncoder:
        weight, bias = _open_head(str(folder), WIDTH)
        assert weight is not None and bias is not None
        return cls(
            name=name,
            model=Eyes.load(folder / "model.safetensors").to(device),
            processor=pixels_of,
            identity_weight=weight.to(device),
            identity_bias=bias.to(device),
            batch_size=batch_size,
        )

    @classmethod
    def of(cls, base: Base) -> MetricEncoder:
        """The one that goes with a base, on the base's device."""
        return cls.open(base.encoder, device=base.device, name=base.encoder_name)

    @property
    def identity_name(self) -> str:
        """Which features `identities` gives: the identity head's, or the image embedding's."""
        return f"{self.name} ({self.identity_kind})"

    @property
    def identity_kind(self) -> str:
        """`identity head` or `image embedding`."""
        return "image embedding" if self.identity_weight is None else "identity head"

    def facts(self) -> dict[str, str]:
        """What a result says of it: name, what identity is, and sha256 of all its weights."""
        digest = hashlib.sha256()
        own = {"identity_weight": self.identity_weight, "identity_bias": self.identity_bias}
        for name, weight in sorted({**self.model.state_dict(), **own}.items()):
            if weight is not None:
                digest.update(name.encode())
                digest.update(weight.cpu().contiguous().numpy().tobytes())
        return {
            "name": self.name,
            "identity": self.identity_kind,
            "hash": digest.hexdigest(),
        }

    @torch.no_grad()
    def pictures(self, batch: Pictures) -> Tensor:
        """Image embeddings (N, d), of length 1, of uint8 (N, H, W, 3) or N PIL pictures."""
        return self._encoded(batch, self._embed)

    @torch.no_grad()
    def identities(self, batch: Pictures) -> Tensor:
        """Identity features (N, d_id), of length 1; the image embeddings where there is no head."""
        if self.identity_weight is None:
            return self.pictures(batch)
        return self._encoded(batch, self._identify)

    @property
    def reads_texts(self) -> bool:
        """Does it have a text tower?"""
        return self.tokenizer is not None

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Text embeddings (N, d), of length 1; a text longer than the text tower is cut.

        ValueError where the model reads no texts.
        """
        if self.tokenizer is None:
            raise ValueError(f"the metric encoder {self.name} reads no texts")
        if isinstance(texts, str) or not len(texts):
            raise ValueError(f"texts must be a list of at least one text, got {texts!r}")
        device = self.model.device
        done = []
        for start in range(0, len(texts), self.batch_size):
            tokens = self.tokenizer(
                list(texts[start : start + self.batch_size]),
                padding=True,
                truncation=True,
                max_length=self.model.text_model.config.max_position_embeddings,
                return_tensors="pt",
            ).to(device)
            pooled = self.model.text_model(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).pooler_output
            done.append(normalize(self.model.text_projection(pooled), dim=1).cpu())
        return torch.cat(done)

    def _embed(self, pooled: Tensor) -> Tensor:
        return self.model.visual_projection(pooled) if self.tokenizer else pooled

    def _identify(self, pooled: Tensor) -> Tensor:
        assert self.identity_weight is not None
        return linear(pooled, self.identity_weight, self.identity_bias)

    def _encoded(self, batch: Pictures, head: Callable[[Tensor], Tensor]) -> Tensor:
        if isinstance(batch, Tensor):
            if batch.dtype != torch.uint8 or batch.ndim != 4 or batch.shape[3] != 3:
                raise ValueError(
                    "pictures must be uint8 (N, H, W, 3) or a list of PIL pictures, got "
                    f"{batch.dtype} {tuple(batch.shape)}"
                )
            images = [Image.fromarray(picture) for picture in batch.cpu().numpy()]
        else:
            images = [picture.convert("RGB") for picture in batch]
        if not images:
            raise ValueError("pictures must hold at least one picture, got none")
        done = []
        for start in range(0, len(images), self.batch_size):
            pooled = self._pooled(images[start : start + self.batch_size])
            done.append(normalize(head(pooled), dim=1).cpu())
        return torch.cat(done)

    def _pooled(self, images: list[Image.Image]) -> Tensor:
        pooled: Tensor
        if isinstance(self.model, Eyes):
            pooled = self.model(self.processor(images).to(self.model.device))
            return pooled
        pixels = self.processor(images=images, return_tensors="pt")["pixel_values"]
        pixels = pixels.to(device=self.model.device, dtype=torch.float32)
        if self.tokenizer:
            pooled = self.model.vision_model(pixel_values=pixels).pooler_output
        else:
            pooled = self.model(pixel_values=pixels).last_hidden_state[:, 0]
        return pooled


def _open_model(where: str) -> PreTrainedModel:
    try:
        config = AutoConfig.from_pretrained(where, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise PerdureError(f"The metric encoder {where} can't be opened: {error}") from error
    kind = _MODELS.get(config.model_type)
    if kind is None:
        raise PerdureError(
            f"The metric encoder {where} is of the type {config.model_type!r}: give a CLIP with "
            f"both towers, or a DINO ({', '.join(_MODELS)})."
        )
    extra = {"add_pooling_layer": False} if kind is ViTModel else {}
    try:
        with quietly():
            opened: Any = kind.from_pretrained(
                where, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **extra
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise PerdureError(
            f"The metric encoder {where} has no readable safetensors weights: {error}"
        ) from error
    model, info = opened
    if missing := sorted(info["missing_keys"]):
        raise PerdureError(
            f"The metric encoder {where} lacks {len(missing)} weights, the first is {missing[0]}."
        )
    return model.eval().requires_grad_(False)


def _open_processor(where: str, kind: str) -> Any:
    if kind == "dinov3_vit":  # its own needs torchvision, and does the same
        return ViTImageProcessorPil.from_pretrained(where)
    return AutoImageProcessor.from_pretrained(where, backend="pil", trust_remote_code=False)


def _open_tokenizer(where: str, pooled_at: int) -> CLIPTokenizer:
    try:
        tokenizer = CLIPTokenizer.from_pretrained(where)
    except (OSError, ValueError, TypeError) as error:
        raise PerdureError(
            f"The metric encoder {where} has no readable tokenizer: {error}"
        ) from error
    # transformers pools at eos_token_id; 2 is the old files' code for "the highest id".
    if len(tokenizer) < 3 or pooled_at not in (2, tokenizer.eos_token_id):
        raise PerdureError(
            f"The metric encoder {where} pools texts at token {pooled_at}, but its tokenizer "
            f"({len(tokenizer)} tokens) ends them with {tokenizer.eos_token_id}."
        )
    return tokenizer


def _open_head(where: str, width: int) -> tuple[Tensor | None, Tensor | None]:
    path = cached_file(where, IDENTITY_HEAD, _raise_exceptions_for_missing_entries=False)
    if path is None:
        return None, None
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise PerdureError(f"{path} is not a readable safetensors file: {error}") from error
    weight, bias = tensors.get("weight"), tensors.get("bias")
    if weight is None or weight.ndim != 2 or weight.shape[1] != width:
        found = {key: tuple(value.shape) for key, value in tensors.items()}
        raise PerdureError(f"{path} must hold `weight` (d_id, {width}), it holds {found}.")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise PerdureError(
            f"{path}: `bias` must be ({weight.shape[0]},), it is {tuple(bias.shape)}."
        )
    return weight.float(), None if bias is None else bias.float()
