"""The recipe of a tower for 64 x 64 photographs: smallworld's own, trained on a tree of classes.

    python -m perdure.classification.pretrain --data pretrain-100.zip --work DIR --steps N

goes on where it was stopped, also with other steps, and ends with `DIR/tower`: a folder that
`--backbone` takes, in fp16, with its recipe. Labels are smoothed, two pictures are mixed (mixup,
arXiv 1710.09412), the weights are averaged. The head is thrown away.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from perdure.classification.labelled import Split
from perdure.classification.streams import open_stream
from perdure.durable import sync_file, sync_folder
from perdure.hosts.vision.backbone import EMBEDDED, SMALLWORLD, Backbone
from perdure.smallworld.train.loop import Schedule, train

__all__ = ["Pretraining", "pretrain"]

BATCH = 128
SMOOTHING = 0.1
CROP = 0.25
LR = 1e-3
CHECKED = 1000
"""Test pictures that the accuracy along the way is measured on."""


class Pretraining(nn.Module):
    """The tower, and a linear head over the classes."""

    def __init__(self, classes: int, *, device: str) -> None:
        super().__init__()
        self.backbone = Backbone.open(SMALLWORLD, device=device)
        self.tower = self.backbone.tower.requires_grad_(True)
        self.head = nn.Linear(self.backbone.width, classes, device=device)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (N, classes), fp32, of pixels (N, 3, 64, 64)."""
        logits: Tensor = self.head(self.backbone.features(pixels))
        return logits


def pretrain(data: Path, work: Path, *, steps: int, seed: int = 0, device: str = "cpu") -> Path:
    """Train on ``data`` for ``steps`` in all; returns the folder of the tower.

    ``work`` gets a checkpoint, `log.jsonl` and the tower. PerdureError where the data is broken.
    """
    stream = open_stream("folders", data)
    torch.manual_seed(seed)
    model = Pretraining(len(stream.classes), device=device)
    scheme, start = model.backbone.preprocessing, model.backbone.hash

    def loss_of(generator: torch.Generator, step: int) -> tuple[Tensor, Mapping[str, float]]:
        index = torch.randint(len(stream.train.pictures), (BATCH,), generator=generator)
        some = [stream.train.pictures[i] for i in index.tolist()]
        pixels = scheme.augmented(some, generator, crop=CROP, flip=True)
        share = 0.5 + 0.5 * torch.rand(BATCH, generator=generator)
        other = torch.randperm(BATCH, generator=generator)
        labels = torch.from_numpy(stream.train.labels)[index]
        mix = share[:, None, None, None]
        logits = model(mix * pixels + (1 - mix) * pixels[other])
        share, labels = share.to(logits.device), labels.to(logits.device)

        def cross_entropy(targets: Tensor) -> Tensor:
            return F.cross_entropy(logits, targets, reduction="none", label_smoothing=SMOOTHING)

        mixed = share * cross_entropy(labels) + (1 - share) * cross_entropy(labels[other])
        return mixed.mean(), {}

    def check() -> Mapping[str, float]:
        return {"accuracy": _accuracy(model, stream.test, CHECKED)}

    schedule = Schedule(
        steps=steps, lr=LR, decay=0.3, warmup=min(500, steps), weight_decay=0.05, ema=0.999
    )
    train(model, loss_of, schedule=schedule, folder=work, seed=seed, check=check)
    facts = {
        "command": f"python -m perdure.classification.pretrain --steps {steps} --seed {seed}",
        "data": {"name": data.name, "sha256": _sha256(data), "classes": list(stream.classes)},
        "start": {"name": SMALLWORLD, "hash": start},
        "pictures": len(stream.train.pictures),
        "batch": BATCH,
        "steps": steps,
        "lr": LR,
        "parameters": sum(p.numel() for p in model.tower.parameters()),
        "test_accuracy": _accuracy(model, stream.test, len(stream.test.pictures)),
    }
    return _write(model, facts, work / "tower")


@torch.no_grad()
def _accuracy(model: Pretraining, test: Split, count: int) -> float:
    """Share of right answers on ``count`` test pictures, spread evenly."""
    chosen = torch.linspace(0, len(test.labels) - 1, min(count, len(test.labels))).long().tolist()
    model.eval()
    scheme, right = model.backbone.preprocessing, 0
    for start in range(0, len(chosen), 256):
        own = chosen[start : start + 256]
        said = model(scheme.plain([test.pictures[i] for i in own])).argmax(dim=1)
        right += int((said.cpu() == torch.from_numpy(test.labels[own])).sum())
    model.train()
    return right / len(chosen)


def _write(model: Pretraining, facts: Mapping[str, object], folder: Path) -> Path:
    """The tower in fp16, as transformers reads it, its preprocessing and its recipe; put whole."""
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    tower = model.tower.half()
    assert isinstance(tower, PreTrainedModel)
    tower.save_pretrained(partial)
    shutil.copy(EMBEDDED[SMALLWORLD] / "preprocessor_config.json", partial)
    (partial / "recipe.json").write_text(json.dumps(facts, indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    for file in partial.iterdir():
        sync_file(file)
    sync_folder(partial)
    partial.replace(folder)
    sync_folder(folder.parent)
    return folder


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    print(pretrain(given.data, given.work, steps=given.steps, seed=given.seed, device=given.device))


if __name__ == "__main__":
    main()
