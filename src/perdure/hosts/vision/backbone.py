"""The frozen vision transformer: open it, name its target layers, read features."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, CLIPVisionModel, PreTrainedModel, ViTModel
from transformers.utils import cached_file

from perdure.errors import PerdureError
from perdure.hosts.frozen import Frozen, Layer
from perdure.hosts.vision.preprocessing import Preprocessing, coda_prompt, from_config
from perdure.quiet import quietly

__all__ = ["EMBEDDED", "PHOTOGRAPHS", "SMALLWORLD", "Backbone"]

SMALLWORLD, PHOTOGRAPHS = "smallworld", "photographs"
_PACKAGE = Path(__file__).parents[2]
EMBEDDED: Mapping[str, Path] = {
    SMALLWORLD: _PACKAGE / "smallworld" / "weights" / "encoder",
    PHOTOGRAPHS: _PACKAGE / "classification" / "weights" / "photographs",
}
"""The towers that ship with perdure, by name, and where they lie."""

_QKV = ("q_proj", "k_proj", "v_proj", "query", "key", "value")
_FUSED = "qkv"
_FEW = 256
"""Positions up to which a CPU runs plain attention, whose gradient is faster there (seen at 64)."""
_TOWERS: Mapping[str, type[PreTrainedModel]] = {
    "vit": ViTModel,
    "clip": CLIPVisionModel,
    "clip_vision_model": CLIPVisionModel,
}


class Backbone(Frozen):
    """A tower that turns pixels (N, 3, size, size) into features (N, width), all of it frozen.

    `layers` are the target layers by name and `pristine` clones of their weights, `W_init`. Any
    module will do as a tower that returns features, or an output of transformers with the class
    token; its attention must have its queries, keys and values in linear layers that are named
    `q_proj`, `k_proj`, `v_proj`, or `query`, `key`, `value`, or all in one `qkv` (3d, d).
    """

    def __init__(
        self,
        tower: nn.Module,
        *,
        name: str,
        preprocessing: Preprocessing,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__()
        self.tower = tower.to(device).float().eval().requires_grad_(False)
        self.name, self.preprocessing = name, preprocessing
        self.device = torch.device(device)
        size = preprocessing.size
        with torch.no_grad():
            self.width = self.features(torch.zeros(1, 3, size, size)).shape[1]
        self.hash = _hash(self.tower)
        self.aim("attention")

    @classmethod
    def open(
        cls,
        name: str | Path,
        *,
        preprocessing: str | Preprocessing = "backbone",
        device: str | torch.device = "cpu",
    ) -> Backbone:
        """Open one of `EMBEDDED`, or a ViT or CLIP of transformers by folder or hub id.

        ``preprocessing`` is `backbone`, its own configuration, `coda-prompt`, or a scheme. Weights
        are read from safetensors alone. PerdureError says in one sentence what is missing or wrong.
        """
        where = str(EMBEDDED.get(str(name), name))
        given = isinstance(preprocessing, Preprocessing)
        if not given and preprocessing not in ("backbone", "coda-prompt"):
            raise ValueError(
                f"preprocessing is {preprocessing!r}, but must be 'backbone' or 'coda-prompt'"
            )
        tower = _open_tower(where)
        if torch.device(device).type == "cpu" and _positions(tower) <= _FEW:
            tower.set_attn_implementation("eager")
        if isinstance(preprocessing, Preprocessing):
            scheme = preprocessing
        elif preprocessing == "coda-prompt":
            scheme = coda_prompt(tower.config.image_size)
        else:
            scheme = _own_preprocessing(where)
        return cls(tower, name=str(name), preprocessing=scheme, device=device)

    def named(self, targets: str) -> Mapping[str, Layer]:
        """Of `all` every linear layer and convolution, else the queries, keys and values."""
        found = {}
        for name, module in self.tower.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                last = name.rpartition(".")[2]
                if targets == "all" or last == _FUSED or last in _QKV:
                    found[name] = Layer(module)
        if not found:
            raise PerdureError(
                f"The backbone {self.name} has no linear layer named {', '.join(_QKV)} or {_FUSED}:"
                " its attention is laid out in a way that is not known here."
            )
        return found

    def features(self, pixels: Tensor, tower: nn.Module | None = None) -> Tensor:
        """The class token's features (N, width), fp32, of pixels (N, 3, size, size).

        ``tower`` stands in for the backbone's own, such as a `twin`.
        """
        with self.autocast():
            said = (tower or self.tower)(pixels.to(self.device))
        if not isinstance(said, Tensor):
            pooled = getattr(said, "pooler_output", None)
            said = said.last_hidden_state[:, 0] if pooled is None else pooled
        return said.float()

    def twin(self, dense: Mapping[str, Tensor]) -> nn.Module:
        """A copy of the tower with these deltas folded in; it costs the memory of one tower."""
        now = {name: layer.weight.detach().clone() for name, layer in self.layers.items()}
        self.fold(dense)
        twin = copy.deepcopy(self.tower)
        with torch.no_grad():
            for name, layer in self.layers.items():
                layer.weight.copy_(now[name])
        return twin


def _open_tower(where: str) -> PreTrainedModel:
    folder = Path(where)
    if not folder.is_dir() and folder in EMBEDDED.values():
        raise PerdureError(f"The weights of {folder.name} are not installed: reinstall perdure.")
    if not folder.is_dir() and where.count("/") != 1:
        raise PerdureError(
            f"There is no backbone {where}: give a folder, a hub id, or {' or '.join(EMBEDDED)}."
        )
    try:
        config = AutoConfig.from_pretrained(where, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise PerdureError(f"The backbone {where} cannot be opened: {error}") from error
    kind = _TOWERS.get(config.model_type)
    if kind is None:
        raise PerdureError(
            f"The backbone {where} is of the type {config.model_type!r}: give one of "
            f"{', '.join(_TOWERS)}."
        )
    extra = {"add_pooling_layer": False} if kind is ViTModel else {}
    try:
        with quietly():
            tower, info = kind.from_pretrained(
                where,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                **extra,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise PerdureError(
            f"The backbone {where} has no readable safetensors weights: {error}"
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise PerdureError(
            f"The backbone {where} lacks {len(missing)} weights, the first is {missing[0]}."
        )
    return tower


def _positions(tower: PreTrainedModel) -> int:
    """Patches of a picture."""
    return int((tower.config.image_size // tower.config.patch_size) ** 2)


def _own_preprocessing(where: str) -> Preprocessing:
    try:
        path = cached_file(where, "preprocessor_config.json")
        return from_config(Path(str(path)).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError) as error:
        raise PerdureError(
            f"The backbone {where} has no preprocessor_config.json that can be followed ({error}): "
            "add one, or choose the preprocessing coda-prompt."
        ) from error


def _hash(tower: nn.Module) -> str:
    """sha256 of the names and the fp32 bytes of all weights, in the order of the names."""
    digest = hashlib.sha256()
    for name, weight in sorted(tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
