"""The metric encoder: a CLIP folder (or hub id) that turns pictures and texts into features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import linear, normalize
from transformers import AutoConfig, CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.utils import cached_file

from perdure.errors import PerdureError
from perdure.quiet import quietly

IDENTITY_HEAD = "identity_head.safetensors"

Pictures = Tensor | Sequence[Image.Image]


@dataclass(frozen=True, kw_only=True, eq=False)
class MetricEncoder:
    """Pictures and texts to unit vectors, in fp32 and without gradients; results are on the CPU.

    `identity_weight` (d_id, d_pooled) and `identity_bias` (d_id) are the optional identity head,
    a linear map of the vision tower's pooled output.
    """

    name: str
    model: CLIPModel
    processor: CLIPImageProcessorPil
    tokenizer: CLIPTokenizer
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
    ) -> "MetricEncoder":
        """Open a folder or hub id that holds a CLIPModel, its tokenizer and its image processor.

        Weights are read from safetensors alone. Raises PerdureError with one sentence that says
        what is missing or wrong.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        where = str(path_or_id)
        folder = Path(path_or_id)
        if not folder.is_dir() and (isinstance(path_or_id, Path) or where.count("/") > 1):
            raise PerdureError(f"There is no metric encoder at {where}: no such folder.")
        model = _open_model(where)
        try:
            processor = CLIPImageProcessorPil.from_pretrained(where)
        except (OSError, ValueError) as error:
            raise PerdureError(
                f"The metric encoder {where} has no readable preprocessor_config.json: {error}"
            ) from error
        tokenizer = _open_tokenizer(where, model.text_model.config.eos_token_id)
        weight, bias = _open_head(where, model.vision_model.config.hidden_size)
        return cls(
            name=name or (folder.resolve().name if folder.is_dir() else where),
            model=model.to(device),
            processor=processor,
            tokenizer=tokenizer,
            identity_weight=None if weight is None else weight.to(device),
            identity_bias=None if bias is None else bias.to(device),
            batch_size=batch_size,
        )

    @property
    def identity_name(self) -> str:
        """Which features `identities` gives: the identity head's, or the image embedding's."""
        kind = "image embedding" if self.identity_weight is None else "identity head"
        return f"{self.name} ({kind})"

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

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Text embeddings (N, d), of length 1; a text longer than the text tower is cut."""
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
        return self.model.visual_projection(pooled)

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
            pixels = self.processor(
                images=images[start : start + self.batch_size], return_tensors="pt"
            )["pixel_values"]
            pixels = pixels.to(device=self.model.device, dtype=torch.float32)
            pooled = self.model.vision_model(pixel_values=pixels).pooler_output
            done.append(normalize(head(pooled), dim=1).cpu())
        return torch.cat(done)


def _open_model(where: str) -> CLIPModel:
    try:
        config = AutoConfig.from_pretrained(where, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise PerdureError(f"The metric encoder {where} can't be opened: {error}") from error
    if not isinstance(config, CLIPConfig):
        raise PerdureError(
            f"The metric encoder {where} must be a CLIP model with both towers "
            f"(model_type 'clip'), not {config.model_type!r}."
        )
    try:
        with quietly():
            opened: Any = CLIPModel.from_pretrained(
                where, dtype=torch.float32, use_safetensors=True, output_loading_info=True
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
