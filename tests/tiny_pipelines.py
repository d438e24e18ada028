"""Tiny random folders of every family, made offline: 32 x 32 pictures, 8 x 8 latents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from conftest import make_pipeline
from diffusers import (
    AutoencoderDC,
    AutoencoderKLFlux2,
    ChromaPipeline,
    ChromaTransformer2DModel,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    Krea2Pipeline,
    Krea2Transformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tiny_parts import (
    autoencoder,
    clip,
    gemma_tokenizer,
    mistral_processor,
    of_gemma2,
    of_qwen3,
    of_t5,
    qwen_tokenizer,
    saved,
    video_autoencoder,
)
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Model,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3ForCausalLM,
    Qwen3Model,
    Qwen3VLConfig,
    Qwen3VLModel,
)

from perdure.smallworld.train.vocabulary import make_tokenizer

__all__ = [
    "FLOW",
    "GUIDED",
    "MAKERS",
    "STREAMS",
    "make_chroma",
    "make_flux",
    "make_flux2",
    "make_flux2_dev",
    "make_krea2",
    "make_lumina2",
    "make_pixart",
    "make_qwen_image",
    "make_sana",
    "make_sd3",
    "make_sdxl",
    "make_z_image",
]


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


def make_sana(folder: Path) -> Path:
    """A Gemma 2 whose states are wider than the features that the blocks read."""
    torch.manual_seed(0)
    tokenizer = gemma_tokenizer()
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=24,
        sample_size=8,
    )
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        encoder_layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        encoder_qkv_multiscales=((), (), ()),
        decoder_qkv_multiscales=((), (), ()),
        scaling_factor=0.4,
    )
    encoder = Gemma2Model(of_gemma2(24, 1, tokenizer))
    scheduler = DPMSolverMultistepScheduler(
        flow_shift=3.0, use_flow_sigmas=True, prediction_type="flow_prediction"
    )
    return saved(SanaPipeline(tokenizer, encoder, vae, transformer, scheduler), folder)


def make_pixart(folder: Path) -> Path:
    """A denoiser that also speaks of the variance, and whose folder names its class as the
    published ones do."""
    torch.manual_seed(0)
    transformer = PixArtTransformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        cross_attention_dim=16,
        caption_channels=24,
        interpolation_scale=2,
    )
    tokenizer, encoder = of_t5(24)
    pipeline = PixArtSigmaPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=autoencoder(scaling_factor=0.13),
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(),
    )
    saved(pipeline, folder)
    for file in (folder / "model_index.json", folder / "transformer" / "config.json"):
        file.write_text(file.read_text().replace("PixArtTransformer2DModel", "Transformer2DModel"))
    return folder


def make_flux(folder: Path, *, guided: bool = True) -> Path:
    """``guided``: with a guidance embedding, as dev has one and schnell none."""
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=24,
        pooled_projection_dim=16,
        guidance_embeds=guided,
        axes_dims_rope=(2, 2, 4),
    )
    tokenizer_2, encoder_2 = of_t5(24)
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=guided),
        vae=autoencoder(scaling_factor=0.4, shift_factor=0.1),
        text_encoder=clip(CLIPTextModel, 16),
        tokenizer=make_tokenizer(),
        text_encoder_2=encoder_2,
        tokenizer_2=tokenizer_2,
        transformer=transformer,
    )
    return saved(pipeline, folder)


def flux2_parts(states: int, *, guided: bool) -> dict[str, Any]:
    """Denoiser of three ``states`` side by side, autoencoder and schedule."""
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=3 * states,
        timestep_guidance_channels=16,
        mlp_ratio=2.0,
        axes_dims_rope=(2, 2, 2, 2),
        guidance_embeds=guided,
    )
    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=32,
        mid_block_add_attention=False,
    )
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2.0)
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return {"transformer": transformer, "vae": vae, "scheduler": scheduler}


def make_flux2(folder: Path, *, distilled: bool = False) -> Path:
    """A Qwen3 of 28 layers, of whose states those of layers 9, 18 and 27 are read."""
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    pipeline = Flux2KleinPipeline(
        **flux2_parts(8, guided=False),
        text_encoder=Qwen3ForCausalLM(of_qwen3(8, 28, tokenizer, spare=0)),
        tokenizer=tokenizer,
        is_distilled=distilled,
    )
    return saved(pipeline, folder)


def make_flux2_dev(folder: Path) -> Path:
    """A Mistral 3 of 31 layers, of whose states those of layers 10, 20 and 30 are read."""
    torch.manual_seed(0)
    processor = mistral_processor()
    tokenizer = processor.tokenizer
    text = {
        "model_type": "mistral",
        "vocab_size": len(tokenizer) + 8,
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 31,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "model_type": "pixtral",
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 4,
        "patch_size": 4,
        "image_size": 32,
    }
    config = Mistral3Config(
        text_config=text,
        vision_config=vision,
        image_token_index=processor.image_token_id,
        tie_word_embeddings=False,
    )
    pipeline = Flux2Pipeline(
        **flux2_parts(8, guided=True),
        text_encoder=Mistral3ForConditionalGeneration(config),
        tokenizer=processor,
    )
    return saved(pipeline, folder)


def make_z_image(folder: Path, *, shift: float = 6.0) -> Path:
    """A shift of 3 is Turbo's."""
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=24,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=3,
        n_kv_heads=3,
        cap_feat_dim=20,
        axes_dims=[2, 2, 4],
        axes_lens=[1024, 64, 64],
    )
    for module in (transformer.x_pad_token, transformer.cap_pad_token):
        torch.nn.init.normal_(module)
    pipeline = ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        vae=autoencoder(scaling_factor=0.4, shift_factor=0.1),
        text_encoder=Qwen3Model(of_qwen3(20, 2, tokenizer)),
        tokenizer=tokenizer,
        transformer=transformer,
    )
    return saved(pipeline, folder)


def make_qwen_image(folder: Path) -> Path:
    """An autoencoder of videos; of a prompt the first 34 states are dropped."""
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(2, 2, 4),
    )
    vae = video_autoencoder()
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2], "rope_type": "default"},
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": 16,
        "fullatt_block_indexes": [0],
    }
    encoder = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    )
    pipeline = QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=transformer,
    )
    return saved(pipeline, folder)


def make_chroma(folder: Path) -> Path:
    """Modulations that a small network makes of the time for all blocks at once."""
    torch.manual_seed(0)
    transformer = ChromaTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=24,
        axes_dims_rope=(2, 2, 4),
        approximator_num_channels=16,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )
    tokenizer, encoder = of_t5(24)
    pipeline = ChromaPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=autoencoder(scaling_factor=0.4, shift_factor=0.1),
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=transformer,
    )
    return saved(pipeline, folder)


def make_lumina2(folder: Path) -> Path:
    """4 x 4 latents: the pipeline's factor is 8 whatever its autoencoder is."""
    torch.manual_seed(0)
    tokenizer = gemma_tokenizer()
    transformer = Lumina2Transformer2DModel(
        sample_size=4,
        in_channels=4,
        hidden_size=24,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=(2, 2, 4),
        axes_lens=(300, 64, 64),
        cap_feat_dim=20,
    )
    pipeline = Lumina2Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=autoencoder(levels=4, scaling_factor=0.4, shift_factor=0.1),
        text_encoder=Gemma2Model(of_gemma2(20, 2, tokenizer)),
        tokenizer=tokenizer,
    )
    return saved(pipeline, folder)


def make_krea2(folder: Path, *, distilled: bool = False) -> Path:
    """States of two depths are read; norms and modulations that start as zeros are random."""
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    transformer = Krea2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        timestep_embed_dim=16,
        text_hidden_dim=16,
        num_text_layers=2,
        text_num_attention_heads=2,
        text_num_key_value_heads=1,
        text_intermediate_size=32,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(2, 2, 4),
    )
    for parameter in transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    text = {
        "vocab_size": len(tokenizer) + 8,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [2, 1, 1],
            "mrope_interleaved": True,
        },
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": 16,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    pipeline = Krea2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, max_image_seq_len=6400
        ),
        vae=video_autoencoder(),
        text_encoder=Qwen3VLModel(Qwen3VLConfig(text_config=text, vision_config=vision)),
        tokenizer=tokenizer,
        transformer=transformer,
        text_encoder_select_layers=(1, 3),
        is_distilled=distilled,
    )
    return saved(pipeline, folder)


MAKERS: dict[str, Callable[[Path], Path]] = {
    "sd": make_pipeline,
    "sdxl": make_sdxl,
    "sana": make_sana,
    "pixart": make_pixart,
    "sd3": make_sd3,
    "flux": make_flux,
    "flux2": make_flux2,
    "flux2-dev": make_flux2_dev,
    "z-image": make_z_image,
    "qwen-image": make_qwen_image,
    "chroma": make_chroma,
    "lumina2": make_lumina2,
    "krea2": make_krea2,
}
"""Every family."""
FLOW = {"sana", "sd3", "flux", "flux2", "flux2-dev", "z-image", "qwen-image", "chroma", "lumina2"}
FLOW |= {"krea2"}
"""Those that predict flow."""
STREAMS = FLOW - {"sana"}
"""Those whose text is a stream that blocks change."""
GUIDED = MAKERS.keys() - {"flux", "flux2-dev"}
"""Those that guide by a negative prompt."""
