"""What is no base, or half of one: one sentence that names it and the mend; nothing is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import make_pipeline
from diffusers import UNet2DConditionModel
from tiny_pipelines import MAKERS

from perdure import cli

FAMILIES = ("sana", "sd3", "flux2", "z-image", "qwen-image")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return {name: MAKERS[name](folder / name) for name in FAMILIES}


@pytest.fixture
def refusal(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    drawings: Path,
    tmp_path: Path,
) -> Callable[[Path], str]:
    """What `perdure learn` says of a base that it refuses."""

    def of(base: Path) -> str:
        bank = tmp_path / "bank"
        asked = ["perdure", "learn", drawings / "ada", "--bank", bank, "--base", base]
        monkeypatch.setattr("sys.argv", [str(word) for word in asked])
        capfd.readouterr()  # of what made the base
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, said = capfd.readouterr()
        assert end.value.code == 2 and not out and said.count("\n") == 1
        assert not bank.exists()
        return said

    return of


def copied(whole: dict[str, Path], family: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole[family], tmp_path / "base"))


def renamed(base: Path, kind: str) -> None:
    index = json.loads((base / "model_index.json").read_text())
    (base / "model_index.json").write_text(json.dumps({**index, "_class_name": kind}))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_that_is_missing(
    family: str, whole: dict[str, Path], refusal: Callable[[Path], str], tmp_path: Path
) -> None:
    base = copied(whole, family, tmp_path)
    shutil.rmtree(base / "text_encoder")
    assert "has no text_encoder with weights" in refusal(base)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shard_that_is_missing_with_its_index_or_without(
    family: str, whole: dict[str, Path], refusal: Callable[[Path], str], tmp_path: Path
) -> None:
    base = copied(whole, family, tmp_path)
    (file,) = (base / "text_encoder").glob("*.safetensors")
    name = f"{file.stem}-00001-of-00002.safetensors"
    file.rename(file.with_name(name))
    assert "00002-of-00002.safetensors is missing" in refusal(base)
    index = {"weight_map": {"a": name, "b": "model-00002-of-00002.safetensors"}}
    (base / "text_encoder" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00002-of-00002.safetensors is missing" in refusal(base)


@pytest.mark.parametrize("part", ["text_encoder", "transformer", "vae"])
def test_a_file_that_is_cut_short(
    part: str, whole: dict[str, Path], refusal: Callable[[Path], str], tmp_path: Path
) -> None:
    base = copied(whole, "flux2", tmp_path)
    (file,) = (base / part).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-40])
    assert "cut short or broken" in refusal(base)


def test_a_part_of_another_shape(
    whole: dict[str, Path], refusal: Callable[[Path], str], tmp_path: Path
) -> None:
    base = copied(whole, "z-image", tmp_path)
    config = base / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"cap_feat_dim": 20', '"cap_feat_dim": 28'))
    assert "cannot be opened" in refusal(base)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("QwenImageEditPipeline", "fills or edits pictures"),
        ("FluxKontextPipeline", "fills or edits pictures"),
        ("StableDiffusionInpaintPipeline", "fills or edits pictures"),
        ("HunyuanVideoPipeline", "cannot teach yet"),
    ],
)
def test_a_pipeline_of_another_kind(
    kind: str, why: str, whole: dict[str, Path], refusal: Callable[[Path], str], tmp_path: Path
) -> None:
    base = copied(whole, "qwen-image", tmp_path)
    renamed(base, kind)
    said = refusal(base)
    assert f"is a {kind}, which" in said and why in said and "Z-Image (ZImagePipeline)" in said


def test_an_inpainting_u_net_under_a_plain_name(
    refusal: Callable[[Path], str], tmp_path: Path
) -> None:
    base = make_pipeline(tmp_path / "base")
    unet = UNet2DConditionModel.from_pretrained(base / "unet")
    config = {**unet.config, "in_channels": 9}
    UNet2DConditionModel.from_config(config).save_pretrained(base / "unet")
    assert "given 9 channels and its latents have 4" in refusal(base)


@pytest.mark.parametrize("name", ["adapter_config.json", "pytorch_lora_weights.safetensors"])
def test_a_folder_of_a_lora(name: str, refusal: Callable[[Path], str], tmp_path: Path) -> None:
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / name).write_text("{}")
    assert "is a LoRA and no base" in refusal(tmp_path / "lora")
