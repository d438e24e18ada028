"""What a training and a drawing step cost on real shapes, beside diffusers' own loop.

    pip install peft
    python perf/families.py sdxl sd35-medium klein-4b z-image

Random weights in bf16, no text encoders, no autoencoder: a denoiser of the published configuration,
prompts' states of the right shape, one picture. The peer is the inner loop of diffusers' DreamBooth
LoRA scripts written out (PEFT adapter in fp32 on the same layers, autocast, logit-normal times,
clipped gradient, AdamW); of a fused layer it trains the whole, ours keys and values. Ours is the
product's own step. Rounds take turns in one process, so that what else the machine does falls on
all; a ratio is of two neighbours in one round, and the median, least and largest over the rounds
are printed. Memory is the process's own while the rounds run (on a GPU torch's peak), the weights
included; "drawing" is one call of the denoiser, stock and with a gated concept live. A case in
whose way memory stands is left out by name (--without).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from diffusers.training_utils import (
    compute_density_for_timestep_sampling,
    compute_loss_weighting_for_sd3,
)
from torch import Tensor, nn

from perdure.adapters import PromptDelta, Prompts, Token, outputs
from perdure.adapters.prompts import STATE
from perdure.hosts.diffusion.conditioning import Conditioning
from perdure.hosts.diffusion.families import FAMILIES
from perdure.hosts.diffusion.family import KEYS_VALUES
from perdure.hosts.frozen import Frozen, Layer, acting, adding
from perdure.learning.latents import Latents
from perdure.learning.loop import Step
from perdure.learning.settings import LearnSettings
from perdure.methods import Kept, Method, build

RANK, PLACE = 16, 5


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A published configuration, what its prompts are, and where its latents lie."""

    pipeline: str
    denoiser: str
    config: Mapping[str, Any]
    scheduler: Any
    states: tuple[int, int]
    """Positions and width."""
    channels: int
    factor: int
    """Pixels to a latent."""
    beside: Mapping[str, Any]


SHAPES = {
    "sdxl": Shape(
        pipeline="StableDiffusionXLPipeline",
        denoiser="UNet2DConditionModel",
        config={
            "sample_size": 128,
            "cross_attention_dim": 2048,
            "attention_head_dim": [5, 10, 20],
            "block_out_channels": [320, 640, 1280],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "transformer_layers_per_block": [1, 2, 10],
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        scheduler=lambda: diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear"),
        states=(77, 2048),
        channels=4,
        factor=8,
        beside={"pooled_prompt_embeds": (1280,)},
    ),
    "sd35-medium": Shape(
        pipeline="StableDiffusion3Pipeline",
        denoiser="SD3Transformer2DModel",
        config={
            "sample_size": 128,
            "num_layers": 24,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "caption_projection_dim": 1536,
            "pooled_projection_dim": 2048,
            "pos_embed_max_size": 384,
            "in_channels": 16,
            "out_channels": 16,
            "qk_norm": "rms_norm",
            "dual_attention_layers": tuple(range(13)),
        },
        scheduler=lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        states=(333, 4096),
        channels=16,
        factor=8,
        beside={"pooled_prompt_embeds": (2048,)},
    ),
    "klein-4b": Shape(
        pipeline="Flux2KleinPipeline",
        denoiser="Flux2Transformer2DModel",
        config={
            "num_layers": 5,
            "num_single_layers": 20,
            "num_attention_heads": 24,
            "joint_attention_dim": 7680,
            "guidance_embeds": False,
        },
        scheduler=lambda: diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        states=(512, 7680),
        channels=128,
        factor=16,
        beside={},
    ),
    "z-image": Shape(
        pipeline="ZImagePipeline",
        denoiser="ZImageTransformer2DModel",
        config={},
        scheduler=lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0),
        states=(32, 2560),
        channels=16,
        factor=8,
        beside={"lengths": 32},
    ),
}


class Bare(Frozen):
    """A denoiser of real shapes as a host: what a step asks of a base, and of its session."""

    def __init__(self, shape: Shape, size: int, device: torch.device) -> None:
        super().__init__()
        self.shape, self.size, self.device = shape, (size, size), device
        self.family = next(f for f in FAMILIES if shape.pipeline in f.pipelines)
        with torch.device("meta"):
            denoiser = getattr(diffusers, shape.denoiser)(**shape.config)
        denoiser = filled(denoiser.to(torch.bfloat16).to_empty(device=device))
        parts = {name: None for name in (*self.family.encoders, *self.family.encoders.values())}
        kind = getattr(diffusers, shape.pipeline)
        self.pipeline = kind(
            **{self.family.component: denoiser, "scheduler": shape.scheduler(), "vae": None},
            **parts,
        )
        self.pipeline.vae_scale_factor = 8
        self.pipeline.text_encoder_2 = SimpleNamespace(config=SimpleNamespace(projection_dim=1280))
        self.base, self.generator = self, torch.Generator().manual_seed(0)
        self.tokens = SimpleNamespace(token=lambda kind, rows, scale: Token({STATE: rows * scale}))
        self.state_scale = 1.0
        self.objective = self.family.objective(self.pipeline, self.size)
        self.aim(KEYS_VALUES)
        self.states = torch.randn(1, *shape.states, generator=self.generator).to(device)
        self.beside = {
            name: torch.tensor([of]) if isinstance(of, int) else torch.randn(1, *of).to(device)
            for name, of in shape.beside.items()
        }

    def named(self, targets: str) -> Mapping[str, Layer]:
        return self.family.layers(self.pipeline, targets)

    @property
    def fast_bf16(self) -> bool:
        return False  # the weights are in bf16 themselves

    def fitting(self, size: Any) -> tuple[int, int]:
        return self.size

    def objective_at(self, size: Any) -> Any:
        return self.objective

    def conditioning(self, prompts: Any, tokens: Mapping[str, Token] | None = None) -> Conditioning:
        states = self.states.clone()
        for token in (tokens or {}).values():
            states[0, PLACE] = token.parts[STATE][0]
        features = self.family.features(self.pipeline, states)
        said = ((("x", PLACE),),)
        return Conditioning(
            states=states,
            beside=self.beside,
            prompts=Prompts(features, said, (PLACE + 4,)),
            by_layer=features[None],
        )

    def predict(self, noised: Tensor, t: Tensor, said: Conditioning, size: Any) -> Tensor:
        self.text = self.family.text(self.pipeline, said.states.shape[1], size)
        return self.family.predict(self.pipeline, noised, t.to(noised.device), said, size)

    def latents(self) -> Tensor:
        side = self.size[0] // self.shape.factor
        return torch.randn(1, self.shape.channels, side, side, generator=self.generator)


@torch.no_grad()
def filled(model: nn.Module) -> nn.Module:
    """Small random weights; norms that are the identity."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.uniform_(-0.02, 0.02)
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point():
            buffer.zero_() if "running" not in name else buffer.fill_(1.0)
    return model.requires_grad_(False).eval()


def learned(host: Bare, concept: str) -> Kept:
    """A concept of random factors."""
    tensors = {}
    for name, (d_out, d_in) in host.shapes.items():
        for part, shape in (("A", (d_out, RANK)), ("B", (RANK, d_in))):
            tensors[f"{name}/{part}"] = 1e-3 * torch.randn(*shape, generator=host.generator)
    return Kept(concepts=(concept,), tensors=tensors)


def ours(host: Bare, method: Method, past: list[Kept]) -> tuple[Callable[[], None], Any]:
    """The product's own step, and a block in which its deltas are there."""
    rows = {"x": torch.randn(1, host.shape.states[1], generator=host.generator)}
    learner = method.start(host.shapes, past, rows, host.generator).to(host.device).train()
    mean = host.latents().to(host.device)
    latents = {"x": Latents(mean=mean, std=torch.zeros_like(mean))}
    settings = LearnSettings(batch_size=1, token=STATE)
    step = Step(host, learner, latents, settings, None, {})  # type: ignore[arg-type]
    groups = learner.groups()
    optimizer = torch.optim.AdamW(
        [{"params": groups["deltas"], "lr": 1e-4}, {"params": groups["tokens"], "lr": 1e-3}]
    )
    count = iter(range(10**6))

    def once() -> None:
        optimizer.zero_grad(set_to_none=True)
        step.gradients(next(count))
        optimizer.step()

    @contextmanager
    def there() -> Iterator[None]:
        host.fold(method.past(past))
        with host.attached(learner.layer_deltas()):
            yield
        host.fold({})

    return once, there


def peer(host: Bare) -> tuple[Callable[[], None], Any]:
    """The inner loop of diffusers' scripts, with a PEFT adapter on the same layers."""
    from peft import LoraConfig

    denoiser = host.family.denoiser(host.pipeline)
    modules = {id(layer.module) for layer in host.layers.values()}
    names = [name for name, module in denoiser.named_modules() if id(module) in modules]
    state: dict[str, Any] = {}

    @contextmanager
    def there() -> Iterator[None]:
        denoiser.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=names))
        own = [p for p in denoiser.parameters() if p.requires_grad]
        for parameter in own:
            parameter.data = parameter.data.float()
        state.update(own=own, optimizer=torch.optim.AdamW(own, lr=1e-4))
        yield
        state.clear()
        denoiser.unload_lora()
        denoiser.requires_grad_(False)

    x, said = host.latents().to(host.device), host.conditioning(["x"])

    def once() -> None:
        noise = torch.randn_like(x)
        if host.objective.prediction == "flow":
            u = compute_density_for_timestep_sampling("logit_normal", 1, logit_mean=0, logit_std=1)
            t = u * 1000
            weight = compute_loss_weighting_for_sd3("none", sigmas=u)
        else:
            t, weight = torch.randint(1000, (1,)), torch.ones(1)
        noised = host.objective.noised(x, noise, t)
        with torch.autocast(host.device.type, torch.bfloat16):
            pred = host.predict(noised, t, said, host.size)
        error = (pred.float() - host.objective.target(x, noise, t)).square()
        loss = (weight.to(error).view(-1, 1, 1, 1) * error).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(state["own"], 1.0)
        state["optimizer"].step()
        state["optimizer"].zero_grad()

    return once, there


def returned() -> None:
    """Give back what the last case held, so that the next one's peak is its own."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class Peak:
    """The most memory that the process holds while a block runs, in bytes."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.most = device, 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        if self.device.type != "cpu":
            torch.accelerator.reset_peak_memory_stats()
            yield
            self.most = max(self.most, torch.accelerator.max_memory_allocated())
            return
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.05):
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                self.most = max(self.most, pages * 4096)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def timed(once: Callable[[], None], device: torch.device) -> float:
    began = time.perf_counter()
    once()
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - began


def spread(values: list[float]) -> list[float]:
    return [round(v, 3) for v in (statistics.median(values), min(values), max(values))]


def training(host: Bare, rounds: int, steps: int, without: list[str]) -> dict[str, Any]:
    past = [learned(host, "old")]
    rows: dict[str, Any] = {
        "diffusers": lambda: peer(host),
        "gated": lambda: ours(host, build("gated", rank=RANK), []),
        "c-lora": lambda: ours(host, build("c-lora", rank=RANK), past),
    }
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    peaks = {name: Peak(host.device) for name in rows}
    failed = dict.fromkeys(without, "left out")
    for turn in range(rounds):
        for name, make in list(rows.items())[:: 1 if turn % 2 == 0 else -1]:
            if name in failed:
                continue
            returned()
            try:
                once, there = make()
                with there(), peaks[name].watching():
                    timed(once, host.device)  # warm
                    seconds[name].append(
                        statistics.median(timed(once, host.device) for _ in range(steps))
                    )
                del once, there
            except (RuntimeError, MemoryError) as error:
                failed[name] = str(error).splitlines()[0]
    against = seconds["diffusers"]
    out: dict[str, Any] = {}
    for name in rows:
        if name in failed:
            out[name] = failed[name]
            continue
        ratios = [a / b for a, b in zip(seconds[name], against, strict=False)]
        out[name] = {
            "seconds": spread(seconds[name]),
            "ratio": spread(ratios) if ratios and name != "diffusers" else None,
            "peak_GB": round(peaks[name].most / 1e9, 2),
        }
    return out


@torch.no_grad()
def drawing(host: Bare, rounds: int) -> dict[str, Any]:
    """One call of the denoiser, stock and with a gated concept, alternately."""
    method, kept = build("gated", rank=RANK), [learned(host, "x")]
    said, x = host.conditioning(["x"]), host.latents().to(host.device)
    t = torch.tensor([500.0])
    deltas = method.in_prompts(kept, said.prompts)
    prompt = {name for name, layer in host.layers.items() if layer.reads == "prompt"}
    once_a_prompt = [
        PromptDelta({n: f for n, f in delta.factors.items() if n in prompt}, delta.gate)
        for delta in deltas
    ]
    live = [
        PromptDelta({n: f for n, f in delta.factors.items() if n not in prompt}, delta.gate)
        for delta in deltas
    ]
    added = {
        name: extra.to(torch.bfloat16)
        for name, extra in outputs(once_a_prompt, said.prompts.states).items()
    }

    def every(rows: int) -> slice:
        return slice(0, rows)

    def call() -> None:
        host.predict(x, t, said, host.size)

    stock, gated = [], []
    for turn in range(rounds + 1):
        for which in (stock, gated) if turn % 2 == 0 else (gated, stock):
            if which is stock:
                which.append(timed(call, host.device))
            else:
                with (
                    adding(host.layers, added, every),
                    acting(host.layers, live, every, lambda: host.text),
                ):
                    which.append(timed(call, host.device))
    stock, gated = stock[1:], gated[1:]
    ratios = [a / b for a, b in zip(gated, stock, strict=True)]
    return {"stock": spread(stock), "gated": spread(gated), "ratio": spread(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", choices=[*SHAPES, []], default=list(SHAPES))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1, help="timed steps a round")
    parser.add_argument("--without", nargs="*", default=[], help="cases of training to leave out")
    parser.add_argument("--draws", type=int, default=5, help="rounds of drawing")
    options = parser.parse_args()
    torch.manual_seed(0)
    gpu = torch.accelerator.is_available()
    device = torch.accelerator.current_accelerator() if gpu else torch.device("cpu")
    assert device is not None
    for name in options.families:
        began = time.perf_counter()
        host = Bare(SHAPES[name], options.size, device)
        row = {
            "family": name,
            "size": options.size,
            "device": str(device),
            "layers": len(host.layers),
            "drawing": drawing(host, options.draws),
            "training": training(host, options.rounds, options.steps, options.without),
            "minutes": round((time.perf_counter() - began) / 60, 1),
        }
        print(json.dumps(row), flush=True)
        del host


if __name__ == "__main__":
    main()
