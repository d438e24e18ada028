"""The second judge: its network, its head, and what it tells."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from perdure.measuring.eyes import WIDTH, Eyes, pixels_of
from perdure.measuring.features import MetricEncoder
from perdure.smallworld.train.eyes import discriminant, folded


def plain(convolution, norm, x, groups=1, stride=1):
    """A convolution padded as TensorFlow pads, and its batch norm in evaluation, spelt out."""
    kernel = convolution.shape[-1]
    out = -(-x.shape[-1] // stride)
    far = max((out - 1) * stride + kernel - x.shape[-1], 0)
    x = F.pad(x, (far // 2, far - far // 2) * 2)
    x = F.conv2d(x, convolution, stride=stride, groups=groups)
    mean, variance, weight, bias = (part[:, None, None] for part in norm)
    return (x - mean) / torch.sqrt(variance + 1e-3) * weight + bias


def test_folded_batch_norms_compute_what_the_checkpoint_says():
    generator = torch.Generator().manual_seed(0)

    def norm(width):
        return [torch.rand(width, generator=generator) + 0.5 for _ in range(4)]

    kernels = {"_conv_stem": (32, 3, 3, 3), "_blocks.0._depthwise_conv": (32, 1, 3, 3)}
    kernels["_blocks.0._project_conv"] = (16, 32, 1, 1)
    norms = {"_conv_stem": "_bn0", "_blocks.0._depthwise_conv": "_blocks.0._bn1"}
    norms["_blocks.0._project_conv"] = "_blocks.0._bn2"
    checkpoint, made = {}, {}
    for name, shape in kernels.items():
        made[name] = torch.randn(shape, generator=generator) / 3, norm(shape[0])
        checkpoint[f"{name}.weight"] = made[name][0]
        parts = ("running_mean", "running_var", "weight", "bias")
        checkpoint |= {
            f"{norms[name]}.{part}": v for part, v in zip(parts, made[name][1], strict=True)
        }
    network = Eyes()
    missing, surplus = network.load_state_dict(folded(checkpoint), strict=False)
    assert not surplus and not any(name.startswith(("stem", "blocks.0.")) for name in missing)
    pixels = torch.randn(2, 3, 33, 33, generator=generator)
    x = F.relu6(plain(*made["_conv_stem"], pixels, stride=2))
    x = F.relu6(plain(*made["_blocks.0._depthwise_conv"], x, groups=32))
    x = plain(*made["_blocks.0._project_conv"], x)
    seen = network.blocks[0](F.relu6(network.stem(pixels)))
    torch.testing.assert_close(seen, x, rtol=1e-4, atol=1e-4)


def test_the_features_are_four_by_four_directions():
    network = Eyes().eval()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    with torch.no_grad():
        seen = network(pixels_of([picture, picture]))
    assert seen.shape == (2, WIDTH) and torch.equal(seen[0], seen[1])
    cells = seen[0].view(80, 16).square().sum(0)
    torch.testing.assert_close(cells, torch.ones(16))
    white = pixels_of([Image.new("RGB", (8, 8), "white")])
    assert white.shape == (1, 3, 128, 128) and white.unique().tolist() == [1.0]


def test_the_discriminant_of_two_identities_is_fishers():
    """With two classes it is the inverse scatter within them times the difference of means."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(2, 5000, 2)) @ np.array([[3.0, 1.0], [0.0, 0.5]])
    noise -= noise.mean(1, keepdims=True)
    centres = np.array([[1.0, 2.0], [-1.0, -1.0]])
    features = torch.from_numpy(noise + centres[:, None])
    weight, bias = discriminant(features, width=1, shrink=0.0)
    scatter = np.einsum("knd,kne->de", noise, noise) / 10000
    expected = np.linalg.solve(scatter, centres[0] - centres[1])
    found = weight[0].numpy()
    assert abs(found @ expected) == pytest.approx(np.linalg.norm(found) * np.linalg.norm(expected))
    assert float(found @ scatter @ found) == pytest.approx(1.0)
    middle = torch.from_numpy(centres.mean(0))
    assert float(weight[0] @ middle + bias[0]) == pytest.approx(0.0, abs=1e-9)


def test_the_judge_reads_no_texts_and_says_what_it_is():
    judge = MetricEncoder.open("smallworld-eyes")
    assert not judge.reads_texts and judge.identity_kind == "identity head"
    pictures = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    assert judge.pictures(pictures).shape == (3, WIDTH)
    assert judge.identities(pictures).shape == (3, 128)
    assert isinstance(judge.model, nn.Module) and len(judge.facts()["hash"]) == 64


def test_it_ranks_the_judged_pairs_as_they_were_seen_and_is_not_flattered_by_heaps():
    """The figures of docs/measuring.md."""
    script = Path(__file__).parents[1] / "docs" / "judged.py"
    spec = importlib.util.spec_from_file_location("judged", script)
    assert spec is not None and spec.loader is not None
    judged = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(judged)
    judge = MetricEncoder.open("smallworld-eyes")
    pairs = json.loads((judged.DATA / "pairs.json").read_text())
    found = judged.agreement(judge.identities, pairs)
    assert found["all"][1] == 102 and found["all"][0] >= 87
    assert found["other"] == [28, 28] and found["weak-other"] == [24, 24]
    reached = judged.reached(judge.identities)
    assert min(reached["person"]) > max(reached["object"])
