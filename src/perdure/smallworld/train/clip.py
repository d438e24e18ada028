"""Stage 1: a small CLIP, image to text and image to image (two pictures of one cast)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from perdure import precision
from perdure.smallworld.train.data import CAPTIONS, Scenes
from perdure.smallworld.train.loop import Schedule, train
from perdure.smallworld.train.vocabulary import CONTEXT, make_tokenizer
from perdure.smallworld.world import SIZE

__all__ = ["IdentityClip", "contrast", "train_clip"]

PAIRS = 96
_VISION = 192
MEAN, STD = 0.5, 0.25


def make_clip() -> CLIPModel:
    """The untrained model: text 2 x 384, vision 4 x 192 with patches of 8."""
    tokenizer = make_tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=2,
        num_attention_heads=6,
        max_position_embeddings=CONTEXT,
        projection_dim=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(
        hidden_size=_VISION,
        intermediate_size=4 * _VISION,
        num_hidden_layers=4,
        num_attention_heads=3,
        image_size=SIZE,
        patch_size=8,
        projection_dim=256,
    )
    model = CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=256)
    )
    model.set_attn_implementation("eager")  # faster than sdpa on a CPU with small heads
    return model


class IdentityClip(nn.Module):
    """CLIP with a linear identity head on the vision tower's pooled output."""

    def __init__(self) -> None:
        super().__init__()
        self.clip = make_clip()
        self.identity = nn.Linear(_VISION, 128, bias=False)
        self.identity_scale = nn.Parameter(torch.tensor(2.6592))

    def forward(self, pixels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unit image, text and identity embeddings of ``pixels`` (N, 3, 64, 64) in [0, 1]."""
        image, who, _ = self.see(pixels)
        pooled_text = self.clip.text_model(ids).pooler_output
        text = F.normalize(self.clip.text_projection(pooled_text).float(), dim=-1)
        return image, text, who

    def see(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unit image and identity embeddings and the pooled output of ``pixels``."""
        pooled = self.clip.vision_model((pixels - MEAN) / STD).pooler_output
        image = F.normalize(self.clip.visual_projection(pooled).float(), dim=-1)
        return image, F.normalize(self.identity(pooled).float(), dim=-1), pooled


def contrast(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    logits = scale.clamp(max=4.6052).exp() * a @ b.T
    target = torch.arange(len(a))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def train_clip(scenes: Scenes, held_out: Scenes, folder: Path, schedule: Schedule) -> IdentityClip:
    """Train and return the model; 2 x ``PAIRS`` pictures a step."""
    torch.manual_seed(0)
    model = IdentityClip()
    pad = model.clip.config.text_config.pad_token_id
    pictures, ids = torch.from_numpy(scenes.pictures), torch.from_numpy(scenes.ids)

    def loss_of(generator: torch.Generator, step: int) -> tuple[Tensor, Mapping[str, float]]:
        pair = torch.randint(len(pictures) // 2, (PAIRS,), generator=generator)
        index = torch.cat([2 * pair, 2 * pair + 1])
        which = torch.randint(CAPTIONS, (len(index),), generator=generator)
        pixels = pictures[index].permute(0, 3, 1, 2).float() / 255
        tokens = ids[index, which]
        tokens = tokens[:, : int((tokens != pad).sum(1).max()) + 1]
        with precision.autocast(torch.device("cpu")):
            image, text, who = model(pixels, tokens)
        words = (
            contrast(image[:PAIRS], text[:PAIRS], model.clip.logit_scale)
            + contrast(image[PAIRS:], text[PAIRS:], model.clip.logit_scale)
        ) / 2
        people = contrast(who[:PAIRS], who[PAIRS:], model.identity_scale)
        return words + people, {"words": words.item(), "identity": people.item()}

    def check() -> dict[str, float]:
        some = torch.arange(600)
        pixels = torch.from_numpy(held_out.pictures[:600]).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad(), precision.autocast(torch.device("cpu")):
            image, text, who = model(pixels, torch.from_numpy(held_out.ids[:600, 0]))
        match = (image @ text.T).argmax(1).eq(some).float().mean()
        near = who @ who.T - 2 * torch.eye(600)
        pair = near.argmax(1).eq(some ^ 1).float().mean()
        return {"held_out_words_top1": match.item(), "held_out_identity_top1": pair.item()}

    train(model, loss_of, schedule=schedule, folder=folder, seed=1, check=check)
    return model
