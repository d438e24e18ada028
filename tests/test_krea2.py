"""Krea 2: padding within a prompt, negative prompts in a second pass, and two schedules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_pipelines import make_krea2

import perdure
from perdure.hosts.diffusion.objective import Flow

PROMPTS = ["a dog", "a photo of a dog in the snow next to a person at night"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_krea2(tmp_path_factory.mktemp("krea2") / "base")


@pytest.fixture(scope="module")
def base(folder: Path) -> Iterator[perdure.Base]:
    yield perdure.Base.open(folder, device="cpu")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("guidance", [0.0, 3.0])
@pytest.mark.parametrize("negative", ["", "at night"])
def test_without_a_concept_unequal_prompts_are_the_stock_pipelines_own(
    folder: Path, negative: str, guidance: float, dtype: str
) -> None:
    """In bf16, too: norms stay in fp32."""
    base = perdure.Base.open(folder, device="cpu", dtype=dtype)
    asked = {"num_inference_steps": 2, "guidance_scale": guidance}
    with base.session() as session:
        drawn = session.draw(PROMPTS, seeds=[3, 4], negative=negative, size=(64, 32), **asked)
    stock = base.stock(folder)
    with torch.no_grad(), base.autocast():
        pictures = stock(
            prompt=PROMPTS,
            negative_prompt=[negative] * 2,
            width=64,
            height=32,
            generator=[torch.Generator().manual_seed(seed) for seed in (3, 4)],
            **asked,
        ).images
    for one, other in zip(drawn, pictures, strict=True):
        assert np.array_equal(one, other)
    dtypes = [{p.dtype for p in one.transformer.parameters()} for one in (base.pipeline, stock)]
    assert dtypes[0] == dtypes[1]


@torch.no_grad()
def test_a_prompt_is_read_where_its_words_stand_and_closed_behind_the_padding(
    base: perdure.Base,
) -> None:
    base.need_encoders()
    token = base.tokens.token("word", base.tokens.random("word", torch.Generator()), 1.0)
    (vocabulary,), read = base.tokens.vocabularies, []
    prompts = [f"{PROMPTS[1]} <ada>", "<ada>"]
    handle = vocabulary.table.register_forward_pre_hook(
        lambda module, args: read.append(args[0]), prepend=True
    )
    with base.session(tokens={"ada": token}) as session:
        said = session.conditioning(prompts)
        ada = vocabulary.id_of("ada")
    handle.remove()
    assert vocabulary.wording is not None
    ids = {len(row[row != vocabulary.tokenizer.pad_token_id]): row for row in read[0]}
    longer, shorter = (ids[key][vocabulary.wording.skip :] for key in sorted(ids, reverse=True))
    closing = vocabulary.tokenizer(base.pipeline.prompt_template_encode_suffix)["input_ids"]
    for n, row in enumerate((longer, shorter)):
        ((_, place),), end = said.prompts.spoken[n], said.prompts.ends[n]
        assert row[place] == ada
        assert row[end:].tolist() == closing
        valid = said.beside["prompt_embeds_mask"][n]
        assert torch.equal(valid, row != vocabulary.tokenizer.pad_token_id)
        assert torch.equal(said.prompts.rest(n), torch.arange(len(row)) >= end)
        assert valid[place] and valid[end:].all() and not valid[place + 1 : end].any()


@pytest.mark.usefixtures("fp32")
@torch.no_grad()
def test_what_stands_in_the_padding_changes_no_prediction(base: perdure.Base) -> None:
    with base.session() as session:
        said = session.conditioning(PROMPTS)
        noised = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        time = torch.tensor([300.0, 700.0])
        before = session.predict(noised, time, said, (32, 32))
        said.states[~said.beside["prompt_embeds_mask"]] += 1.0
        assert torch.equal(session.predict(noised, time, said, (32, 32)), before)


@pytest.mark.parametrize("distilled", [False, True], ids=["raw", "turbo"])
@pytest.mark.parametrize("size", [(32, 32), (256, 128)], ids=["small", "wide"])
def test_times_of_training_are_shifted_as_the_pipeline_shifts_those_of_drawing(
    size: tuple[int, int], distilled: bool, tmp_path: Path
) -> None:
    base = perdure.Base.open(make_krea2(tmp_path / "base", distilled=distilled), device="cpu")
    with base.session() as session:
        session.draw_latents(
            ["a dog"], seeds=[0], size=size, num_inference_steps=2, guidance_scale=0.0
        )
    objective = base.objective_at(size)
    assert isinstance(objective, Flow)
    sigma = objective.shift * 0.5 / (1 + (objective.shift - 1) * 0.5)
    assert float(base.pipeline.scheduler.sigmas[1]) == pytest.approx(sigma, rel=1e-5)
