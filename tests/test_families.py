"""What each family knows of its pipeline: counts on real shapes, and what is its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from conftest import make_pipeline
from diffusers import (
    ChromaTransformer2DModel,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    Krea2Transformer2DModel,
    Lumina2Transformer2DModel,
    PixArtTransformer2DModel,
    QwenImageTransformer2DModel,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    ZImageTransformer2DModel,
)
from tiny_pipelines import make_flux2_dev, make_sd3, make_sdxl

import perdure
from perdure import Base, Painter, PerdureError
from perdure.adapters import Token
from perdure.drawing.regions import Region
from perdure.hosts.diffusion.families import FAMILIES
from perdure.hosts.diffusion.family import KEYS_VALUES
from perdure.methods import build

SD, SDXL, SANA, PIXART, SD3, FLUX, FLUX2, FLUX2_DEV, Z_IMAGE, QWEN, CHROMA, *_ = FAMILIES
LUMINA2, KREA2 = FAMILIES[-2:]


def stock_picture(base: Base, stock: Any, prompt: str, **asked: Any) -> np.ndarray:
    """The pipeline called as anyone calls it."""
    with torch.no_grad(), base.autocast():
        drawn = stock(
            prompt=[prompt],
            num_inference_steps=1,
            guidance_scale=4.0,
            generator=[torch.Generator().manual_seed(3)],
            **asked,
        )
    return np.asarray(drawn.images[0])


SD15_UNET = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
"""The rest is the defaults of diffusers: see `unet/config.json` of each model."""
SDXL_UNET = {
    "sample_size": 128,
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SD3_TRANSFORMER = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 24,
    "num_attention_heads": 24,
    "attention_head_dim": 64,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
}
PIXART_XL = {
    "sample_size": 128,
    "caption_channels": 4096,
    "interpolation_scale": 2,
    "use_additional_conditions": False,
}


FLUX_DEV = {"guidance_embeds": True}
KLEIN_4B = {
    "num_layers": 5,
    "num_single_layers": 20,
    "num_attention_heads": 24,
    "joint_attention_dim": 7680,
    "guidance_embeds": False,
}
KLEIN_9B = {
    "num_layers": 8,
    "num_single_layers": 24,
    "num_attention_heads": 32,
    "joint_attention_dim": 12288,
    "guidance_embeds": False,
}
LUMINA = {"cap_feat_dim": 2304}

COUNTS: list[tuple[Any, str, Any, dict[str, Any], list[tuple[int, int, int]], int]] = [
    (
        SD,
        "unet",
        UNet2DConditionModel,
        SD15_UNET,
        # each resolution has 2 attentions on the way down and 3 up; 1 in the middle; keys, values
        [(10, 320, 768), (10, 640, 768), (12, 1280, 768)],
        859_520_964,
    ),
    (
        SDXL,
        "unet",
        UNet2DConditionModel,
        SDXL_UNET,
        # (2 + 3) transformers of 2 blocks, (2 + 3) of 10 and 10 blocks in the middle
        [(20, 640, 2048), (120, 1280, 2048)],
        2_567_463_684,
    ),
    (SD3, "transformer", SD3Transformer2DModel, SD3_TRANSFORMER, [(48, 1536, 1536)], 2_028_328_000),
    # 20 blocks, keys and values
    (SANA, "transformer", SanaTransformer2DModel, {}, [(40, 2240, 2240)], 1_604_462_752),
    # 28 blocks
    (PIXART, "transformer", PixArtTransformer2DModel, PIXART_XL, [(56, 1152, 1152)], 610_856_096),
    # 19 double blocks and 38 single ones
    (FLUX, "transformer", FluxTransformer2DModel, FLUX_DEV, [(114, 3072, 3072)], 11_901_408_320),
    # 5 and 20, 8 and 24
    (FLUX2, "transformer", Flux2Transformer2DModel, KLEIN_4B, [(50, 3072, 3072)], 3_875_544_576),
    (FLUX2, "transformer", Flux2Transformer2DModel, KLEIN_9B, [(64, 4096, 4096)], 9_078_581_248),
    # 8 and 48
    (FLUX2_DEV, "transformer", Flux2Transformer2DModel, {}, [(112, 6144, 6144)], 32_223_281_152),
    # 30 blocks and 2 refiners of the text
    (Z_IMAGE, "transformer", ZImageTransformer2DModel, {}, [(64, 3840, 3840)], 6_154_908_736),
    # 60 blocks
    (QWEN, "transformer", QwenImageTransformer2DModel, {}, [(120, 3072, 3072)], 20_430_401_088),
    # 19 double blocks and 38 single ones
    (CHROMA, "transformer", ChromaTransformer2DModel, {}, [(114, 3072, 3072)], 8_899_983_424),
    # 26 blocks and 2 refiners of the text; 8 of 24 heads, 96 wide, have keys and values
    (LUMINA2, "transformer", Lumina2Transformer2DModel, LUMINA, [(56, 768, 2304)], 2_609_769_152),
    # 28 blocks, 12 of whose 48 heads, 128 wide, have keys and values; 2 refiners of the text
    (
        KREA2,
        "transformer",
        Krea2Transformer2DModel,
        {},
        [(56, 1536, 6144), (4, 2560, 2560)],
        12_820_073_036,
    ),
]
IDS = [
    "sd15",
    "sdxl",
    "sd3",
    "sana",
    "pixart",
    "flux",
    "klein-4b",
    "klein-9b",
    "flux2-dev",
    "z-image",
    "qwen-image",
    "chroma",
    "lumina2",
    "krea2",
]


@pytest.mark.parametrize(("family", "part", "kind", "config", "matrices", "whole"), COUNTS, ids=IDS)
def test_keys_and_values_of_the_real_shapes_are_as_many_as_the_architecture_says(
    family: Any,
    part: str,
    kind: Any,
    config: dict[str, Any],
    matrices: list[tuple[int, int, int]],
    whole: int,
) -> None:
    with torch.device("meta"):
        denoiser = kind(**config)
    layers = family.layers(SimpleNamespace(**{part: denoiser}), KEYS_VALUES)
    assert all(layer.reads != "picture" for layer in layers.values())
    shapes = {name: tuple(layer.weight.shape) for name, layer in layers.items()}
    assert sum(p.numel() for p in denoiser.parameters()) == whole
    assert sorted(shapes.values()) == sorted(
        (d_out, d_in) for count, d_out, d_in in matrices for _ in range(count)
    )
    learner = build("lora", rank=16).start(shapes, [], {}, torch.Generator())
    assert sum(p.numel() for p in learner.parameters()) == sum(
        count * 16 * (d_out + d_in) for count, d_out, d_in in matrices
    )


def test_stable_diffusion_15_trains_the_numbers_that_the_papers_print() -> None:
    matrices = COUNTS[0][4]
    assert sum(count for count, _, _ in matrices) == 32
    parameters = sum(count * d_out * d_in for count, d_out, d_in in matrices)
    assert round(parameters / 1e6, 2) == 19.17
    assert round(100 * parameters / 859_520_964, 2) == 2.23
    assert sum(count * 16 * (d_out + d_in) for count, d_out, d_in in matrices) == 792_576


# Stable Diffusion XL


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sdxl(tmp_path_factory.mktemp("sdxl") / "base")


@pytest.fixture(scope="module")
def base(folder: Path) -> Iterator[Base]:
    yield Base.open(folder, device="cpu")


@pytest.fixture(scope="module")
def stock(base: Base, folder: Path) -> Any:
    pipeline = base.stock(folder)
    base.family.prepare(pipeline, base.device)
    return pipeline


@pytest.fixture(scope="module")
def bank(base: Base, drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one task that adds up, with a word for a token."""
    path = tmp_path_factory.mktemp("bank") / "bank"
    perdure.learn(base, path, {"ada": drawings / "ada"}, method="lora", steps=2, token="word")
    return path


def word(base: Base) -> Token:
    rows = base.tokens.random("word", torch.Generator().manual_seed(0))
    return base.tokens.token("word", rows, 1.0)


def test_a_word_of_sdxl_is_a_row_of_both_tables(base: Base) -> None:
    shapes = {part: tuple(rows.shape) for part, rows in word(base).parts.items()}
    assert shapes == {"word/text_encoder": (1, 16), "word/text_encoder_2": (1, 24)}


def test_a_concept_stands_at_one_place_and_the_text_ends_at_one_though_the_paddings_differ(
    base: Base,
) -> None:
    prompt = "a photo of <ada>!"
    with base.session(tokens={"ada": word(base)}) as session, torch.no_grad():
        prompts = session.conditioning([prompt]).prompts
        first, second = (v.ids([prompt]) for v in base.tokens.vocabularies)
        assert first[0, -1] != second[0, -1]
        for vocabulary, ids in zip(base.tokens.vocabularies, (first, second), strict=True):
            (place,) = (ids[0] == vocabulary.id_of("ada")).nonzero().flatten().tolist()
            assert prompts.spoken == ((("ada", place),),)
            assert prompts.ends == vocabulary.ends(ids)


def test_the_pooled_vector_is_that_of_the_end_also_where_a_word_was_added(base: Base) -> None:
    pipeline, prompt = base.pipeline, "a photo of <ada>"
    with base.session(tokens={"ada": word(base)}) as session, torch.no_grad():
        pooled = session.conditioning([prompt]).beside["pooled_prompt_embeds"]
        vocabulary = base.tokens.vocabularies[1]
        ids = vocabulary.ids([prompt])
        with base.tokens.serving(base.tokens.known):
            states = pipeline.text_encoder_2(ids).last_hidden_state
        end = states[:, vocabulary.ends(ids)[0]]
        assert torch.allclose(pooled, pipeline.text_encoder_2.text_projection(end), atol=1e-6)


def test_an_exported_folder_names_the_real_end_token(
    base: Base, bank: Path, tmp_path: Path
) -> None:
    perdure.export(base, bank, tmp_path / "model", check=False)
    for number, vocabulary in enumerate(base.tokens.vocabularies):
        part = "text_encoder" + ("_2" if number else "")
        config = json.loads((tmp_path / "model" / part / "config.json").read_text())
        config = config.get("text_config", config)
        assert config["eos_token_id"] == vocabulary.tokenizer.eos_token_id != 2


def test_every_text_encoder_of_stable_diffusion_3_reads_a_words_own_row_t5_too(
    tmp_path: Path,
) -> None:
    base = Base.open(make_sd3(tmp_path / "base"), device="cpu")
    token = word(base)
    for part, rows in token.parts.items():
        other = Token({**token.parts, part: rows + 1.0})
        said = []
        for one in (token, other):
            with base.session(tokens={"ada": one}) as session, torch.no_grad():
                said.append(session.conditioning(["a photo of <ada>"]).states)
        assert not torch.equal(*said), f"the row of {part} is never read"


def test_writing_a_pipeline_leaves_the_bases_tables_alone_also_where_they_have_spare_rows(
    tmp_path: Path,
) -> None:
    base = Base.open(make_sd3(tmp_path / "base"), device="cpu")
    base.need_encoders()
    tables = [v.table.weight for v in base.tokens.vocabularies]
    assert len(tables[2]) > base.tokens.vocabularies[2].own
    before = [table.clone() for table in tables]
    with base.session(tokens={"ada": word(base)}) as session:
        session.save(tmp_path / "model")
    after = [v.table.weight for v in base.tokens.vocabularies]
    assert all(one is other for one, other in zip(tables, after, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("negative", ["", "at night"])
@pytest.mark.parametrize("size", [(32, 32), (64, 32)], ids=["square", "wide"])
def test_sdxl_without_a_concept_is_the_stock_pipeline_whatever_size_and_negative_prompt(
    base: Base, stock: Any, negative: str, size: tuple[int, int]
) -> None:
    width, height = size
    with base.session() as session:
        (drawn,) = session.draw(
            ["a photo of a dog"],
            seeds=[3],
            negative=negative,
            size=size,
            num_inference_steps=1,
            guidance_scale=4.0,
        )
    asked = {"width": width, "height": height, "negative_prompt": [negative] if negative else None}
    assert np.array_equal(drawn, stock_picture(base, stock, "a photo of a dog", **asked))


def test_an_empty_negative_prompt_is_encoded_where_the_pipeline_does_not_ask_for_zeros(
    tmp_path: Path,
) -> None:
    base = Base.open(make_sdxl(tmp_path / "base", zeros=False), device="cpu")
    family, pipeline = base.family, base.pipeline
    positive = family.encode(pipeline, ["a dog"])
    against = family.encode_negative(pipeline, [""], positive)
    assert against is not None and against.states.abs().sum() > 0
    pipeline.register_to_config(force_zeros_for_empty_prompt=True)
    against = family.encode_negative(pipeline, [""], positive)
    assert (
        against is not None
        and not against.states.any()
        and not against.beside["pooled_prompt_embeds"].any()
    )


@pytest.mark.usefixtures("fp32")
def test_a_training_step_is_given_the_size_that_drawing_gives(base: Base) -> None:
    given: list[dict[str, torch.Tensor]] = []
    handle = base.denoiser.register_forward_pre_hook(
        lambda module, args, kwargs: given.append(kwargs["added_cond_kwargs"]), with_kwargs=True
    )
    try:
        with base.session() as session, torch.no_grad():
            session.draw(["a dog"], seeds=[0], size=(64, 32), num_inference_steps=1)
            said = session.conditioning(["a dog"])
            session.predict(torch.zeros(1, 4, 8, 16), torch.tensor([5]), said, (64, 32))
    finally:
        handle.remove()
    drawn, learned = given
    assert learned["time_ids"].tolist() == [[32, 64, 0, 0, 32, 64]]
    assert torch.equal(drawn["time_ids"][-1:], learned["time_ids"])
    assert torch.equal(drawn["text_embeds"][-1:], learned["text_embeds"])


def test_an_autoencoder_that_overflows_in_half_precision_computes_in_fp32(
    base: Base, folder: Path
) -> None:
    family, half = base.family, base.stock(folder)
    pictures = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    half.vae.half()
    half.vae.register_to_config(force_upcast=True)
    with torch.no_grad():
        mean, _ = family.to_latents(half, pictures.half())
        again = family.to_pictures(half, mean)
        assert half.vae.dtype == torch.float16 and mean.dtype == again.dtype == torch.float32
        half.vae.float()
        wanted, _ = family.to_latents(half, pictures.half().float())
        assert torch.equal(mean, wanted)


def test_an_autoencoder_that_names_mean_and_deviation_of_its_latents_is_read_by_them(
    tmp_path: Path,
) -> None:
    values = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [2.0, 0.5, 1.5, 1.0]}
    base = Base.open(make_sdxl(tmp_path / "base", **values), device="cpu")
    vae = base.pipeline.vae
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    own, spread = (torch.tensor(v).view(1, 4, 1, 1) for v in values.values())
    with torch.no_grad():
        wanted = vae.decode(z * spread / vae.config.scaling_factor + own).sample
        posterior = vae.encode(wanted).latent_dist
    assert torch.allclose(base.decode(z), wanted.clamp(-1, 1), atol=1e-5)
    mean, deviation = base.encode(wanted)
    factor = vae.config.scaling_factor
    assert torch.allclose(mean, (posterior.mean - own) * factor / spread, atol=1e-5)
    assert torch.allclose(deviation, posterior.std * factor / spread, atol=1e-5)


# FLUX.2 dev


def test_words_stand_where_the_processor_of_flux2_dev_puts_them(tmp_path: Path) -> None:
    """Behind the padding, one <s> and the system message, in what is left of the prompt."""
    base = Base.open(make_flux2_dev(tmp_path / "base"), device="cpu")
    base.need_encoders()
    (vocabulary,) = base.tokens.vocabularies
    prompts, read = ["a photo of <ada> [IMG]in the snow", "a dog"], []
    with base.session(tokens={"ada": word(base)}), torch.no_grad():
        with base.tokens.serving(base.tokens.known):
            handle = vocabulary.table.register_forward_pre_hook(
                lambda module, args: read.append(args[0]), prepend=True
            )
            base.family.encode(base.pipeline, prompts)
            handle.remove()
    ids = vocabulary.ids(prompts)
    assert torch.equal(read[0], ids)
    assert (ids == vocabulary.tokenizer.bos_token_id).sum(dim=1).tolist() == [1, 1]
    assert base.pipeline.tokenizer.tokenizer is vocabulary.pristine


def test_a_processor_that_transformers_has_no_class_for_is_refused_by_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = SimpleNamespace(is_dummy=True)
    monkeypatch.setattr(transformers, "PixtralProcessor", stand_in, raising=False)
    folder = make_flux2_dev(tmp_path / "base")
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("LlavaProcessor", "PixtralProcessor"))
    with pytest.raises(PerdureError, match="a PixtralProcessor, which needs torchvision"):
        Base.open(folder, device="cpu")


# Boxes


@pytest.mark.usefixtures("fp32")
def test_a_box_of_sdxl_attends_to_its_own_phrase(base: Base, bank: Path) -> None:
    painter = Painter(base, bank)

    def draw(prompt: str, *regions: Region) -> Any:
        drawn = painter.draw(prompt, seeds=3, guidance=4.0, regions=regions)[0]
        return np.asarray(drawn, int)

    plain = draw("a photo of a dog")
    everywhere = (0.0, 0.0, 1.0, 1.0)
    same = draw("a photo of a dog", Region(phrase="a photo of a dog", box=everywhere))
    own = draw("a photo of a dog", Region(phrase="a photo of <ada>", box=(0.0, 0.0, 0.5, 1.0)))
    assert np.abs(same - plain).max() <= 2
    assert not np.array_equal(own, plain)


def test_a_bank_of_another_family_is_refused_by_name(
    base: Base, bank: Path, tmp_path: Path
) -> None:
    other = Base.open(make_pipeline(tmp_path / "sd"), device="cpu")
    with pytest.raises(PerdureError, match=f"{base.identity.hash[:8]}"):
        Painter(other, bank)
