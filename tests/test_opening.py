"""Bases as people have them: variants, single files, dtypes, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from perdure.bank import Bank
from perdure.cli import app
from perdure.drawing.painter import draw
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.learning.learn import learn, resume

V1 = "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.k_proj.weight"


@pytest.fixture
def own(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny folder that a test may spoil."""
    return Path(shutil.copytree(tiny, tmp_path / "tiny"))


def narrow(folder: Path, dtype: torch.dtype, variant: str = "") -> Path:
    """Store the weights in a dtype, under the variant's names alone."""
    for part in ("unet", "vae", "text_encoder"):
        for file in (folder / part).glob("*.safetensors"):
            weights = load_file(file)
            save_file(
                {k: v.to(dtype) if v.is_floating_point() else v for k, v in weights.items()},
                file.with_suffix(f".{variant}.safetensors") if variant else file,
                metadata={"format": "pt"},
            )
            if variant:
                file.unlink()
    return folder


def single(path: Path, **tensors: torch.Tensor) -> Path:
    """A file with the keys by which one of Stable Diffusion 1 is known."""
    weights = {
        "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 4, 3, 3).half(),
        V1: torch.zeros(4, 4).half(),
    }
    save_file(weights | tensors, path)
    return path


def test_the_own_dtype_is_kept_and_another_is_taken_when_asked(own: Path) -> None:
    assert Base.open(own, device="cpu").dtype == torch.float32
    narrow(own, torch.bfloat16)
    assert Base.open(own, device="cpu").dtype == torch.bfloat16
    assert Base.open(own, device="cpu", dtype="float32").dtype == torch.float32


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_a_base_is_the_same_in_whatever_dtype_it_is_opened(own: Path, stored: torch.dtype) -> None:
    narrow(own, stored)
    found = {
        Base.open(own, device="cpu", dtype=dtype).identity.hash
        for dtype in (None, "float32", "bfloat16", "float16")
    }
    assert len(found) == 1


def test_files_of_a_variant_alone_are_opened_and_fp16_computes_in_fp32_on_a_cpu(own: Path) -> None:
    narrow(own, torch.float16, "fp16")
    assert Base.open(own, device="cpu").dtype == torch.float32


def test_smallworld_stays_fp32() -> None:
    assert Base.open(device="cpu").dtype == torch.float32


@pytest.mark.parametrize("method", ["gated", "c-lora"])
def test_a_base_in_bf16_learns_resumes_and_draws(
    own: Path, drawings: Path, tmp_path: Path, method: str
) -> None:
    base, bank = Base.open(narrow(own, torch.bfloat16), device="cpu"), tmp_path / "bank"
    learn(base, bank, {"ada": drawings / "ada"}, method=method, steps=2)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(base, bank, {"bo": drawings / "bo"}, steps=3, checkpoint_every=1, report=stop)
    resume(base, bank)
    known = Bank.open(bank)
    assert known.concepts == ("ada", "bo")
    for _, tensors in known.kept():
        assert all(t.dtype != torch.bfloat16 and torch.isfinite(t).all() for t in tensors.values())
    assert draw(base, bank, ["a photo of <ada>"])[0].size == (32, 32)
    assert draw(Base.open(own, device="cpu", dtype="float32"), bank, ["a photo of <bo>"])


def test_processes_open_the_base_in_the_dtype_that_was_asked(
    own: Path, drawings: Path, tmp_path: Path
) -> None:
    names = [str(drawings / "ada"), str(drawings / "bo")]
    options = ["--base", str(own), "--device", "cpu", "--dtype", "bfloat16", "--no-check"]
    for bank, more in (("one", []), ("many", ["--processes", "2"])):
        where = ["--bank", str(tmp_path / bank), "--method", "gated", "--steps", "2"]
        said = CliRunner().invoke(app, ["learn", *names, *where, *options, *more])
        assert said.exit_code == 0, said.output
    one, many = (Bank.open(tmp_path / bank).kept() for bank in ("one", "many"))
    for (_, left), (_, right) in zip(one, many, strict=True):
        assert all(torch.equal(left[key], right[key]) for key in left)


def test_a_hub_id_is_of_the_class_that_its_index_names(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DiffusionPipeline, "load_config", lambda *_, **__: {"_class_name": "Odd"})
    with pytest.raises(PerdureError, match="is a Odd"):
        Base.open("some/where", device="cpu")
    index = json.loads((own / "model_index.json").read_text())
    monkeypatch.setattr(DiffusionPipeline, "load_config", lambda *_, **__: index)
    asked = []

    def download(name: str, *, variant: str | None, **_: Any) -> str:
        asked.append(variant)
        if variant is None:
            raise OSError("no such files")
        return str(narrow(own, torch.float16, "fp16"))

    monkeypatch.setattr(DiffusionPipeline, "download", download)
    assert Base.open("some/where", device="cpu").name == "some/where"
    assert asked == [None, "fp16"]


def test_a_single_file_goes_to_the_loader_with_its_configuration(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, asked = single(tmp_path / "model.safetensors"), {}
    whole = StableDiffusionPipeline.from_pretrained(own)

    def load(path: str, **arguments: Any) -> Any:
        asked.update(arguments, path=path)
        return whole

    monkeypatch.setattr(StableDiffusionPipeline, "from_single_file", load)
    assert Base.open(file, device="cpu", config=own).name == "model"
    assert asked["path"] == str(file) and asked["config"] == str(own)
    assert asked["local_files_only"] and asked["dtype"] == torch.float16
    with pytest.raises(PerdureError, match="--config"):
        Base.open(file, device="cpu")


def test_single_files_that_are_no_base_are_refused(own: Path, tmp_path: Path) -> None:
    lora = tmp_path / "lora.safetensors"
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(1)}, lora)
    inpainting = single(
        tmp_path / "paint.safetensors",
        **{"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 9, 3, 3)},
    )
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(lora.read_bytes()[:20])
    pickle = tmp_path / "model.ckpt"
    pickle.write_bytes(b"x")
    for file, word in (
        (lora, "is a LoRA"),
        (inpainting, "inpainting"),
        (cut, "cut short"),
        (pickle, "convert it"),
    ):
        with pytest.raises(PerdureError, match=word):
            Base.open(file, device="cpu", config=own)


def test_folders_that_are_not_whole_are_refused(tiny: Path, tmp_path: Path) -> None:
    def spoiled(name: str) -> Path:
        return Path(shutil.copytree(tiny, tmp_path / name))

    weights = "unet/diffusion_pytorch_model.safetensors"
    pickled = spoiled("pickled")
    (pickled / weights).rename(pickled / "unet/diffusion_pytorch_model.bin")
    cut = spoiled("cut")
    (cut / weights).write_bytes((cut / weights).read_bytes()[:-8])
    encoder = spoiled("encoder")
    shutil.rmtree(encoder / "text_encoder")
    shard = spoiled("shard")
    index = {"weight_map": {"x": "diffusion_pytorch_model-00002-of-00002.safetensors"}}
    (shard / f"{weights}.index.json").write_text(json.dumps(index))
    broken = spoiled("broken")
    (broken / "unet/config.json").write_text("{")
    for folder, word in (
        (pickled, "are pickled"),
        (cut, "cut short"),
        (encoder, "no text_encoder"),
        (shard, "00002-of-00002.* is missing"),
        (broken, "cannot be opened"),
    ):
        with pytest.raises(PerdureError, match=word) as caught:
            Base.open(folder, device="cpu")
        assert "\n" not in str(caught.value)


def test_unknown_dtypes_and_devices_are_refused(tiny: Path) -> None:
    with pytest.raises(PerdureError, match="dtype is 'half'"):
        Base.open(tiny, dtype="half")
    with pytest.raises(PerdureError, match="no device 'moon'"):
        Base.open(tiny, device="moon")
