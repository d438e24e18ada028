"""Small models and pictures that the tests make."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
)

from perdure import precision
from perdure.smallworld.train.vocabulary import make_tokenizer

PHOTOS = Path(__file__).parents[2] / "shared" / "photos"


def make_pipeline(folder: Path, *, prediction: str = "epsilon", seed: int = 0) -> Path:
    """A tiny random Stable Diffusion folder: 32 x 32 pictures, 8 x 8 latents."""
    torch.manual_seed(seed)
    tokenizer: CLIPTokenizer = make_tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=24,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=32,
        attention_head_dim=2,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=32,
        mid_block_add_attention=False,
    )
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        clip_sample=False,
        timestep_spacing="trailing",
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        "projection_dim": 24,
    }
    clip = CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision, projection_dim=24)
    )
    encoder = folder / "encoder"
    clip.save_pretrained(encoder)
    tokenizer.save_pretrained(encoder)
    CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(encoder)
    hints = {"encoder": "encoder", "learning": {"batch_size": 2}, "drawing": {"steps": 2}}
    (folder / "perdure.json").write_text(json.dumps(hints))
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny folder, made once; nothing may write into it."""
    return make_pipeline(tmp_path_factory.mktemp("bases") / "tiny")


@pytest.fixture(scope="session")
def tiny_v(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one, of v-prediction and other weights."""
    return make_pipeline(
        tmp_path_factory.mktemp("bases") / "tiny-v", prediction="v_prediction", seed=1
    )


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `ada`, `bo` and `cy` with three small pictures each."""
    return make_drawings(tmp_path_factory.mktemp("drawings"))


def make_drawings(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for name in ("ada", "bo", "cy"):
        (folder / name).mkdir()
        for k in range(3):
            pixels = np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((5, 5, 1))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{k}.png")
    return folder


@pytest.fixture
def fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bf16, also where the hardware is good at it: for values that are compared closely."""
    monkeypatch.setattr(precision, "fast_bf16", lambda device: False)
