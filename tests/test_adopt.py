"""LoRAs and textual inversions that were trained elsewhere, as concepts of a bank."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, PeftModel
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tiny_pipelines import MAKERS, make_sdxl
from torch import Tensor

import perdure
from perdure.errors import PerdureError

DRAWING: dict[str, Any] = {"seeds": 3, "steps": 2, "guidance": 3.0}
KEYS_VALUES = ["attn2.to_k", "attn2.to_v"]
EVERYWHERE = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "conv1", "ff.net.2"]


@pytest.fixture(autouse=True)
def precise(fp32: None) -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> perdure.Base:
    return perdure.Base.open(tiny, device="cpu")


def trained(tiny: Path, folder: Path, targets: list[str], **config: Any) -> np.ndarray:
    """Save a random LoRA as diffusers' training scripts do; what the stock pipeline draws of it."""
    pipeline = StableDiffusionPipeline.from_pretrained(tiny, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    torch.manual_seed(0)
    known = LoraConfig(target_modules=targets, init_lora_weights="gaussian", **config)
    pipeline.unet.add_adapter(known)
    for name, weight in pipeline.unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    about = {
        key: sorted(value) if isinstance(value, set) else value
        for key, value in pipeline.unet.peft_config["default"].to_dict().items()
    }
    StableDiffusionPipeline.save_lora_weights(
        folder,
        unet_lora_layers=get_peft_model_state_dict(pipeline.unet),
        unet_lora_adapter_metadata=about,
    )
    return drawn(pipeline, "a photo of dog")


def drawn(pipeline: Any, prompt: str) -> np.ndarray:
    with torch.no_grad():
        pictures = pipeline(
            prompt,
            num_inference_steps=2,
            guidance_scale=3.0,
            generator=torch.Generator().manual_seed(3),
        ).images
    return np.asarray(pictures[0], int)


def pixels(base: perdure.Base, bank: Path, prompt: str) -> np.ndarray:
    return np.asarray(perdure.draw(base, bank, prompt, **DRAWING)[0], int)


@pytest.mark.parametrize(
    "config", [{"r": 4, "lora_alpha": 2}, {"r": 4, "lora_alpha": 2, "use_rslora": True}], ids=str
)
def test_a_lora_of_diffusers_scripts_draws_what_the_stock_pipeline_draws_of_its_trigger(
    config: dict[str, Any], base: perdure.Base, tiny: Path, tmp_path: Path
) -> None:
    wanted = trained(tiny, tmp_path / "lora", EVERYWHERE, **config)
    notes: list[str] = []
    record = perdure.adopt(
        base, tmp_path / "bank", "rex", tmp_path / "lora", trigger="dog", note=notes.append
    )
    assert notes == []
    assert record.facts["adopted"]["rank"] == 4
    bank = perdure.Bank.open(tmp_path / "bank")
    assert (bank.method, bank.config["targets"]) == ("lora-independent", "all")
    assert np.abs(pixels(base, tmp_path / "bank", "a photo of <rex>") - wanted).max() <= 3
    assert perdure.show(bank, "rex")["facts"]["adopted"]["trigger"] == "dog"
    assert not list((tmp_path / "bank").glob(".learning/*"))


def test_a_folder_of_peft_and_the_scale_are_honoured(
    base: perdure.Base, tiny: Path, tmp_path: Path
) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    config = LoraConfig(r=3, lora_alpha=6, target_modules=KEYS_VALUES, init_lora_weights=False)
    model = PeftModel(pipeline.unet, config)
    model.save_pretrained(tmp_path / "lora")
    for module in pipeline.unet.modules():
        if hasattr(module, "scaling"):
            module.scaling["default"] *= 0.5
    perdure.adopt(base, tmp_path / "bank", "rex", tmp_path / "lora", trigger="dog", scale=0.5)
    wanted = drawn(pipeline, "a photo of dog")
    assert np.abs(pixels(base, tmp_path / "bank", "a photo of <rex>") - wanted).max() <= 3


def kohya(tensors: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """The same by kohya's names, as the trainers write them: each module with its alpha."""
    made: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        path, _, kind = key.removeprefix("unet.").partition(".lora")
        name = "lora_unet_" + path.replace(".", "_")
        down = "down" in kind or "_A" in kind
        made[f"{name}.lora_{'down' if down else 'up'}.weight"] = tensor
        made[f"{name}.alpha"] = torch.tensor(alpha)
    return made


def test_kohyas_alpha_is_honoured_and_gated_takes_what_reads_the_prompt(
    base: perdure.Base, tiny: Path, tmp_path: Path
) -> None:
    trained(tiny, tmp_path / "lora", KEYS_VALUES, r=4, lora_alpha=4)
    plain = load_file(tmp_path / "lora" / "pytorch_lora_weights.safetensors")
    file = tmp_path / "rex.safetensors"
    save_file(kohya(plain, alpha=1.0), file)
    notes: list[str] = []
    known = {"method": "gated", "trigger": "dog", "note": notes.append}
    perdure.adopt(base, tmp_path / "bank", "rex", file, **known)
    (said,) = notes
    assert "gated lets it act at <rex> and the prompt's end alone" in said
    ((_, tensors),) = perdure.Bank.open(tmp_path / "bank").kept()
    for layer in base.named("keys-values"):
        up, down = (
            next(t for k, t in plain.items() if layer in k and mark in k)
            for mark in ("lora_B", "lora_A")
        )
        dW = tensors[f"{layer}/A"] @ tensors[f"{layer}/B"]
        assert torch.allclose(dW, 0.25 * up @ down, atol=1e-6)
    with pytest.raises(PerdureError, match="is none of the layers that this bank's gated has"):
        trained(tiny, tmp_path / "wide", EVERYWHERE, r=2)
        perdure.adopt(base, tmp_path / "bank", "bo", tmp_path / "wide", trigger="dog")
    dog = pixels(base, tmp_path / "bank", "a photo of a dog")
    pipeline = StableDiffusionPipeline.from_pretrained(tiny, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    assert np.abs(dog - drawn(pipeline, "a photo of a dog")).max() <= 3


def test_a_textual_inversion_draws_what_the_stock_pipeline_draws_of_it(
    base: perdure.Base, tiny: Path, tmp_path: Path
) -> None:
    row = 0.1 * torch.randn(32, generator=torch.Generator().manual_seed(0))
    file = tmp_path / "learned_embeds.safetensors"
    save_file({"<toy>": row}, file)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_textual_inversion(tmp_path)
    perdure.adopt(base, tmp_path / "bank", "toy", file)
    assert perdure.Bank.open(tmp_path / "bank").method == "textual-inversion"
    wanted = drawn(pipeline, "a photo of <toy>")
    assert np.abs(pixels(base, tmp_path / "bank", "a photo of <toy>") - wanted).max() <= 3


def test_a_trigger_of_several_tokens_is_their_mean_and_that_is_said(
    base: perdure.Base, tiny: Path, tmp_path: Path
) -> None:
    trained(tiny, tmp_path / "lora", KEYS_VALUES, r=2)
    notes: list[str] = []
    perdure.adopt(
        base, tmp_path / "bank", "rex", tmp_path / "lora", trigger="dog house", note=notes.append
    )
    assert "is 2 tokens of this base" in notes[0]
    row = perdure.Bank.open(tmp_path / "bank").tokens()["rex"].rows
    (vocabulary,) = base.tokens.vocabularies
    ids = vocabulary.pristine("dog house", add_special_tokens=False)["input_ids"]
    assert torch.allclose(row[0], vocabulary.rows()[ids].mean(0))


def broken_header(file: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, file)
    file.write_bytes((2**62).to_bytes(8, "little") + file.read_bytes()[8:])


def with_nan(file: Path, tensors: dict[str, Tensor]) -> None:
    first = next(iter(tensors))
    save_file({**tensors, first: tensors[first] * float("nan")}, file)


def also(**more: Tensor) -> Callable[[Path, dict[str, Tensor]], None]:
    return lambda file, tensors: save_file({**tensors, **more}, file)


def one_factor(file: Path, tensors: dict[str, Tensor]) -> None:
    save_file({key: t for key, t in tensors.items() if "lora_A" in key}, file)


def of_zeros(file: Path, tensors: dict[str, Tensor]) -> None:
    save_file({key: torch.zeros_like(t) for key, t in tensors.items()}, file)


ONE = torch.ones(2, 2)
BROKEN: dict[str, tuple[Callable[[Path, dict[str, Tensor]], None], str]] = {
    "header": (broken_header, "says that its header has 4611686018427387904 bytes"),
    "cut": (lambda file, tensors: file.write_bytes(b"\2" + b"\0" * 7 + b"{}"), "holds no tensors"),
    "empty": (lambda file, tensors: file.write_bytes(b""), "it is broken"),
    "nan": (with_nan, "numbers that are not finite"),
    "encoder": (
        also(**{"text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight": ONE}),
        "changes the text encoder, too",
    ),
    "kohya-encoder": (
        also(**{"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": ONE}),
        "changes the text encoder, too",
    ),
    "dora": (also(**{"unet.x.lora_magnitude_vector": ONE}), "is a DoRA"),
    "lokr": (also(**{"unet.x.lokr_w1": ONE}), "is a LoKr"),
    "unknown": (also(**{"unet.x.gamma": ONE}), "unet.x.gamma, which is no plain LoRA's"),
    "layer": (
        also(**{"unet.down.lora_A.weight": ONE, "unet.down.lora_B.weight": 2 * ONE}),
        "is of another family",
    ),
    "one factor": (one_factor, "has but one of the two factors"),
    "zeros": (of_zeros, "changes nothing"),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> dict[str, Tensor]:
    folder = tmp_path_factory.mktemp("plain")
    trained(tiny, folder, KEYS_VALUES, r=2)
    return load_file(folder / "pytorch_lora_weights.safetensors")


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_refused_in_one_sentence_and_nothing_is_made(
    kind: str, plain: dict[str, Tensor], base: perdure.Base, tmp_path: Path
) -> None:
    make, said = BROKEN[kind]
    file = tmp_path / "rex.safetensors"
    make(file, plain)
    with pytest.raises(PerdureError, match=said):
        perdure.adopt(base, tmp_path / "bank", "rex", file, trigger="dog")
    assert not (tmp_path / "bank").exists()


def test_what_a_bank_cannot_hold_leaves_it_as_it_was(
    plain: dict[str, Tensor], base: perdure.Base, drawings: Path, tmp_path: Path
) -> None:
    file, bank = tmp_path / "rex.safetensors", tmp_path / "bank"
    save_file(plain, file)
    short = {"steps": 1, "options": {"rank": 2}}
    perdure.learn(base, bank, {"ada": drawings / "ada"}, method="c-lora", **short)
    before = {path: path.read_bytes() for path in bank.rglob("*") if path.is_file()}
    pickled, vectors = tmp_path / "rex.pt", tmp_path / "ti.safetensors"
    pickled.write_bytes(b"x")
    save_file({"<rex>": torch.ones(3, 32)}, vectors)
    narrow = tmp_path / "narrow.safetensors"
    save_file({"<rex>": torch.ones(7)}, narrow)
    large = perdure.Base.open(make_sdxl(tmp_path / "sdxl"), device="cpu")
    cases: list[tuple[str, dict[str, Any]]] = [
        ("takes no LoRA that was trained elsewhere", {"source": file, "trigger": "dog"}),
        ("takes no token without weights", {"source": _inversion(tmp_path)}),
        ("is a LoRA: say either", {"source": file}),
        ("is a LoRA: say either", {"source": file, "trigger": "dog", "embedding": vectors}),
        ("is a pickle", {"source": pickled}),
        ("There is no file", {"source": tmp_path / "none.safetensors"}),
        ("has neither", {"source": tmp_path}),
        ("has 3 vectors", {"source": vectors}),
        ("takes rows of 32", {"source": narrow}),
        ("leave the embedding and the trigger out", {"source": vectors, "trigger": "dog"}),
        ("scale is nan", {"source": file, "trigger": "dog", "scale": float("nan")}),
        ("already has a concept 'ada'", {"source": file, "trigger": "dog", "name": "ada"}),
        ("cannot be a concept's name", {"source": file, "trigger": "dog", "name": "<rex>"}),
    ]
    for said, given in cases:
        own = {"name": "rex", **given}
        into = tmp_path / "other" if "already" in said else bank
        if "already" in said:
            perdure.adopt(base, into, "ada", file, trigger="dog")
        with pytest.raises(PerdureError, match=said):
            perdure.adopt(base, into, own.pop("name"), own.pop("source"), **own)
    with pytest.raises(PerdureError, match="is of another family|trained on another model"):
        perdure.adopt(large, tmp_path / "new", "rex", file, trigger="dog")
    assert before == {path: path.read_bytes() for path in bank.rglob("*") if path.is_file()}


def _inversion(folder: Path) -> Path:
    file = folder / "one.safetensors"
    save_file({"<rex>": torch.ones(32)}, file)
    return file


def test_slices_of_a_fused_layer_are_taken_and_what_lies_beside_them_is_not(
    tmp_path: Path,
) -> None:
    base = perdure.Base.open(MAKERS["flux2"](tmp_path / "flux2"), device="cpu")
    fused = "single_transformer_blocks.0.attn.to_qkv_mlp_proj"
    rows = {name.rpartition(".")[2]: layer.rows for name, layer in base.layers.items()}
    width = len(base.denoiser.get_submodule(fused).weight)
    up, down = torch.zeros(width, 1), torch.ones(1, 16)
    up[rows["to_k"]] = 1.0
    file = tmp_path / "lora.safetensors"
    tensors = {f"transformer.{fused}.lora_A.weight": down, f"transformer.{fused}.lora_B.weight": up}
    save_file(tensors, file)
    record = perdure.adopt(base, tmp_path / "bank", "rex", file, trigger="dog")
    tensors = perdure.Bank.open(tmp_path / "bank").read(record)[0]
    assert {key.rpartition("/")[0] for key in tensors} == {f"{fused}.to_k"}
    up[:] = 1.0
    save_file(
        {f"transformer.{fused}.lora_A.weight": down, f"transformer.{fused}.lora_B.weight": up}, file
    )
    with pytest.raises(PerdureError, match="which is none of the layers"):
        perdure.adopt(base, tmp_path / "bank", "bo", file, trigger="dog")
    perdure.adopt(base, tmp_path / "wide", "bo", file, trigger="dog")
    assert perdure.Bank.open(tmp_path / "wide").config["targets"] == "all"


def test_an_interrupted_learn_is_not_disturbed(
    plain: dict[str, Tensor], base: perdure.Base, drawings: Path, tmp_path: Path
) -> None:
    class PlugPulled(Exception):
        pass

    def pull(progress: Any) -> None:
        raise PlugPulled

    file = tmp_path / "rex.safetensors"
    save_file(plain, file)
    short = {"method": "lora-independent", "steps": 2, "report": pull}
    with pytest.raises(PlugPulled):
        perdure.learn(base, tmp_path / "bank", {"ada": drawings / "ada"}, **short)
    with pytest.raises(PerdureError, match="A learn of <ada> was interrupted"):
        perdure.adopt(base, tmp_path / "bank", "rex", file, trigger="dog")
    assert json.loads((tmp_path / "bank" / "bank.json").read_text())["tasks"] == []
