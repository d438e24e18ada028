"""The image tower, trained further: every word of the world must be readable in its output.

A contrastive loss between random pairs is content with backgrounds and colours. So here linear
readers of the pooled output learn each attribute from labels, and some pictures are compared with
prompts that differ in one attribute alone. The text tower stays as it is: it is the base's too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perdure import precision
from perdure.smallworld.recognition import candidates
from perdure.smallworld.train.clip import IdentityClip, contrast
from perdure.smallworld.train.loop import Schedule, train
from perdure.smallworld.train.vocabulary import CONTEXT, make_tokenizer
from perdure.smallworld.vocabulary import ACCESSORY_NOUNS
from perdure.smallworld.world import (
    BACKGROUNDS,
    DOMAINS,
    EXPRESSIONS,
    STYLES,
    Scene,
    sample,
    sample_context,
)

__all__ = ["VISION_PAIRS", "train_vision"]

VISION_PAIRS = 48
COMPARED = 20
"""Pictures of a batch that are compared with prompts which differ in one attribute."""
_WORDS: Mapping[str, tuple[str, ...]] = {
    "domain": DOMAINS,
    "background": BACKGROUNDS,
    "accessory": ("none", *ACCESSORY_NOUNS),
    "expression": EXPRESSIONS,
    "style": tuple(STYLES),
}
_SHARES = {"accessory": 0.5, "expression": 0.35, "background": 0.05, "style": 0.1}


class _Reading(nn.Module):
    """The model, and a linear reader of each attribute that is thrown away afterwards."""

    def __init__(self, model: IdentityClip) -> None:
        super().__init__()
        self.model = model
        width = model.identity.in_features
        self.readers = nn.ModuleDict(
            {name: nn.Linear(width, len(words)) for name, words in _WORDS.items()}
        )


def _scenes(rng: np.random.Generator) -> list[Scene]:
    """2 x VISION_PAIRS scenes; k and VISION_PAIRS + k show one cast. Few of them are plain."""
    first = [sample(rng, "training", two=0.1) for _ in range(VISION_PAIRS)]
    scenes = []
    for scene in (*first, *first):
        context = sample_context(scene.identities[0].domain, rng, plain=0.2)
        scenes.append(replace(scene, context=context, render_seed=int(rng.integers(2**62))))
    return scenes


def _reading_loss(readers: nn.ModuleDict, pooled: Tensor, scenes: list[Scene]) -> Tensor:
    """Cross-entropy of each attribute, over the scenes to which it applies, added up."""
    total = pooled.new_zeros(())
    for name, words in _WORDS.items():
        labels = [
            -100
            if name == "expression" and all(one.domain != "person" for one in scene.identities)
            else words.index(
                scene.identities[0].domain if name == "domain" else getattr(scene.context, name)
            )
            for scene in scenes
        ]
        total = total + F.cross_entropy(readers[name](pooled).float(), torch.tensor(labels))
    return total


def train_vision(model: IdentityClip, folder: Path, schedule: Schedule) -> None:
    """Train the image tower, both projections and the identity head of ``model`` in place."""
    model.clip.text_model.requires_grad_(False)
    torch.manual_seed(5)
    reading = _Reading(model)
    tokenizer = make_tokenizer()

    def texts(prompts: list[str]) -> Tensor:
        ids = tokenizer(
            prompts, padding=True, truncation=True, max_length=CONTEXT, return_tensors="pt"
        )["input_ids"]
        pooled = model.clip.text_model(ids).pooler_output
        return F.normalize(model.clip.text_projection(pooled).float(), dim=-1)

    def loss_of(generator: torch.Generator, step: int) -> tuple[Tensor, Mapping[str, float]]:
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        scenes = _scenes(rng)
        pixels = torch.from_numpy(np.stack([scene.render() for scene in scenes]))
        asked: list[tuple[int, list[str], int]] = []
        for index in rng.permutation(len(scenes)):
            attribute = str(rng.choice(list(_SHARES), p=list(_SHARES.values())))
            found = candidates(scenes[index], attribute)
            if len(scenes[index].identities) == 1 and found and len(asked) < COMPARED:
                asked.append((int(index), *found))
        with precision.autocast(torch.device("cpu")):
            image, who, pooled = model.see(pixels.permute(0, 3, 1, 2).float() / 255)
            said = texts([scene.caption(rng) for scene in scenes])
            choices = texts([text for _, prompts, _ in asked for text in prompts])
            reading_loss = _reading_loss(reading.readers, pooled, scenes)
        scale = model.clip.logit_scale
        half = VISION_PAIRS
        people = contrast(who[:half], who[half:], model.identity_scale)
        words = (
            contrast(image[:half], said[:half], scale) + contrast(image[half:], said[half:], scale)
        ) / 2
        sharp = scale.clamp(max=4.6052).exp()
        rows = choices.split([len(prompts) for _, prompts, _ in asked])
        compared = torch.stack(
            [
                F.cross_entropy(sharp * row @ image[index], torch.tensor(truth))
                for row, (index, _, truth) in zip(rows, asked, strict=True)
            ]
        ).mean()
        facts = {
            "words": words.item(),
            "identity": people.item(),
            "compared": compared.item(),
            "read": reading_loss.item(),
        }
        return words + people + compared + 0.5 * reading_loss, facts

    train(reading, loss_of, schedule=schedule, folder=folder, seed=5)
