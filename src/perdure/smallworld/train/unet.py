"""Stage 3: the U-Net on cached latents, v-prediction, zero terminal SNR, min-SNR weighting."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel

from perdure import precision
from perdure.smallworld.train.data import CAPTIONS, Scenes
from perdure.smallworld.train.loop import Schedule, leads, train
from perdure.smallworld.train.names import NAMES, Names
from perdure.smallworld.train.vae import LATENT_CHANNELS
from perdure.smallworld.train.vocabulary import CONTEXT, make_tokenizer

__all__ = ["cache_latents", "make_scheduler", "make_unet", "train_unet"]

BATCH = 32
CROSS = 384
"""Width of the text encoder's states."""
EMPTY = 0.1
"""Share of captions that are left out, for classifier-free guidance."""
PEOPLE = 0.5
"""Share of the batch that is taken from portraits alone: faces are the hardest to draw."""
NAMED = 0.8
"""Share of captions that have names for their subjects."""
SNR_CAP = 5.0


def make_unet() -> UNet2DConditionModel:
    """The untrained U-Net: 11.7 M parameters; at 16 x 16 it attends on the way up only."""
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 128, 192),
        norm_num_groups=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        layers_per_block=1,
        cross_attention_dim=CROSS,
        attention_head_dim=(4, 8, 8),  # numbers of heads, in spite of the name
    )
    unet.set_attn_processor(AttnProcessor())  # faster than sdpa on a CPU with small heads
    return unet


def make_scheduler() -> DDIMScheduler:
    """Stable Diffusion's schedule with zero terminal SNR (arXiv 2305.08891), v-prediction."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


def cache_latents(vae: AutoencoderKL, scenes: Scenes, path: Path, count: int) -> dict[str, Tensor]:
    """Mean and deviation of each latent (fp16, (N, C, 16, 16)) of the first ``count`` pictures.

    Where several processes train, the first one encodes and the others wait.
    """
    if leads() and not path.exists():
        save_file(_encode(vae, torch.from_numpy(scenes.pictures)[:count]), path)
    if dist.is_initialized():
        dist.barrier()
    return load_file(path)


def _encode(vae: AutoencoderKL, pictures: Tensor) -> dict[str, Tensor]:
    means, deviations = [], []
    with torch.no_grad(), precision.autocast(torch.device("cpu")):
        for batch in pictures.split(100):
            x = batch.permute(0, 3, 1, 2).float() / 127.5 - 1
            posterior = vae.encode(x).latent_dist
            means.append(posterior.mean.half())
            deviations.append(posterior.std.half())
    return {"mean": torch.cat(means).contiguous(), "std": torch.cat(deviations).contiguous()}


def train_unet(
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    scenes: Scenes,
    folder: Path,
    schedule: Schedule,
    count: int = 120_000,
    start: UNet2DConditionModel | None = None,
    seed: int = 3,
) -> UNet2DConditionModel:
    """Train and return the U-Net; ``vae`` yields latents of mean 0 and deviation 1 a channel.

    ``start`` is trained further instead of a fresh one; give it another ``seed``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    latents = cache_latents(vae, scenes, folder / "latents.safetensors", count)
    torch.manual_seed(0)
    unet = make_unet() if start is None else start
    ids = torch.from_numpy(scenes.ids)
    people = torch.from_numpy(scenes.people[: len(latents["mean"])]).nonzero()[:, 0]
    tokenizer = make_tokenizer()
    empty = torch.tensor(tokenizer("", padding="max_length", max_length=CONTEXT)["input_ids"])
    alphas = make_scheduler().alphas_cumprod
    text_encoder.requires_grad_(False)
    named, codes = torch.from_numpy(scenes.named), torch.from_numpy(scenes.codes)
    places = tuple(tokenizer.convert_tokens_to_ids(f"{name}</w>") for name in NAMES)
    modules = dict(text_encoder.named_modules())
    norm = next(modules[name] for name in modules if name.endswith("final_layer_norm"))
    names = Names(CROSS, norm, places)

    def loss_of(generator: torch.Generator, step: int) -> tuple[Tensor, Mapping[str, float]]:
        index = torch.randint(len(latents["mean"]), (BATCH,), generator=generator)
        person = people[torch.randint(len(people), (BATCH,), generator=generator)]
        index = torch.where(torch.rand(BATCH, generator=generator) < PEOPLE, person, index)
        which = torch.randint(CAPTIONS, (BATCH,), generator=generator)
        drop = torch.rand(BATCH, generator=generator) < EMPTY
        by_name = torch.rand(BATCH, generator=generator) < NAMED
        tokens = torch.where(by_name[:, None], named[index], ids[index, which])
        tokens = torch.where(drop[:, None], empty, tokens)
        mean, std = latents["mean"][index].float(), latents["std"][index].float()
        x = mean + std * torch.randn(mean.shape, generator=generator)
        noise = torch.randn(mean.shape, generator=generator)
        t = torch.randint(1000, (BATCH,), generator=generator)
        a = alphas[t].sqrt()[:, None, None, None]
        s = (1 - alphas[t]).sqrt()[:, None, None, None]
        with precision.autocast(torch.device("cpu")):
            with torch.no_grad():
                states = text_encoder(tokens).last_hidden_state
            states = names(states, tokens, codes[index].float())
            v = unet(a * x + s * noise, t, states).sample
        error = (v.float() - (a * noise - s * x)).square().mean(dim=(1, 2, 3))
        snr = alphas[t] / (1 - alphas[t])
        weight = snr.clamp(max=SNR_CAP) / (snr + 1)  # min-SNR for v (arXiv 2303.09556)
        weight = weight + 0.25  # keeps a share at pure noise, where layout is decided
        told = {"v_mse": error.mean().item(), "named": error[by_name].mean().item()}
        return (weight * error).mean(), told

    trained = nn.ModuleDict({"unet": unet, "names": names})
    train(trained, loss_of, schedule=schedule, folder=folder, seed=seed)
    return unet
