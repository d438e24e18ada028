"""The parts of smallworld-flow: an SD 3 transformer, two small CLIP text encoders, a scheduler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
)
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from perdure.quiet import StableDiffusion3Pipeline
from perdure.smallworld.flow.forward import block_forward, predict
from perdure.smallworld.flow.scenes import AUTOENCODER
from perdure.smallworld.flow.speech import tokenizer
from perdure.smallworld.train.vae import LATENT_CHANNELS
from perdure.smallworld.train.vocabulary import CONTEXT

__all__ = ["ZERO_ROWS", "FlowModel", "make_pipeline"]

WIDTH, LAYERS, HEAD = 192, 8, 64
ENCODERS = ((256, 3), (128, 2))
"""Width and layers of each text encoder; the pipeline reads the last layer but one."""
ZERO_ROWS = 256
"""Rows of zeros that the stock pipeline appends in the place of a third text encoder."""
SHIFT = 2.0


def _make_encoder(width: int, layers: int) -> CLIPTextModelWithProjection:
    words = tokenizer()
    encoder = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            max_position_embeddings=CONTEXT,
            projection_dim=width,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )
    encoder.set_attn_implementation("eager")
    nn.init.normal_(encoder.get_input_embeddings().weight, std=0.05)
    return encoder


def _silent_encoder(width: int) -> T5EncoderModel:
    """A third text encoder that says rows of zeros: its last norm has weight 0.

    The pipeline's loader asks for one; without it (None) the pipeline appends the same zeros.
    """
    config = T5Config(
        vocab_size=3, d_model=width, d_kv=1, d_ff=1, num_layers=1, num_heads=1, pad_token_id=0
    )
    encoder = T5EncoderModel(config)
    nn.init.zeros_(encoder.encoder.final_layer_norm.weight)
    return encoder


def _make_transformer() -> SD3Transformer2DModel:
    """Blocks start as the identity and the output as zero (arXiv 2212.09748, section 3.2)."""
    width = sum(width for width, _ in ENCODERS)
    model = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=LAYERS,
        attention_head_dim=HEAD,
        num_attention_heads=WIDTH // HEAD,
        joint_attention_dim=width,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=width,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
    )
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.ndim == 2:
            nn.init.xavier_uniform_(parameter)
    nn.init.normal_(model.context_embedder.bias, std=0.02)  # a row of zeros is a row like others
    still = [model.proj_out, model.norm_out.linear]
    for block in model.transformer_blocks:
        still += [block.norm1.linear, block.norm1_context.linear]
    for layer in still:
        nn.init.zeros_(layer.weight)
    return model


class FlowModel(nn.Module):
    """Everything that is trained: the transformer and both text encoders."""

    def __init__(
        self, pass_block: Callable[..., tuple[Tensor, Tensor | None]] = block_forward
    ) -> None:
        super().__init__()
        self.transformer = _make_transformer()
        self.text_encoder = _make_encoder(*ENCODERS[0])
        self.text_encoder_2 = _make_encoder(*ENCODERS[1])
        self.pass_block = pass_block

    def read(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """States (N, P, both widths) and pooled vectors (N, both widths) of token ids (N, P)."""
        told = [
            encoder(ids, output_hidden_states=True)
            for encoder in (self.text_encoder, self.text_encoder_2)
        ]
        states = torch.cat([out.hidden_states[-2] for out in told], dim=-1)
        return states, torch.cat([out.text_embeds for out in told], dim=-1)

    def forward(self, latents: Tensor, ids: Tensor, times: Tensor, zeros: Tensor) -> Tensor:
        """The velocity, noise minus picture, of noised ``latents`` (N, 8, 16, 16), in fp32.

        ``times`` (N,) in 0..1000, ``zeros`` (N,): how many rows of zeros follow the prompt.
        """
        states, pooled = self.read(ids)
        return predict(self.transformer, latents, states, pooled, times, zeros, self.pass_block)


def make_pipeline(model: FlowModel, autoencoder: Path = AUTOENCODER) -> StableDiffusion3Pipeline:
    """The stock pipeline around ``model``, which it shares."""
    vae = AutoencoderKL.from_pretrained(autoencoder, dtype=torch.float32)
    vae.register_to_config(shift_factor=0.0)  # the pipeline adds one
    return StableDiffusion3Pipeline(
        transformer=model.transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT),
        vae=vae,
        text_encoder=model.text_encoder,
        tokenizer=tokenizer(),
        text_encoder_2=model.text_encoder_2,
        tokenizer_2=tokenizer(),
        text_encoder_3=_silent_encoder(sum(width for width, _ in ENCODERS)),
        tokenizer_3=T5Tokenizer(extra_ids=0, vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]),
    )
