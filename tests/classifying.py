"""Tiny vision transformers, tiny pictures and small options for the tests of classification."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, ViTConfig, ViTModel

from perdure.classification import CLASSIFIERS, Backbone
from perdure.hosts.vision.preprocessing import Preprocessing

SMALL: dict[str, Any] = {
    "rank": 3,
    "mask_rank": 2,
    "hidden": 4,
    "components": 2,
    "length": 2,
    "blocks": 1,
    "pictures": 4,
    "tasks": 2,
    "share": 0.6,
}
COLOURS = ((250, 20, 20), (20, 240, 20), (20, 30, 250), (240, 240, 30))


def small(name: str) -> dict[str, Any]:
    """Small numbers for the options that the method has."""
    known = {field.name for field in fields(CLASSIFIERS[name].Config)}
    return {key: value for key, value in SMALL.items() if key in known}


def make_tower(kind: str = "vit") -> nn.Module:
    torch.manual_seed(0)
    sizes = dict(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        image_size=16,
        patch_size=8,
    )
    if kind == "fused":
        return FusedTower()
    if kind == "clip":
        return CLIPVisionModel(CLIPVisionConfig(**sizes))
    return ViTModel(ViTConfig(**sizes), add_pooling_layer=False)


def make_backbone(kind: str = "vit") -> Backbone:
    return Backbone(make_tower(kind), name=f"tiny {kind}", preprocessing=Preprocessing(size=16))


def save_backbone(folder: Path, kind: str = "vit", **config: Any) -> Path:
    """A folder as transformers writes it, with its image processor's configuration."""
    make_tower(kind).save_pretrained(folder)
    scheme = {
        "size": {"height": 16, "width": 16},
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
        "resample": 2,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(scheme | config))
    return folder


class FusedTower(nn.Module):
    """A transformer with queries, keys and values in one linear layer, as timm lays them out."""

    def __init__(self, width: int = 16, blocks: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.1)
        self.blocks = nn.ModuleList(FusedBlock(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.patches(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]


class FusedBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        return x + self.proj(nn.functional.scaled_dot_product_attention(q, k, v))


def coloured(classes: list[int], count: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """``count`` noisy 16 x 16 pictures of each class, each class of a colour of its own."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(classes, count)
    base = np.array(COLOURS)[labels][:, None, None]
    noise = rng.integers(-60, 60, (len(labels), 16, 16, 3))
    return np.clip(base + noise, 0, 255).astype(np.uint8), labels


def write_tree(folder: Path, *, test: str = "test", classes: int = 4) -> Path:
    """`train/<class>/` and `test/<class>/` of coloured PNG pictures."""
    for kind, count, seed in (("train", 8, 0), (test, 4, 1)):
        pictures, labels = coloured(list(range(classes)), count, seed)
        for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
            path = folder / kind / f"class{label}" / f"{index:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    return folder
