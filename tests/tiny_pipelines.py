"""Tiny random folders of every family, made offline: 32 x 32 pictures, 8 x 8 latents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from perdure.smallworld.train.vocabulary import make_tokenizer

__all__ = ["make_sd3", "make_sdxl"]

HINTS = {"learning": {"batch_size": 2}, "drawing": {"steps": 2, "guidance": 3.0}}
SENTENCE = "a photo of a dog in the snow next to a person at night"


def make_sdxl(folder: Path, *, zeros: bool = True, **of_vae: Any) -> Path:
    """Two CLIPs whose configurations name the old, wrong end token, as the published ones do, and
    whose second tokenizer pads with an ordinary token. ``zeros`` is what an empty prompt is."""
    torch.manual_seed(0)
    second = make_tokenizer()
    second.pad_token = second.convert_ids_to_tokens(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=40,
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * 6 + 16,
        use_linear_projection=True,
    )
    pipeline = StableDiffusionXLPipeline(
        unet=unet,
        vae=autoencoder(scaling_factor=0.13, **of_vae),
        scheduler=EulerDiscreteScheduler(
            beta_schedule="scaled_linear", timestep_spacing="trailing"
        ),
        text_encoder=clip(CLIPTextModel, 16, end=2),
        tokenizer=make_tokenizer(),
        text_encoder_2=clip(CLIPTextModelWithProjection, 24, end=2),
        tokenizer_2=second,
        force_zeros_for_empty_prompt=zeros,
    )
    return saved(pipeline, folder)


def make_sd3(folder: Path, *, t5: bool = True) -> Path:
    """Two CLIPs and, where asked for, T5; one block with dual attention."""
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=40,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
        dual_attention_layers=(0,),
    )
    tokenizer_3, encoder_3 = of_t5(40) if t5 else (None, None)
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer,
        vae=autoencoder(scaling_factor=1.2, shift_factor=0.1),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=clip(CLIPTextModelWithProjection, 16),
        tokenizer=make_tokenizer(),
        text_encoder_2=clip(CLIPTextModelWithProjection, 16),
        tokenizer_2=make_tokenizer(),
        text_encoder_3=encoder_3,
        tokenizer_3=tokenizer_3,
    )
    return saved(pipeline, folder)


def clip(kind: Any, width: int, *, end: int | None = None) -> Any:
    """A CLIP text tower of one or two layers."""
    tokenizer = make_tokenizer()
    return kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=tokenizer.model_max_length,
            projection_dim=16,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id if end is None else end,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def of_t5(width: int) -> tuple[Any, Any]:
    """A Unigram tokenizer of one sentence's words and letters, and an encoder of one layer."""
    pieces = [*("▁" + word for word in sorted(set(SENTENCE.split()))), "▁"]
    pieces += sorted(set(SENTENCE) - {" "})
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(piece, -float(rank)) for rank, piece in enumerate(dict.fromkeys(pieces), 1)]
    tokenizer = T5TokenizerFast(vocab=vocabulary, extra_ids=0)
    config = T5Config(
        vocab_size=max(64, len(tokenizer)),
        d_model=width,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return tokenizer, T5EncoderModel(config)


def autoencoder(**config: Any) -> AutoencoderKL:
    """Three levels, four channels of latents."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=32,
        mid_block_add_attention=False,
        **config,
    )


def saved(pipeline: Any, folder: Path) -> Path:
    """The folder, with advice that keeps tests short."""
    pipeline.save_pretrained(folder)
    (folder / "perdure.json").write_text(json.dumps(HINTS))
    return folder
