"""Banks for other programs and back: every format's round trip, with values computed on the way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel
from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_pipelines import MAKERS
from torch import Tensor

import perdure
from perdure.drawing import stock
from perdure.errors import PerdureError
from perdure.exchange import export as exporting
from perdure.exchange import lora as writing
from perdure.exchange.ungated import RIDGE, nearest
from perdure.hosts.diffusion.families.kohya_names import flux_1_name

WITHOUT_LOADER = {"pixart"}
KOHYA = {"sd", "sdxl", "flux2", "flux2-dev", "z-image", "qwen-image"}
"""Families whose files by kohya's names the stock loader reads in the size of these tests."""
COMFYUI = {name for name in MAKERS if name not in {"sana", "lumina2", "pixart"}}
FORMS = [
    (family, form)
    for family in MAKERS
    if family not in WITHOUT_LOADER
    for form in ("peft", "kohya", "comfyui")
    if form == "peft" or family in {"kohya": KOHYA, "comfyui": COMFYUI}[form]
]
SHORT: dict[str, Any] = {"steps": 2, "lr": 0.05, "token": "word"}
DRAWING: dict[str, Any] = {"seeds": 3, "steps": 2, "guidance": 3.0}


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch, fp32: None) -> None:
    monkeypatch.setattr(stock, "STEPS", 2)


class Taught:
    """Of every family its base, and banks of two concepts, each made when it is asked for."""

    def __init__(self, folder: Path, drawings: Path) -> None:
        self.folder, self.drawings = folder, drawings
        self._bases: dict[str, perdure.Base] = {}

    def base(self, family: str) -> perdure.Base:
        if family not in self._bases:
            made = MAKERS[family](self.folder / family)
            self._bases[family] = perdure.Base.open(made, device="cpu")
        return self._bases[family]

    def bank(self, family: str, method: str) -> Path:
        bank = self.folder / f"{family}-{method}"
        options = {} if method in ("dreambooth", "textual-inversion") else {"rank": 2}
        if not bank.exists():
            for name in ("ada", "bo"):
                pictures = {name: self.drawings / name}
                base = self.base(family)
                perdure.learn(base, bank, pictures, method=method, options=options, **SHORT)
        return bank


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, drawings: Path) -> Taught:
    torch.set_num_threads(1)
    return Taught(tmp_path_factory.mktemp("exchange"), drawings)


def pixels(base: perdure.Base, bank: Path, prompt: str) -> np.ndarray:
    return np.asarray(perdure.draw(base, bank, prompt, **DRAWING)[0], int)


def dense(base: perdure.Base, bank: Path, tasks: slice = slice(None)) -> dict[str, Tensor]:
    """`sum A_t B_t` by module of the denoiser, a slice's in its rows of it."""
    layers = base.named("keys-values")
    paths = {id(module): path for path, module in base.denoiser.named_modules()}
    total: dict[str, Tensor] = {}
    for _, tensors in perdure.Bank.open(bank).kept()[tasks]:
        for layer in {key.rpartition("/")[0] for key in tensors}:
            module = layers[layer].module
            path = paths[id(module)]
            whole = total.setdefault(path, torch.zeros(module.weight.flatten(1).shape))
            whole[layers[layer].rows or slice(None)] += (
                tensors[f"{layer}/A"] @ tensors[f"{layer}/B"]
            )
    return total


def products(file: Path, start: str) -> dict[str, Tensor]:
    """`lora_B @ lora_A` by module, of a file of PEFT's names behind a start."""
    tensors = load_file(file)
    return {
        key.removeprefix(start).removesuffix(".lora_B.weight"): tensor
        @ tensors[key.replace("lora_B", "lora_A")]
        for key, tensor in tensors.items()
        if "lora_B" in key
    }


def assert_same(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for path, delta in wanted.items():
        assert delta.any() and torch.allclose(found[path], delta, atol=1e-6)


@pytest.mark.parametrize(("family", "form"), FORMS)
def test_a_lora_holds_the_banks_sum_is_loaded_by_the_stock_loader_and_comes_back(
    family: str, form: str, taught: Taught, tmp_path: Path
) -> None:
    base, bank = taught.base(family), taught.bank(family, "c-lora")
    made = perdure.export(base, bank, tmp_path / "out", format=form)
    (part,) = made.parts
    assert part.rank is not None and part.rank >= 4 and part.error == 0
    assert made.difference is not None and made.difference <= 3
    if form == "peft":
        assert_same(
            products(tmp_path / "out" / "adapter_model.safetensors", "base_model.model."),
            dense(base, bank),
        )
        with safe_open(tmp_path / "out" / "pytorch_lora_weights.safetensors", "pt") as file:
            about = json.loads(file.metadata()["lora_adapter_metadata"])
        component = base.family.component
        assert about[f"{component}.lora_alpha"] == about[f"{component}.r"]
    elif base.family.comfyui == "diffusers" and form == "comfyui":
        assert_same(products(part.files[0], f"{base.family.component}."), dense(base, bank))

    source = tmp_path / "out" if form == "peft" else part.files[0]
    ada = tmp_path / "out" / "embeddings" / "ada.safetensors"
    record = perdure.adopt(base, tmp_path / "other", "rex", source, embedding=ada)
    other = perdure.Bank.open(tmp_path / "other")
    assert (other.method, other.config["targets"]) == ("lora-independent", "keys-values")
    assert record.facts["adopted"]["layers"] == len(base.named("keys-values"))
    back = dense(base, tmp_path / "other")
    assert_same(back, dense(base, bank))
    here = pixels(base, bank, "a photo of <ada>")
    assert np.abs(here - pixels(base, tmp_path / "other", "a photo of <rex>")).max() <= 3


def test_names_of_flux_in_its_published_width_are_read_by_the_stock_loaders_conversion() -> None:
    """Which knows no other width: so the model is made of shapes alone."""
    with torch.device("meta"):
        model = FluxTransformer2DModel(num_layers=1, num_single_layers=1)
    generator = torch.Generator().manual_seed(0)
    paths = [f"transformer_blocks.0.attn.add_{part}_proj" for part in "kv"]
    paths += [f"single_transformer_blocks.0.attn.to_{part}" for part in "kv"]
    tensors: dict[str, Tensor] = {}
    wanted: dict[str, Tensor] = {}
    for path in paths:
        named = flux_1_name(model, path)
        assert named is not None and named.whole is not None
        up = torch.zeros(named.whole, 1)
        own, down = (torch.randn(n, 1, generator=generator) for n in (3072, 3072))
        up[named.start : named.start + 3072] = own
        for key, part in (("lora_up", up), ("lora_down", down.T)):
            before = tensors.get(f"{named.name}.{key}.weight")
            whole = [part] if before is None else [before, part]
            tensors[f"{named.name}.{key}.weight"] = torch.cat(whole, 1 if key == "lora_up" else 0)
        wanted[path] = own @ down.T
    found = _convert_kohya_flux_lora_to_diffusers(tensors)
    for path, delta in wanted.items():
        up, down = (found[f"transformer.{path}.lora_{kind}.weight"] for kind in "BA")
        assert torch.equal(up @ down, delta)
    others = {key.split(".lora_")[0].removeprefix("transformer.") for key in found} - set(paths)
    for path in others:  # queries and the feed-forward part, which share the fused layers
        assert not found[f"transformer.{path}.lora_B.weight"].any()


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3"])
def test_embeddings_are_rows_under_the_names_that_others_read(
    family: str, taught: Taught, tmp_path: Path
) -> None:
    base, bank = taught.base(family), taught.bank(family, "textual-inversion")
    made = perdure.export(base, bank, tmp_path / "out", format="embeddings", concepts=["bo"])
    assert made.difference is not None and made.difference <= 3
    (file,) = made.parts[0].files
    parts = perdure.Bank.open(bank).tokens()["bo"].parts
    names = {
        "sd": {"<bo>": "text_encoder"},
        "sdxl": {"clip_l": "text_encoder", "clip_g": "text_encoder_2"},
        "sd3": {"clip_l": "text_encoder", "clip_g": "text_encoder_2", "t5xxl": "text_encoder_3"},
    }[family]
    tensors = load_file(file)
    assert tensors.keys() == names.keys()
    for key, encoder in names.items():
        assert torch.equal(tensors[key], parts[f"word/{encoder}"])
    perdure.adopt(base, tmp_path / "other", "rex", file)
    assert perdure.Bank.open(tmp_path / "other").method == "textual-inversion"
    one, other = pixels(base, bank, "a <bo>"), pixels(base, tmp_path / "other", "a <rex>")
    assert np.array_equal(one, other)


def test_gated_gives_a_lora_a_concept_near_its_gate_and_says_what_a_lora_loses(
    taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, bank = taught.base("sd"), taught.bank("sd", "gated")
    made = perdure.export(base, bank, tmp_path / "out", format="peft")
    assert [part.name for part in made.parts] == ["ada", "bo"]
    near = [(part.mean, part.silent) for part in made.parts]

    monkeypatch.setattr(exporting, "ungated", lambda painter, factors, concept: factors)
    plain = perdure.export(base, bank, tmp_path / "plain", format="peft")
    for number, part in enumerate(plain.parts):
        folder = tmp_path / "plain" / part.name
        found = products(folder / "adapter_model.safetensors", "base_model.model.")
        assert_same(found, dense(base, bank, slice(number, number + 1)))
        for fitted, left in zip(near[number], (part.mean, part.silent), strict=True):
            assert fitted is not None and left is not None and 0 < fitted < left
    alone = perdure.export(base, bank, tmp_path / "one", format="kohya", concepts=["bo"])
    assert [file.name for file in alone.parts[0].files] == ["bo.safetensors"]
    assert [path.name for path in (tmp_path / "one" / "embeddings").iterdir()] == ["bo.safetensors"]


def test_the_nearest_to_a_gate_is_a_ridge_regression_on_gated_states() -> None:
    generator = torch.Generator().manual_seed(0)
    c = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    g, w = torch.rand(2, 3, 5, generator=generator, dtype=torch.float64)
    scale = (w.reshape(-1, 1) ** 0.5).numpy()
    rows = c.reshape(-1, 4).numpy() * scale
    ridge = RIDGE * (rows**2).sum() / 4
    inputs = np.concatenate([rows, ridge**0.5 * np.eye(4)])
    wanted = np.concatenate([rows * g.reshape(-1, 1).numpy(), np.zeros((4, 4))])
    X = np.linalg.lstsq(inputs, wanted, rcond=None)[0].T
    assert np.allclose(nearest([(c, g, w)]).numpy(), X, atol=1e-6)


def test_named_concepts_of_independent_adapters_are_one_lora_and_else_each_is(
    taught: Taught, tmp_path: Path
) -> None:
    base, bank = taught.base("sd"), taught.bank("sd", "lora-independent")
    both = perdure.export(base, bank, tmp_path / "both", format="peft", concepts=["ada", "bo"])
    assert both.difference is not None and both.difference <= 3
    found = products(tmp_path / "both" / "adapter_model.safetensors", "base_model.model.")
    assert_same(found, dense(base, bank))
    each = perdure.export(base, bank, tmp_path / "each", format="kohya")
    assert [part.concepts for part in each.parts] == [("ada",), ("bo",)]
    assert each.difference is not None and each.difference <= 3


def test_a_masked_delta_is_cut_to_a_rank_and_the_share_that_is_lost_is_said(
    taught: Taught, tmp_path: Path
) -> None:
    base, bank = taught.base("sd"), taught.bank("sd", "stamina")
    made = perdure.export(base, bank, tmp_path / "out", format="peft", rank=3)
    (part,) = made.parts
    painter = perdure.Painter(base, bank)
    squares = lost = 0.0
    found = products(tmp_path / "out" / "adapter_model.safetensors", "base_model.model.")
    for layer, dW in painter.method.mix(painter.kept, ()).items():
        values = np.linalg.svd(dW.double().numpy(), compute_uv=False) ** 2
        squares, lost = squares + values.sum(), lost + values[3:].sum()
        assert float((dW - found[layer]).norm()) ** 2 == pytest.approx(values[3:].sum(), rel=1e-3)
    assert part.rank == 3 and part.error == pytest.approx((lost / squares) ** 0.5, rel=1e-3)
    whole = perdure.export(base, bank, tmp_path / "whole", format="peft")
    assert whole.parts[0].error < 1e-6
    assert whole.difference is not None and whole.difference <= 3


def test_whole_matrices_and_convolutions_are_cut_and_loaded_with_ranks_that_differ(
    taught: Taught, tmp_path: Path
) -> None:
    base, bank = taught.base("sd"), taught.bank("sd", "dreambooth")
    for form in ("peft", "kohya"):
        made = perdure.export(base, bank, tmp_path / form, format=form)
        (part,) = made.parts
        assert part.rank == 64 and part.difference is not None and part.difference <= 3
    record = perdure.adopt(
        base,
        tmp_path / "other",
        "rex",
        part.files[0],
        embedding=tmp_path / "kohya" / "embeddings" / "ada.safetensors",
    )
    other = perdure.Bank.open(tmp_path / "other")
    assert other.config["targets"] == "all"
    assert record.facts["adopted"]["layers"] == len(base.named("all"))


def test_a_file_that_the_stock_loader_reads_otherwise_is_removed(
    taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = writing.kohya

    def wrong(*given: Any) -> dict[str, Tensor]:
        tensors = write(*given)
        first = next(key for key in tensors if "lora_up" in key)
        return {**tensors, first: tensors[first] * 2}

    monkeypatch.setattr(writing, "kohya", wrong)
    with pytest.raises(PerdureError, match="is not what was written.*, so it was removed"):
        perdure.export(
            taught.base("sd"), taught.bank("sd", "c-lora"), tmp_path / "out", format="kohya"
        )
    assert not (tmp_path / "out").exists()


REFUSED = {
    "pixart": ("c-lora", {"format": "peft"}, "PixArtSigmaPipeline of diffusers loads no LoRA"),
    "sana": ("c-lora", {"format": "kohya"}, "no names of kohya's .* choose --format peft"),
    "lumina2": ("c-lora", {"format": "comfyui"}, "ComfyUI knows no names of Lumina-Image 2.0's"),
    "sd": ("textual-inversion", {"format": "peft"}, "trains no weights.*--format embeddings"),
    "sdxl": ("c-lora", {"format": "peft", "concepts": ["ada"]}, "leave --concept out"),
    "sd3": ("c-lora", {"format": "diffusers", "rank": 4}, "rank has no effect on --format diff"),
    "flux": ("c-lora", {"format": "kohya"}, "does not read .* as it was meant"),
}


@pytest.mark.parametrize("family", REFUSED)
def test_what_no_file_can_hold_is_refused_in_one_sentence(
    family: str, taught: Taught, tmp_path: Path
) -> None:
    method, asked, said = REFUSED[family]
    with pytest.raises(PerdureError, match=said):
        perdure.export(taught.base(family), taught.bank(family, method), tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


def test_without_peft_files_are_written_unchecked_or_not_at_all(
    taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, bank = taught.base("sd"), taught.bank("sd", "c-lora")
    monkeypatch.setattr(writing, "find_spec", lambda name: None)
    for form in ("peft", "kohya"):
        with pytest.raises(PerdureError, match="need PEFT: `pip install 'perdure"):
            perdure.export(base, bank, tmp_path / "out", format=form)
    made = perdure.export(base, bank, tmp_path / "out", format="kohya", check=False)
    assert made.difference is None and made.parts[0].files[0].is_file()


def test_nothing_is_written_into_a_folder_that_is_in_use(taught: Taught, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(PerdureError, match="is not empty"):
        perdure.export(taught.base("sd"), taught.bank("sd", "c-lora"), tmp_path, format="kohya")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
