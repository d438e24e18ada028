"""A base with quantised weights: nothing is folded into them, and everything else works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_pipeline
from PIL import Image
from tiny_pipelines import make_flux, make_flux2
from torch import nn

import perdure
from perdure import PerdureError
from perdure.drawing.painter import Painter
from perdure.hosts.frozen import Frozen, Layer

pytest.importorskip("torchao", reason="torchao is not installed")

DRAWING: dict[str, Any] = {"steps": 2, "guidance": 3.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_flux2(tmp_path_factory.mktemp("quantised") / "base")


@pytest.fixture(scope="module")
def base(folder: Path) -> perdure.Base:
    return perdure.Base.open(folder, device="cpu", quantize="int8")


def pixels(pictures: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(picture, int) for picture in pictures])


def held(base: perdure.Base) -> list[torch.Tensor]:
    """The quantised numbers themselves."""
    layers = base.layers.values()
    return [layer.module.weight.qdata.clone() for layer in layers]  # type: ignore[operator]


def test_every_target_layer_is_quantised_and_the_identity_is_of_the_stored_values(
    base: perdure.Base, folder: Path
) -> None:
    assert base.layers and all(layer.quantised for layer in base.layers.values())
    plain = perdure.Base.open(folder, device="cpu")
    assert base.identity == plain.identity
    assert base.shapes == plain.shapes
    assert not any(layer.quantised for layer in plain.layers.values())


@pytest.mark.parametrize("method", ["gated", "c-lora", "lora", "stamina", "lora-independent"])
def test_a_method_learns_two_concepts_beside_quantised_weights(
    method: str, base: perdure.Base, drawings: Path, tmp_path: Path
) -> None:
    before = held(base)
    short = {"steps": 2, "lr": 0.05}
    for name in ("ada", "bo"):
        perdure.learn(base, tmp_path / "bank", {name: drawings / name}, method=method, **short)
    painter = Painter(base, tmp_path / "bank")
    with base.session() as session:
        plain = session.draw(
            ["a photo of a dog"], seeds=[3], num_inference_steps=2, guidance_scale=3.0
        )
    one = painter.draw(["a photo of <ada>"], seeds=[3], **DRAWING)
    assert not np.array_equal(pixels(one), pixels(plain))
    nobody = painter.draw(["a photo of a dog"], seeds=[3], **DRAWING)
    if method in {"gated", "lora-independent"}:
        assert np.array_equal(pixels(nobody), pixels(plain))
    assert all(torch.equal(a, b) for a, b in zip(before, held(base), strict=True))
    with base.session() as session:
        after = session.draw(
            ["a photo of a dog"], seeds=[3], num_inference_steps=2, guidance_scale=3.0
        )
    assert np.array_equal(pixels(after), pixels(plain))


def test_a_bank_learned_on_the_plain_base_draws_on_the_quantised_one(
    base: perdure.Base, folder: Path, drawings: Path, tmp_path: Path
) -> None:
    plain = perdure.Base.open(folder, device="cpu", dtype="bfloat16")
    perdure.learn(plain, tmp_path / "bank", {"ada": drawings / "ada"}, steps=2)
    assert perdure.draw(base, tmp_path / "bank", "a photo of <ada>", seeds=3, **DRAWING)


class Quantised(Frozen):
    """One linear layer, quantised, and its plain twin."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        torch.manual_seed(0)
        self.holder = nn.Sequential(nn.Linear(32, 48))
        quantize_(self.holder, Int8WeightOnlyConfig())
        self.aim("all")

    def named(self, targets: str) -> dict[str, Layer]:
        module = self.holder[0]
        assert isinstance(module, nn.Linear)
        return {"k": Layer(module, rows=slice(8, 24))}


@torch.no_grad()
def test_the_sum_of_all_deltas_runs_live_in_the_layers_rows() -> None:
    host, x = Quantised(), torch.randn(3, 5, 32)
    dW = torch.randn(16, 32, generator=torch.Generator().manual_seed(1))
    before = host.holder(x)
    host.fold({"k": dW})
    more = host.holder(x) - before
    assert torch.allclose(more[..., 8:24], x @ dW.T, atol=1e-4)
    assert not more[..., :8].any() and not more[..., 24:].any()
    host.fold({"k": 2 * dW})  # not on top of the first
    assert torch.allclose((host.holder(x) - before)[..., 8:24], 2 * x @ dW.T, atol=1e-4)
    host.fold({})
    assert torch.equal(host.holder(x), before)
    with pytest.raises(ValueError, match="shape"):
        host.fold({"k": dW[:, :4]})


def test_an_export_is_refused(base: perdure.Base, drawings: Path, tmp_path: Path) -> None:
    perdure.learn(
        base, tmp_path / "bank", {"ada": drawings / "ada"}, method="lora", token="word", steps=1
    )
    with pytest.raises(PerdureError, match="without quantize"):
        Painter(base, tmp_path / "bank").save_folded(tmp_path / "model")


def test_an_unknown_kind_a_missing_library_and_a_single_file_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PerdureError, match="quantize is 'int3', but must be one of int8, "):
        perdure.Base.open(folder, quantize="int3")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PerdureError, match="needs bitsandbytes, which is not installed"):
        perdure.Base.open(folder, quantize="bnb-nf4")
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(PerdureError, match="takes a diffusers folder"):
        perdure.Base.open(file, quantize="int8")


@pytest.mark.parametrize("make", [make_pipeline, make_flux])
def test_other_families_open_quantised_as_well(make: Any, tmp_path: Path) -> None:
    base = perdure.Base.open(make(tmp_path / "base"), device="cpu", quantize="int8")
    with base.session() as session:
        assert session.draw(["a dog"], seeds=[0], num_inference_steps=1)
