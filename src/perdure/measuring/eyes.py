"""EfficientNet-lite0's first half: what a network sees that learned from photographs alone.

Tan and Le (2019), EfficientNet, table 1, without squeeze and excitation, with ReLU6; trained on
ImageNet by its authors (Apache 2.0). Batch norms are folded into the convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["WIDTH", "Eyes", "pixels_of"]

SIDE = 128
"""Pictures are scaled to this many pixels a side."""
GRID = 4
"""The last block's map is averaged over this many cells a side."""

# kernel, stride, expansion, width, blocks
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
)
_STEM = 32
WIDTH = GRID * GRID * _STAGES[-1][3]
"""Of the features."""


class _Convolution(nn.Conv2d):
    """Padded as TensorFlow pads ("same"): a further row at the far end where it is uneven."""

    def forward(self, input: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads = []
        for side in (input.shape[3], input.shape[2]):
            whole = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [whole // 2, whole - whole // 2]
        return super().forward(F.pad(input, pads))


class _Block(nn.Module):
    """An inverted bottleneck (Sandler et al. 2018, MobileNetV2)."""

    def __init__(self, before: int, width: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        self.expand = _Convolution(before, inner, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _Convolution(inner, inner, kernel, stride=stride, groups=inner)
        self.project = _Convolution(inner, width, 1)
        self.expands, self.adds = expansion > 1, stride == 1 and before == width

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu6(self.expand(x)) if self.expands else x
        y: Tensor = self.project(F.relu6(self.depthwise(inner)))
        return x + y if self.adds else y


class Eyes(nn.Module):
    """Pixels (N, 3, 128, 128) in -1 to 1 to features (N, 1280): of each of 4 x 4 cells the mean of
    block 8's 80 channels, of length 1, cell by cell."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Convolution(3, _STEM, 3, stride=2)
        blocks, before = [], _STEM
        for kernel, stride, expansion, width, count in _STAGES:
            for number in range(count):
                blocks.append(_Block(before, width, kernel, 1 if number else stride, expansion))
                before = width
        self.blocks = nn.Sequential(*blocks)

    @classmethod
    def load(cls, path: Path) -> Eyes:
        """From a safetensors file; computed in fp32."""
        network = cls()
        network.load_state_dict({name: w.float() for name, w in load_file(path).items()})
        return network.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.stem.weight.device

    def forward(self, pixels: Tensor) -> Tensor:
        seen = self.blocks(F.relu6(self.stem(pixels)))
        return F.normalize(F.adaptive_avg_pool2d(seen, GRID), dim=1).flatten(1)


def pixels_of(images: Sequence[Image.Image]) -> Tensor:
    """RGB pictures to (N, 3, 128, 128), scaled as the network was trained on them."""
    scaled = [image.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for image in images]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in scaled]))
    return (pixels.permute(0, 3, 1, 2).float() - 127) / 128
