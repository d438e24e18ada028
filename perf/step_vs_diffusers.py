"""A step of learning beside diffusers' `train_dreambooth_lora.py`: time and memory.

    pip install peft
    python perf/step_vs_diffusers.py                                   # SD 1.5, 256 px, one picture
    python perf/step_vs_diffusers.py --size 512 --batch 4 --device cuda
    python perf/step_vs_diffusers.py --shape sdxl --size 1024 --device cuda

Random weights of the published shapes, saved as a folder that both open. Ours is `perdure.learn`
itself, in a bank that holds a concept already; the peer is the inner loop of the script (of SDXL:
of `train_dreambooth_lora_sdxl.py`) written out, with its own defaults, as it stood in diffusers'
repository at 58eb52c: PEFT adapters of rank 4 on the attentions' q, k, v and output, the picture
encoded in every step, of SD 1.5 the prompt too, gradients clipped, AdamW. "diffusers, cached" is
the same with latents and states computed once, which the script cannot do: the denoiser's part.

Every run is a process of its own and rounds take turns, so that what else the machine does falls on
all. Ratios are of one round; printed are their median and a 95 % interval of it (bootstrap over the
rounds). Memory is the process's most while steps run, weights and libraries included, on a GPU what
torch held. FLOPs are counted in one step.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from step_time import interval
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

PEER, CACHED = "diffusers", "diffusers, cached"
METHODS = ("gated", "c-lora", "feature-space", "stamina", "lora")
PROMPT = "a photo of sks dog"
SPEEDS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 FLOP/s of a card, from its maker's sheet."""

UNETS: Mapping[str, Mapping[str, Any]] = {
    "tiny": {
        "sample_size": 8,
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": 32,
        "attention_head_dim": 2,
    },
    "sd15": {"sample_size": 64, "cross_attention_dim": 768},
    "sdxl": {
        "sample_size": 128,
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
ENCODERS: Mapping[str, tuple[tuple[int, int, int], ...]] = {
    "tiny": ((32, 1, 2),),
    "sd15": ((768, 12, 12),),
    "sdxl": ((768, 12, 12), (1280, 32, 20)),
}
"""Of each text encoder width, layers and heads."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What one process runs."""

    name: str
    folder: Path
    photos: Path
    bank: Path
    size: int
    batch: int
    steps: int
    device: str
    dtype: str
    settings: Mapping[str, Any]


@dataclass
class Marks:
    """When steps end. The first one warms up, the FLOPs of the second are counted."""

    steps: int
    device: str
    ends: list[float] = field(default_factory=list)
    spent: list[float] = field(default_factory=list)
    counter: FlopCounterMode = field(default_factory=lambda: FlopCounterMode(display=False))
    peak: int = 0

    @property
    def in_all(self) -> int:
        return self.steps + 2

    def __call__(self, progress: object = None) -> None:
        if self.device != "cpu":
            torch.accelerator.synchronize()
        self.ends.append(time.perf_counter())
        self.spent.append(time.process_time())
        if len(self.ends) == 1:
            self.counter.__enter__()
        if len(self.ends) == 2:
            self.counter.__exit__(None, None, None)
            forget_peak(self.device)
        self.peak = peak(self.device)

    def row(self) -> dict[str, Any]:
        return {
            "seconds": median_gap(self.ends[1:]),
            "cpu": median_gap(self.spent[1:]),
            "peak": self.peak,
            "flops": self.counter.get_total_flops(),
        }


def median_gap(times: list[float]) -> float:
    return statistics.median(b - a for a, b in zip(times, times[1:], strict=False))


def peak(device: str) -> int:
    """Bytes: the most since `forget_peak`."""
    from perdure.machine import peak_memory

    return peak_memory(torch.device(device)) or 0


def forget_peak(device: str) -> None:
    if device != "cpu":
        torch.accelerator.reset_peak_memory_stats()
    elif (counts := Path("/proc/self/clear_refs")).exists():
        counts.write_text("5")


def save_base(folder: Path, shape: str, dtype: str) -> None:
    """A folder of random weights, in the dtype."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from perdure.smallworld.train.vocabulary import make_tokenizer

    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, dtype))
    tokenizer = make_tokenizer()
    kinds = (CLIPTextModel, CLIPTextModelWithProjection)
    encoders = [
        kind(
            CLIPTextConfig(
                vocab_size=49408,
                hidden_size=width,
                intermediate_size=4 * width,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                projection_dim=width,
                max_position_embeddings=tokenizer.model_max_length,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        for kind, (width, layers, heads) in zip(kinds, ENCODERS[shape], strict=False)
    ]
    levels = (32, 32, 32, 32) if shape == "tiny" else (128, 256, 512, 512)
    parts: dict[str, Any] = {
        "unet": diffusers.UNet2DConditionModel(**UNETS[shape]),
        "vae": diffusers.AutoencoderKL(
            block_out_channels=levels,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        ),
        "scheduler": diffusers.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
        "text_encoder": encoders[0],
        "tokenizer": tokenizer,
        "feature_extractor": None,
    }
    if len(encoders) == 2:
        parts |= {"text_encoder_2": encoders[1], "tokenizer_2": tokenizer}
        parts |= {"image_encoder": None}
        diffusers.StableDiffusionXLPipeline(**parts).save_pretrained(folder)
    else:
        parts |= {"safety_checker": None, "requires_safety_checker": False}
        diffusers.StableDiffusionPipeline(**parts).save_pretrained(folder)


def ours(case: Case, concept: str, steps: int, marks: Callable[..., None]) -> None:
    """`perdure.learn` of one concept."""
    import perdure

    base = perdure.Base.open(case.folder, device=case.device, dtype=case.dtype)
    perdure.learn(
        base,
        case.bank,
        {concept: case.photos},
        method=case.name,
        steps=steps,
        batch_size=case.batch,
        size=f"{case.size}x{case.size}",
        report=marks,
        **case.settings,
    )


def theirs(case: Case, marks: Marks) -> None:
    """The script's inner loop; `CACHED` encodes before it."""
    import diffusers
    import numpy as np
    from accelerate import Accelerator
    from peft import LoraConfig
    from PIL import Image

    accelerator = Accelerator(
        mixed_precision="bf16" if case.dtype == "bfloat16" else "no", cpu=case.device == "cpu"
    )
    pipeline = diffusers.DiffusionPipeline.from_pretrained(case.folder, dtype=torch.float32)
    unet, vae = pipeline.unet, pipeline.vae
    schedule = diffusers.DDPMScheduler.from_config(pipeline.scheduler.config)
    encoders = [pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)]
    tokenizer, xl = pipeline.tokenizer, encoders[1] is not None
    weight_dtype = getattr(torch, case.dtype)
    for module in (unet, vae, *(e for e in encoders if e is not None)):
        module.requires_grad_(False)
        module.to(accelerator.device, torch.float32 if xl and module is vae else weight_dtype)
    del pipeline
    attention = ["to_k", "to_q", "to_v", "to_out.0"]
    unet.add_adapter(
        LoraConfig(r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=attention)
    )
    own = [p for p in unet.parameters() if p.requires_grad]
    for parameter in own:
        parameter.data = parameter.data.float()
    optimizer = torch.optim.AdamW(own, lr=1e-4, weight_decay=1e-2)
    unet, optimizer = accelerator.prepare(unet, optimizer)

    ids = tokenizer(PROMPT, padding="max_length", return_tensors="pt").input_ids
    ids = ids.to(accelerator.device)

    def states() -> tuple[Any, Any]:
        if not xl:
            return encoders[0](ids, return_dict=False)[0], None
        with torch.no_grad():
            outs = [e(ids, output_hidden_states=True, return_dict=False) for e in encoders if e]
        return torch.cat([out[-1][-2] for out in outs], dim=-1), outs[1][0]

    def latents() -> torch.Tensor:
        with torch.no_grad() if xl else torch.enable_grad():
            drawn = vae.encode(pixels.to(vae.dtype)).latent_dist.sample()
        return (drawn * vae.config.scaling_factor).to(weight_dtype)

    with Image.open(sorted(case.photos.iterdir())[0]) as picture:
        small = picture.convert("RGB").resize((case.size, case.size), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.asarray(small)).permute(2, 0, 1)[None] / 127.5 - 1
    pixels = pixels.repeat(case.batch, 1, 1, 1).to(accelerator.device)
    sizes = torch.tensor([[case.size, case.size, 0, 0, case.size, case.size]])
    known = states() if xl or case.name == CACHED else None  # of SDXL the script does so too
    held = latents() if case.name == CACHED else None
    unet.train()
    for _ in range(marks.in_all):
        x = latents() if held is None else held
        noise = torch.randn_like(x)
        t = torch.randint(0, schedule.config.num_train_timesteps, (len(x),), device=x.device)
        noised = schedule.add_noise(x, noise, t)
        said, pooled = states() if known is None else known
        said = said.expand(len(x), -1, -1)
        beside = None
        if xl:
            text = pooled.expand(len(x), -1)
            beside = {"text_embeds": text, "time_ids": sizes.expand(len(x), -1).to(text)}
        predicted = unet(noised, t, said, added_cond_kwargs=beside, return_dict=False)[0]
        loss = F.mse_loss(predicted.float(), noise.float())
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(own, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # the script's progress bar shows it
        marks()


def photographed(folder: Path, size: int) -> None:
    """Two pictures of noise, at least as large as is asked for."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    for k in range(2):
        pixels = np.random.default_rng(k).integers(0, 255, (size, size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")


def in_a_process(options: argparse.Namespace, work: Path, name: str, *more: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--work", str(work), "--case", name, *more]
    for key in ("size", "batch", "steps", "device", "dtype", "shape", "option"):
        value = getattr(options, key)
        command += [f"--{key}", *(value if isinstance(value, list) else [str(value)])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def table(rounds: list[dict[str, dict[str, Any]]], device: str) -> list[dict[str, Any]]:
    """A row a case: seconds, memory, and both as ratios to the peer's."""
    card = next((s for n, s in SPEEDS.items() if device != "cpu" and n in card_name()), None)
    rows = []
    for name in rounds[0]:
        own = [of[name] for of in rounds]
        row: dict[str, Any] = {"case": name}
        seconds = statistics.median(one["seconds"] for one in own)
        row |= {"seconds": round(seconds, 4), "steps_per_second": round(1 / seconds, 3)}
        row["cpu_seconds"] = round(statistics.median(one["cpu"] for one in own), 4)
        row["peak_GB"] = round(statistics.median(one["peak"] for one in own) / 1e9, 2)
        row["TFLOP"] = round(own[0]["flops"] / 1e12, 5)
        if card:
            row["MFU"] = round(own[0]["flops"] / seconds / card, 3)
        for against in (PEER, CACHED):
            if against not in rounds[0] or name == against:
                continue
            for what in ("seconds", "cpu", "peak"):
                ratios = [of[name][what] / of[against][what] for of in rounds]
                low, high = interval(ratios)
                figures = [round(v, 3) for v in (statistics.median(ratios), low, high)]
                row[f"{what} / {against}"] = figures
        rows.append(row)
    return rows


def card_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=list(UNETS), default="sd15")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a run")
    parser.add_argument("--option", nargs="*", default=[], help="of ours, such as token=state")
    parser.add_argument("--without-cached", action="store_true")
    parser.add_argument("--work", type=Path, help="keep the weights here, for the next time")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--past", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.dtype = options.dtype or usual(options.device)
    if options.case:
        return only(options)
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        made = work / f"{options.shape}-{options.dtype}"
        if not (made / "model_index.json").exists():
            in_a_process(options, work, "base")
        shutil.rmtree(work / "photos", ignore_errors=True)
        photographed(work / "photos", options.size)
        for method in options.methods:
            shutil.rmtree(work / f"bank-{method}", ignore_errors=True)
            in_a_process(options, work, method, "--past")
        cases = [PEER, *([] if options.without_cached else [CACHED]), *options.methods]
        rounds: list[dict[str, dict[str, Any]]] = []
        for turn in range(options.rounds):
            order = cases if turn % 2 == 0 else cases[::-1]
            found = {name: in_a_process(options, work, name) for name in order}
            rounds.append({name: found[name] for name in cases})
            print(json.dumps({"round": turn, **rounds[-1]}), file=sys.stderr, flush=True)
        for row in table(rounds, options.device):
            print(json.dumps(row), flush=True)


def usual(device: str) -> str:
    """bf16 where the hardware is good at it."""
    from perdure.precision import fast_bf16

    return "bfloat16" if fast_bf16(torch.device(device)) else "float32"


def only(options: argparse.Namespace) -> None:
    """One case, in this process; prints its row."""
    folder = options.work / f"{options.shape}-{options.dtype}"
    if options.case == "base":
        save_base(folder, options.shape, options.dtype)
        return print("{}")
    kept = options.work / f"bank-{options.case}"
    with tempfile.TemporaryDirectory() as temporary:
        case = Case(
            name=options.case,
            folder=folder,
            photos=options.work / "photos",
            bank=kept if options.past else Path(temporary) / "bank",
            size=options.size,
            batch=options.batch,
            steps=options.steps,
            device=options.device,
            dtype=options.dtype,
            settings=dict(map(setting, options.option)),
        )
        if options.past:
            ours(case, "old", 1, lambda progress: None)
            return print("{}")
        marks = Marks(case.steps, case.device)
        if case.name in (PEER, CACHED):
            theirs(case, marks)
        else:
            shutil.copytree(kept, case.bank)
            ours(case, "new", marks.in_all, marks)
        print(json.dumps(marks.row()))


def setting(text: str) -> tuple[str, Any]:
    """`token=state` or `checkpointing=true`: a field of `LearnSettings` and its value."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


if __name__ == "__main__":
    main()
