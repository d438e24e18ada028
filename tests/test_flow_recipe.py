"""smallworld-flow's recipe: what it reads, what stands for rows of zeros, and how it resumes."""

import numpy as np
import pytest
import torch

from perdure.errors import PerdureError
from perdure.smallworld import captions
from perdure.smallworld.flow.forward import predict
from perdure.smallworld.flow.model import FlowModel, make_pipeline
from perdure.smallworld.flow.names import KNOWN, name_of, name_words
from perdure.smallworld.flow.scenes import CHUNK, Latents, drawn_scenes, make_scene
from perdure.smallworld.flow.sheet import draw
from perdure.smallworld.flow.speech import VARIANTS, ids_of, said, tokenizer
from perdure.smallworld.flow.train import CHECKPOINT, Plan, taken, train
from perdure.smallworld.flow.weights import export, load_average, write_average
from perdure.smallworld.train.vocabulary import CONTEXT
from perdure.smallworld.vocabulary import DOMAINS
from perdure.smallworld.world import Identity


@pytest.fixture(scope="module")
def lively():
    """A model whose output is not the zero that it starts from."""
    torch.manual_seed(0)
    model = FlowModel().eval().requires_grad_(False)
    for parameter in model.transformer.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


@pytest.fixture(scope="module")
def scenes():
    """One chunk of 16 scenes, repeated, with noise for latents."""
    drawn = drawn_scenes(0, range(16))
    drawn["latents"] = np.random.default_rng(0).normal(size=(16, 8, 16, 16)).astype(np.float16)
    keys = ("latents", "ids", "kinds", "named")
    return Latents(({key: np.resize(drawn[key], (CHUNK, *drawn[key].shape[1:])) for key in keys},))


def test_no_two_known_identities_share_a_name_and_no_other_has_one():
    names = [name_of(Identity(kind, seed)) for kind in DOMAINS for seed in range(KNOWN)]
    assert len(set(names)) == len(DOMAINS) * KNOWN
    assert {len(name.split()) for name in names} == {1, 2}
    assert name_of(Identity("pet", KNOWN)) is None
    assert not set(name_words()) & set(captions.words())


def test_every_caption_is_whole_words_that_the_tokenizer_gives_one_token_each():
    words = tokenizer()
    for index in range(40):
        ids, _ = said(make_scene(np.random.default_rng([5, index])), np.random.default_rng(index))
        for row in ids:
            text = words.decode(row, skip_special_tokens=True)
            again = words(text, padding="max_length", max_length=CONTEXT)["input_ids"]
            assert again == list(row), text


def test_a_caption_that_is_too_long_is_said_anew_and_never_cut():
    texts = iter(["cat " * 60, "cat " * 39, "a photo of a cat"])
    ids, anew = ids_of(lambda: next(texts), lambda: "a cat")
    assert anew == 2
    assert tokenizer().decode(ids, skip_special_tokens=True) == "a photo of a cat"
    ids, _ = ids_of(lambda: "cat " * 60, lambda: "a cat")
    assert tokenizer().decode(ids, skip_special_tokens=True) == "a cat"
    with pytest.raises(ValueError, match="at most 38"):
        ids_of(lambda: "cat " * 60, lambda: "cat " * 60)


def test_kinds_are_balanced_and_two_scenes_in_five_are_of_known_identities():
    scenes = [make_scene(np.random.default_rng([1, k])) for k in range(2000)]
    for kind in DOMAINS:
        assert 0.21 < np.mean([s.identities[0].domain == kind for s in scenes]) < 0.29
    known = np.mean([all(one.seed < KNOWN for one in s.identities) for s in scenes])
    assert 0.36 < known < 0.44
    assert all(
        one.seed >= 3_000_000 for one in make_scene(np.random.default_rng(0), "held-out").identities
    )


@pytest.mark.parametrize("rows", [0, 77, 256])
def test_one_row_stands_for_all_rows_of_zeros(lively, rows):
    latents, states = torch.randn(3, 8, 16, 16), torch.randn(3, CONTEXT, 384)
    pooled, times = torch.randn(3, 384), torch.tensor([3.0, 500.0, 999.0])
    with torch.no_grad():
        stock = lively.transformer(
            latents,
            encoder_hidden_states=torch.cat([states, torch.zeros(3, rows, 384)], dim=1),
            pooled_projections=pooled,
            timestep=times,
        ).sample
        ours = predict(lively.transformer, latents, states, pooled, times, torch.full((3,), rows))
    assert stock.abs().mean() > 0.05
    assert torch.allclose(stock, ours, atol=1e-4)


def test_the_model_reads_a_prompt_as_the_stock_pipeline_does(lively):
    ids = tokenizer()("a photo of a robot", padding="max_length", max_length=CONTEXT)["input_ids"]
    states, pooled = lively.read(torch.tensor([ids]))
    told = make_pipeline(lively).encode_prompt(
        "a photo of a robot", None, None, device="cpu", max_sequence_length=5
    )
    assert torch.equal(told[0], torch.cat([states, torch.zeros(1, 5, 384)], dim=1))
    assert torch.equal(told[2], pooled)


def test_the_same_seed_gives_the_same_batches_and_without_names_nobody_is_called(scenes):
    plan = Plan(batch=32, seed=3)
    first, again = taken(scenes, plan, 7), taken(scenes, plan, 7)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["latents"], taken(scenes, plan, 8)["latents"])
    assert first["called"].any()
    assert not taken(scenes, Plan(batch=32, seed=3, names=False), 7)["called"].any()
    assert VARIANTS.count("full") == 2


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(tmp_path, scenes):
    results = []
    for name, stops in (("whole", [2]), ("stopped", [1, 2])):
        for stop in stops:
            torch.manual_seed(0)
            model = FlowModel()
            plan = Plan(steps=2, batch=4, warmup=1, decay=0.01, save_every=1)
            plan = Plan(**{**plan.__dict__, "steps": stop})
            assert train(model, scenes, tmp_path / name, plan) == stop
        results.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    assert torch.equal(*results)
    fresh = FlowModel()
    assert load_average(fresh, tmp_path / "stopped" / CHECKPOINT)["samples"] == 8


def test_small_files_bring_the_average_back_and_a_lost_one_is_named(tmp_path, lively):
    average = {name: value.detach() for name, value in lively.named_parameters()}
    write_average(tmp_path, average, {"step": 3})
    files = sorted(tmp_path.iterdir())
    assert all(path.stat().st_size < 16 * 2**20 for path in files)
    model = FlowModel()
    assert load_average(model, tmp_path) == {"step": 3}
    assert torch.equal(
        model.text_encoder.text_projection.weight,
        lively.text_encoder.text_projection.weight.half().float(),
    )
    files[0].unlink()
    with pytest.raises(PerdureError, match="whole checkpoint"):
        load_average(model, tmp_path)
    with pytest.raises(PerdureError, match="run the stage 'train' first"):
        load_average(model, tmp_path / "nothing")


def test_the_exported_folder_opens_with_the_stock_loader_and_is_never_replaced(tmp_path, lively):
    from diffusers import StableDiffusion3Pipeline

    export(FlowModel(), tmp_path)
    pipeline = StableDiffusion3Pipeline.from_pretrained(tmp_path, dtype=torch.float32)
    told = pipeline.encode_prompt("a photo of a robot", None, None, device="cpu")[0]
    assert told.shape == (1, CONTEXT + 256, 384)
    assert not told[:, CONTEXT:].any()
    assert draw(pipeline, ["a photo of a robot"], steps=2).shape == (1, 64, 64, 3)
    with pytest.raises(PerdureError, match="already"):
        export(FlowModel(), tmp_path)
