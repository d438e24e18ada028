"""A bank on a pipeline that somebody else made: the pictures of `perdure.draw`, and no trace."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    FluxControlNetModel,
    ModularPipeline,
    SD3ControlNetModel,
)
from PIL import Image
from tiny_pipelines import MAKERS

import perdure
from perdure import PerdureError, precision
from perdure.drawing.painter import Painter
from perdure.hosts.diffusion.quantised import configuration
from perdure.methods import METHODS

SETTINGS: dict[str, dict[str, Any]] = {
    "pixart": {"use_resolution_binning": False, "guidance_scale": 3.0},
    "sana": {"use_resolution_binning": False, "guidance_scale": 3.0},
    "qwen-image": {"negative_prompt": " ", "true_cfg_scale": 3.0},
}
"""How a pipeline is called where its call differs from the others'."""
ADA, NOBODY = "a photo of <ada>", "a photo of a dog"
TWICE = ("sd", "flux")
"""Families whose two concepts have an adapter each."""
LEARN: dict[str, Any] = {"steps": 1, "lr": 0.5, "options": {"rank": 2}}


@dataclass(frozen=True, eq=False)
class Tiny:
    family: str
    folder: Path
    bank: Path
    base: perdure.Base

    def open(self, kind: Any = None, **parts: Any) -> Any:
        """A pipeline as anyone opens it, that computes attention as `Base.open` does."""
        kind = kind or type(self.base.pipeline)
        pipeline = kind.from_pretrained(self.folder, **parts)
        pipeline.set_progress_bar_config(disable=True)
        self.base.family.prepare(pipeline, torch.device("cpu"))
        return pipeline

    @cache  # noqa: B019
    def draw(self, prompt: str = ADA, seed: int = 3, **settings: Any) -> np.ndarray:
        """`perdure.draw`'s picture."""
        drawn = perdure.draw(
            self.base, self.bank, prompt, seeds=seed, steps=2, guidance=3.0, **settings
        )
        return np.asarray(drawn[0], int)


@pytest.fixture(scope="module", params=list(MAKERS))
def tiny(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, drawings: Path
) -> Tiny:
    return made(request.param, tmp_path_factory.mktemp("attach"), drawings)


def made(family: str, folder: Path, drawings: Path) -> Tiny:
    """A base and a bank of two concepts."""
    torch.set_num_threads(1)
    base = perdure.Base.open(MAKERS[family](folder / "base"), device="cpu")
    with pytest.MonkeyPatch.context() as patch:  # a bank also keeps what encoders said
        patch.setattr(precision, "fast_bf16", lambda device: False)
        names = {name: drawings / name for name in ("ada", "bo")}
        tasks = [{name: path} for name, path in names.items()] if family in TWICE else [names]
        for task in tasks:
            perdure.learn(base, folder / "bank", task, **LEARN)
    base.need_encoders()
    return Tiny(family, folder / "base", folder / "bank", base)


def of_call(pipeline: Any, family: str, prompt: Any = ADA, **given: Any) -> list[np.ndarray]:
    """An ordinary call."""
    torch.manual_seed(0)  # Stable Diffusion 3 encodes the picture of a ControlNet at random
    known = inspect.signature(type(pipeline).__call__).parameters
    usual = {"num_inference_steps": 2, "height": 32, "width": 32, "prompt": prompt}
    usual |= SETTINGS.get(family, {"guidance_scale": 3.0})
    given = {key: value for key, value in {**usual, **given}.items() if key in known}
    return [np.asarray(picture, int) for picture in pipeline(**given).images]


def call(pipeline: Any, family: str, prompt: Any = ADA, seed: int = 3, **given: Any) -> np.ndarray:
    """The one picture of a call with a seed."""
    (drawn,) = of_call(
        pipeline, family, prompt, generator=torch.Generator().manual_seed(seed), **given
    )
    return drawn


def everything(pipeline: Any) -> list[Any]:
    """What a pipeline is: its class, its configuration and its parts."""
    parts = [(name, everything_of(part)) for name, part in sorted(pipeline.components.items())]
    return [type(pipeline), dict(pipeline.config), parts]


def everything_of(part: Any) -> list[Any]:
    """What a part is: weights, flags, hooks, words."""
    found: list[Any] = [id(part)]
    if isinstance(part, torch.nn.Module):
        digest = hashlib.sha256()
        for key, tensor in part.state_dict().items():
            digest.update(key.encode() + tensor.contiguous().numpy().tobytes())
        found.append(digest.hexdigest())
        for path, module in part.named_modules(remove_duplicate=False):
            hooks = (len(module._forward_hooks), len(module._forward_pre_hooks))
            end = getattr(module, "eos_token_id", None)
            found.append((path, id(module), module.training, hooks, end))
        found.append([parameter.requires_grad for parameter in part.parameters()])
        found.append(getattr(part.config, "eos_token_id", None))
    if hasattr(part, "get_vocab"):
        found.append((part.get_vocab(), part.get_added_vocab()))
    return found


@pytest.mark.usefixtures("fp32")
def test_an_attached_pipeline_draws_what_the_bank_draws_and_detached_it_is_what_it_was(
    tiny: Tiny,
) -> None:
    pipeline = tiny.open()
    plain, before = call(pipeline, tiny.family, NOBODY), everything(pipeline)
    unknown = call(pipeline, tiny.family)
    with perdure.attach(pipeline, tiny.bank):
        drawn = call(pipeline, tiny.family)
        assert np.array_equal(drawn, tiny.draw())
        assert not np.array_equal(drawn, unknown)
        assert np.array_equal(call(pipeline, tiny.family, NOBODY), plain)
        both = "<bo> and <ada> at night"
        assert np.array_equal(call(pipeline, tiny.family, both, 4), tiny.draw(both, 4))
    assert everything(pipeline) == before
    assert np.array_equal(call(pipeline, tiny.family), unknown)


@pytest.mark.usefixtures("fp32")
def test_several_prompts_several_pictures_a_negative_prompt_and_prompts_encoded_before(
    tiny: Tiny,
) -> None:
    pipeline, family = tiny.open(), tiny.base.family
    known = inspect.signature(type(pipeline).__call__).parameters
    pair = {"generator": [torch.Generator().manual_seed(seed) for seed in (3, 4)]}
    with perdure.attach(pipeline, tiny.bank):
        drawn = [
            np.asarray(picture, int)
            for picture in perdure.draw(
                tiny.base, tiny.bank, [NOBODY, ADA], seeds=[3, 4], steps=2, guidance=3.0
            )
        ]
        both = of_call(pipeline, tiny.family, [NOBODY, ADA], **pair)
        assert all(near(*of) for of in zip(both, drawn, strict=True))

        if tiny.family in ("sd", "z-image", "qwen-image"):  # one repeats prompts as lists
            pair = {"generator": [torch.Generator().manual_seed(seed) for seed in (3, 4)]}
            twice = of_call(pipeline, tiny.family, ADA, num_images_per_prompt=2, **pair)
            assert near(twice[0], tiny.draw()) and near(twice[1], tiny.draw(seed=4))

        with torch.no_grad():
            positive = family.encode(pipeline, [ADA])
            guided = family.guides(pipeline)
            against = family.encode_negative(pipeline, [""], positive) if guided else None
        call(pipeline, tiny.family, "<bo>")
        again = family.draw(
            pipeline,
            positive,
            against,
            generator=torch.Generator().manual_seed(3),
            width=32,
            height=32,
            num_inference_steps=2,
            guidance_scale=3.0,
        )
        if tiny.family != "lumina2":  # whose padding perdure itself makes zeros of
            assert near(np.asarray(again[0], int), tiny.draw())

        if "negative_prompt" not in known or not guided:
            return
        avoided = {"negative_prompt": "<bo> at night"}
        if family.negatives_alone:
            with pytest.raises(PerdureError, match="leave <bo> out"):
                call(pipeline, tiny.family, **avoided)
        else:
            drawn_so = tiny.draw(negative="<bo> at night")
            if tiny.family in ("sd", "qwen-image"):  # one encodes both at once, one each by itself
                said = {"prompt_embeds": positive.states, **positive.beside, **avoided}
                assert near(call(pipeline, tiny.family, None, **said), drawn_so)
            assert near(call(pipeline, tiny.family, **avoided), drawn_so)
            assert not np.array_equal(drawn_so, tiny.draw())


def near(one: np.ndarray, other: np.ndarray) -> bool:
    """The same but for rounding, of which a batch of other rows has another."""
    return bool(np.abs(one - other).max() <= 1)


VARIANTS = {
    "sd": ("StableDiffusionImg2Img", "StableDiffusionInpaint", "StableDiffusionControlNet"),
    "sdxl": ("StableDiffusionXLImg2Img", "StableDiffusionXLInpaint", "StableDiffusionXLControlNet"),
    "sd3": ("StableDiffusion3Img2Img", "StableDiffusion3ControlNet"),
    "flux": ("FluxImg2Img", "FluxInpaint", "FluxControlNet"),
    "z-image": ("ZImageImg2Img",),
}
"""Pipelines that draw from more than text, of the same parts; Stable Diffusion 3's inpainting asks
for sixteen channels of latents."""


def controlled(denoiser: Any) -> Any:
    """A ControlNet of the kind of a denoiser, that does something."""
    torch.manual_seed(0)
    if hasattr(denoiser, "down_blocks"):
        net = ControlNetModel.from_unet(denoiser, conditioning_embedding_out_channels=(8, 16, 16))
    elif hasattr(denoiser, "single_transformer_blocks"):
        small = {"num_layers": 1, "attention_head_dim": 8, "num_attention_heads": 2}
        net = FluxControlNetModel.from_transformer(denoiser, num_single_layers=1, **small)
    else:
        net = SD3ControlNetModel.from_transformer(
            denoiser, num_layers=1, num_extra_conditioning_channels=0
        )
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return net


@pytest.mark.usefixtures("fp32")
def test_a_pipeline_that_draws_from_pictures_too(tiny: Tiny) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))
    given = {
        "image": picture,
        "mask_image": Image.new("L", (32, 32), 255),
        "control_image": picture,
        "strength": 0.9,
    }
    if tiny.family not in VARIANTS:
        pytest.skip("tried with others")
    for name in VARIANTS[tiny.family]:
        kind = getattr(diffusers, f"{name}Pipeline")
        net = {"controlnet": controlled(tiny.base.denoiser)} if "ControlNet" in name else {}
        pipeline = tiny.open(kind, **net)
        plain = [call(pipeline, tiny.family, prompt, **given) for prompt in (ADA, NOBODY)]
        before = everything(pipeline)
        with perdure.attach(pipeline, tiny.bank):
            told = [call(pipeline, tiny.family, prompt, **given) for prompt in (ADA, NOBODY)]
        assert np.abs(told[0] - plain[0]).max() > 3, name
        assert np.array_equal(told[1], plain[1]), name
        assert everything(pipeline) == before, name
        assert np.array_equal(call(pipeline, tiny.family, **given), plain[0]), name


@pytest.mark.usefixtures("fp32")
def test_redrawing_a_picture_is_what_the_bank_itself_would_make_of_it(tiny: Tiny) -> None:
    if tiny.family not in ("flux", "sd3"):
        pytest.skip("its pipeline is not told the size")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))
    pipeline = tiny.open(getattr(diffusers, f"{VARIANTS[tiny.family][0]}Pipeline"))
    given = {"image": picture, "strength": 0.9, "num_inference_steps": 3}
    with perdure.attach(pipeline, tiny.bank):
        drawn = call(pipeline, tiny.family, **given)
    own = perdure.Base(pipeline, tiny.base.family, name="own", encoder="")
    bank = perdure.Bank.open(tiny.bank)
    painter = Painter(tiny.base, bank)
    with own.session(targets=painter.method.targets, tokens=painter.tokens) as session:
        (same,) = session.draw(
            [ADA], seeds=[3], said=painter.in_prompts, size=(32, 32), guidance_scale=3.0, **given
        )
    assert np.array_equal(drawn, np.asarray(same, int))


@pytest.mark.usefixtures("fp32")
def test_another_lora_before_and_after(tiny: Tiny) -> None:
    peft = pytest.importorskip("peft")
    if tiny.family not in VARIANTS and tiny.family != "flux2":
        pytest.skip("tried with others")

    def load(pipeline: Any) -> None:
        ends = ["to_qkv_mlp_proj", "add_k_proj"] if tiny.family == "flux2" else ["to_k", "to_q"]
        denoiser = getattr(pipeline, tiny.base.family.component)
        denoiser.add_adapter(peft.LoraConfig(r=2, target_modules=ends))
        torch.manual_seed(0)
        for name, parameter in denoiser.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)

    pipeline = tiny.open()
    with perdure.attach(pipeline, tiny.bank):
        alone = call(pipeline, tiny.family)
        load(pipeline)
        after = call(pipeline, tiny.family)
    assert not np.array_equal(after, alone)
    plain, before = call(pipeline, tiny.family), everything(pipeline)
    assert not np.array_equal(after, plain)
    with perdure.attach(pipeline, tiny.bank):
        assert np.array_equal(call(pipeline, tiny.family), after)
    assert everything(pipeline) == before


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory, drawings: Path) -> Tiny:
    return made("sd", tmp_path_factory.mktemp("attach"), drawings)


@pytest.mark.usefixtures("fp32")
def test_an_ip_adapter(sd: Tiny) -> None:
    pipeline = sd.open()
    torch.manual_seed(0)
    readers = sd.base.family.readers(pipeline)
    width = pipeline.unet.config.cross_attention_dim
    keys: dict[str, torch.Tensor] = {}
    for place, reader in enumerate(readers.values()):
        for key in ("k", "v"):
            keys[f"{2 * place + 1}.to_{key}_ip.weight"] = torch.randn(reader.to_k.weight.shape)
    projection = {
        "proj.weight": torch.randn(4 * width, 16),
        "proj.bias": torch.zeros(4 * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    pipeline.unet._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": keys}])
    given = {"ip_adapter_image_embeds": [torch.randn(2, 1, 16)]}
    plain = [call(pipeline, "sd", prompt, **given) for prompt in (ADA, NOBODY)]
    with perdure.attach(pipeline, sd.bank):
        assert not np.array_equal(call(pipeline, "sd", **given), plain[0])
        assert np.array_equal(call(pipeline, "sd", NOBODY, **given), plain[1])
    assert np.array_equal(call(pipeline, "sd", **given), plain[0])


@pytest.mark.usefixtures("fp32")
def test_a_compiled_denoiser_and_one_that_is_offloaded(sd: Tiny) -> None:
    whole, in_place, offloaded = sd.open(), sd.open(), sd.open()
    whole.unet = torch.compile(whole.unet, backend="eager")
    in_place.unet.compile(backend="eager")
    offloaded.enable_model_cpu_offload(device="cpu")
    for pipeline in (whole, in_place, offloaded):
        plain = call(pipeline, "sd")
        with perdure.attach(pipeline, sd.bank):
            assert np.array_equal(call(pipeline, "sd"), sd.draw())
        assert np.array_equal(call(pipeline, "sd"), plain)


@pytest.mark.usefixtures("fp32")
@pytest.mark.parametrize("scheduler", ["EulerAncestralDiscrete", "UniPCMultistep", "LCM"])
def test_another_scheduler(sd: Tiny, scheduler: str) -> None:
    pipeline = sd.open()
    kind = getattr(diffusers, f"{scheduler}Scheduler")
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
    plain = call(pipeline, "sd")
    with perdure.attach(pipeline, sd.bank):
        assert not np.array_equal(call(pipeline, "sd"), plain)
    assert np.array_equal(call(pipeline, "sd"), plain)


@pytest.mark.usefixtures("fp32")
@pytest.mark.parametrize("method", ["c-lora", "cidm", "fl2t", "lora-independent", "stamina"])
def test_methods_that_fold_and_that_mix_by_the_prompt(
    method: str, sd: Tiny, drawings: Path, tmp_path: Path
) -> None:
    known = {field.name for field in fields(METHODS[method].Config)}
    small = {"rank": 2, "mask_rank": 2, "together_steps": 1}
    learned = {"options": {key: value for key, value in small.items() if key in known}}
    for name in ("ada", "bo"):
        perdure.learn(
            sd.base, tmp_path, {name: drawings / name}, method=method, steps=1, lr=0.5, **learned
        )
    bank = Tiny("sd", sd.folder, tmp_path, sd.base)
    pipeline = sd.open()
    plain, before = call(pipeline, "sd", NOBODY), everything(pipeline)
    with perdure.attach(pipeline, tmp_path):
        kept = pipeline.encode_prompt(ADA, "cpu", 1, True)
        assert np.array_equal(call(pipeline, "sd", NOBODY), bank.draw(NOBODY))
        assert np.array_equal(call(pipeline, "sd"), bank.draw())
        assert np.array_equal(call(pipeline, "sd", "<bo> at night"), bank.draw("<bo> at night"))
        states = {"prompt_embeds": kept[0], "negative_prompt_embeds": kept[1]}
        assert np.array_equal(call(pipeline, "sd", None, **states), bank.draw())
        if METHODS[method].mixes_by != "bank":
            with pytest.raises(PerdureError, match="call the pipeline once for each"):
                pipeline([ADA, "<bo> at night"], num_inference_steps=1)
    assert everything(pipeline) == before
    assert np.array_equal(call(pipeline, "sd", NOBODY), plain)


def test_a_pipeline_in_another_dtype_than_its_files_is_the_same_base(sd: Tiny) -> None:
    pipeline = sd.open(dtype=torch.bfloat16)
    with perdure.attach(pipeline, sd.bank):
        drawn = call(pipeline, "sd")
    base = perdure.Base.open(sd.folder, device="cpu", dtype="bfloat16")
    own = perdure.draw(base, sd.bank, ADA, seeds=3, steps=2, guidance=3.0)
    assert np.array_equal(drawn, np.asarray(own[0], int))
    with torch.no_grad():
        next(iter(sd.base.family.readers(pipeline).values())).to_k.weight.zero_()
    with pytest.raises(PerdureError, match="was learned on the base"):
        perdure.attach(pipeline, sd.bank)


@pytest.mark.usefixtures("fp32")
def test_a_quantised_pipeline(sd: Tiny) -> None:
    pytest.importorskip("torchao")
    held = configuration("int8", "unet", torch.float32)
    pipeline = sd.open(quantization_config=held, dtype=torch.float32)
    plain = call(pipeline, "sd")
    with perdure.attach(pipeline, sd.bank):
        drawn = call(pipeline, "sd")
    base = perdure.Base.open(sd.folder, device="cpu", quantize="int8", dtype="float32")
    own = perdure.draw(base, sd.bank, ADA, seeds=3, steps=2, guidance=3.0)
    assert np.array_equal(drawn, np.asarray(own[0], int))
    assert np.array_equal(call(pipeline, "sd"), plain)
    pipeline.register_to_config(_name_or_path="nowhere")
    with pytest.raises(PerdureError, match="cannot be told"):
        perdure.attach(pipeline, sd.bank)


def test_what_is_refused_in_a_sentence(sd: Tiny, tiny_v: Path) -> None:
    kind = diffusers.StableDiffusionPipeline
    other = kind.from_pretrained(tiny_v)
    before = everything(other)
    with pytest.raises(PerdureError, match="was learned on the base"):
        perdure.attach(other, sd.bank)
    assert everything(other) == before
    with pytest.raises(PerdureError, match="the class StableDiffusionPipeline: give what"):
        perdure.attach(kind, sd.bank)
    with pytest.raises(PerdureError, match="a str: give what"):
        perdure.attach("folder", sd.bank)
    pipeline = sd.open()
    with pytest.raises(PerdureError, match="no bank"):
        perdure.attach(pipeline, sd.folder / "nowhere")
    handle = perdure.attach(pipeline, sd.bank)
    with pytest.raises(PerdureError, match="has a bank attached already"):
        perdure.attach(pipeline, sd.bank)
    with pytest.raises(PerdureError, match="<rex>, which this bank has not learned"):
        pipeline("a photo of <rex>")
    with pytest.raises(PerdureError, match="is too long for this base"):
        pipeline("dog " * 99 + ADA)
    assert np.array_equal(call(pipeline, "sd", NOBODY), call(sd.open(), "sd", NOBODY))
    handle.detach()
    with pytest.raises(PerdureError, match="detached from this pipeline already"):
        handle.detach()
    pipeline.text_encoder = None
    with pytest.raises(PerdureError, match="of these parts"):
        perdure.attach(pipeline, sd.bank)
    edits = diffusers.StableDiffusionInstructPix2PixPipeline.from_pretrained(sd.folder)
    with pytest.raises(PerdureError, match="does not encode prompts by themselves"):
        perdure.attach(edits, sd.bank)


def modular(tiny: Tiny, blocks: Any = None) -> Any:
    """A modular pipeline of the same parts."""
    made = blocks.init_pipeline() if blocks else ModularPipeline.from_pretrained(str(tiny.folder))
    parts = tiny.open().components
    made.update_components(**{k: v for k, v in parts.items() if v and k in made.component_names})
    made.set_progress_bar_config(disable=True)
    return made


def of_blocks(pipeline: Any, prompt: str = ADA) -> np.ndarray:
    """A call of a modular pipeline."""
    pictures = pipeline(
        prompt=prompt,
        num_inference_steps=2,
        height=32,
        width=32,
        generator=torch.Generator().manual_seed(3),
        output="images",
    )
    return np.asarray(pictures[0], int)


@pytest.mark.usefixtures("fp32")
def test_a_modular_pipeline_carries_the_banks_gates(tiny: Tiny) -> None:
    if tiny.family not in ("sdxl", "flux"):
        pytest.skip("of these the modular pipeline draws what the ordinary one draws")
    pipeline = modular(tiny)
    guided = {"guidance": pipeline.guider.guidance_scale if tiny.family == "sdxl" else 3.5}
    (own,) = perdure.draw(tiny.base, tiny.bank, ADA, seeds=3, steps=2, **guided)
    plain, unknown = of_blocks(pipeline, NOBODY), of_blocks(pipeline)
    before = [everything_of(part) for part in pipeline.components.values()]
    with perdure.attach(pipeline, tiny.bank) as handle:
        assert near(of_blocks(pipeline), np.asarray(own, int))
        assert np.array_equal(of_blocks(pipeline, NOBODY), plain)
        with pytest.raises(PerdureError, match="has a bank attached already"):
            perdure.attach(pipeline, tiny.bank)
        handle.detach()
    assert [everything_of(part) for part in pipeline.components.values()] == before
    assert np.array_equal(of_blocks(pipeline), unknown)

    blocks = modular(tiny).blocks  # one's own: the step is put in by hand and attaches by itself
    blocks.sub_blocks["text_encoder"] = perdure.ConceptsStep(
        blocks.sub_blocks["text_encoder"], tiny.bank
    )
    taught = modular(tiny, blocks)
    assert near(of_blocks(taught), np.asarray(own, int))
    taught._blocks.sub_blocks["text_encoder"].detach()
