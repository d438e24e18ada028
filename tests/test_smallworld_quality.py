"""The base's quality: its arithmetic against independent computation, on a tiny random pipeline."""

import dataclasses
import json
import math
import re
from collections import Counter

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from perdure.measuring.features import MetricEncoder
from perdure.measuring.scores import frechet, mmd
from perdure.smallworld import quality as q
from perdure.smallworld import recognition as r
from perdure.smallworld import world
from perdure.smallworld.card import FACTS, model_facts, stage_facts, write_card
from perdure.smallworld.train.vocabulary import CONTEXT, make_tokenizer

SETTINGS = {"pictures": 10, "identities": 3, "seed": 4, "steps": 2, "batch": 4}


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def text_config(tokenizer):
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


@pytest.fixture(scope="module")
def pipeline(tokenizer, text_config):
    """A random Stable Diffusion of the world's picture size, a few thousand weights in all."""
    torch.manual_seed(0)
    return StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            norm_num_groups=4,
            sample_size=world.SIZE,
            mid_block_add_attention=False,
        ).eval(),
        text_encoder=CLIPTextModel(CLIPTextConfig(**text_config)).eval(),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(8, 8),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
        ).eval(),
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.fixture(scope="module")
def encoder(tokenizer, text_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(1)
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": world.SIZE,
        "patch_size": 16,
    }
    config = CLIPConfig(text_config=text_config, vision_config=vision, projection_dim=12)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    side = {"height": world.SIZE, "width": world.SIZE}
    CLIPImageProcessorPil(size={"shortest_edge": world.SIZE}, crop_size=side).save_pretrained(
        folder
    )
    return MetricEncoder.open(folder, name="tiny")


@pytest.fixture(scope="module")
def measured(pipeline, encoder):
    """The quality of the tiny pipeline, and every batch of pictures that the encoder was shown."""
    shown = {"pictures": [], "identities": []}
    lines = []

    class Watched:
        name = encoder.name
        texts = staticmethod(encoder.texts)

        def pictures(self, batch):
            shown["pictures"].append(batch)
            return encoder.pictures(batch)

        def identities(self, batch):
            shown["identities"].append(batch)
            return encoder.identities(batch)

    found = q.measure_quality(pipeline, Watched(), progress=lines.append, **SETTINGS)
    return found, shown, lines


def numpy_psnr(vae, pictures: np.ndarray) -> np.ndarray:
    """10 log10(255^2 / MSE) on the 0..255 scale, one picture at a time."""
    values = []
    for picture in pictures:
        x = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255 * 2 - 1
        with torch.no_grad():
            y = vae.decode(vae.encode(x).latent_dist.mean).sample[0].permute(1, 2, 0).numpy()
        back = np.clip((y.astype(np.float64) + 1) / 2, 0, 1) * 255
        values.append(10 * np.log10(255**2 / np.mean((back - picture) ** 2)))
    return np.array(values)


def scenes(domain: str, count: int, seed: int = 0) -> list[world.Scene]:
    seeds = world.SPLITS["held-out"][7 : 7 + count]
    return q.held_out_scenes(domain, seeds, np.random.default_rng(seed))


class Reader:
    """An encoder for which every text is a direction of its own, and a picture the sum of what
    `says` lists for it: texts with weights."""

    name = "reader"

    def __init__(self, says: dict[bytes, dict[str, float]]):
        self.says, self.axes = says, {}

    def vector(self, weights: dict[str, float]) -> torch.Tensor:
        vector = torch.zeros(4096)
        for text, weight in weights.items():
            vector[self.axes.setdefault(text, len(self.axes))] = weight
        return vector / vector.norm().clamp_min(1e-9)

    def pictures(self, batch):
        return torch.stack([self.vector(self.says.get(p.numpy().tobytes(), {})) for p in batch])

    identities = pictures

    def texts(self, texts):
        return torch.stack([self.vector({text: 1.0}) for text in texts])


def test_psnr_is_that_of_a_plain_numpy_computation(pipeline):
    pictures = np.stack([scene.render() for scene in scenes("pet", 5)])
    found = q.reconstruction_psnr(pipeline.vae, torch.from_numpy(pictures), batch=2)
    np.testing.assert_allclose(found.numpy(), numpy_psnr(pipeline.vae, pictures), rtol=1e-4)


def test_psnr_does_not_depend_on_the_scaling_factor(pipeline):
    pictures = torch.from_numpy(np.stack([scene.render() for scene in scenes("pet", 2)]))
    before = q.reconstruction_psnr(pipeline.vae, pictures)
    other = AutoencoderKL.from_config(pipeline.vae.config, scaling_factor=7.0)
    other.load_state_dict(pipeline.vae.state_dict())
    assert torch.equal(before, q.reconstruction_psnr(other.eval(), pictures))


def test_verification_auc_is_that_of_brute_force_over_all_pairs():
    generator = torch.Generator().manual_seed(0)
    who = torch.randn(9, 6, generator=generator).repeat_interleave(2, dim=0)
    features = who + 1.2 * torch.randn(18, 6, generator=generator)
    features = features / features.norm(dim=1, keepdim=True)
    same, different = [], []
    for i in range(9):
        for j in range(9):
            cosine = float(features[2 * i].double() @ features[2 * j + 1].double())
            (same if i == j else different).append(cosine)
    won = [(s > d) + 0.5 * (s == d) for s in same for d in different]
    assert 0.5 < sum(won) / len(won) < 1.0
    assert q.verification_auc(features) == pytest.approx(sum(won) / len(won), abs=1e-12)


def test_recognised_compares_each_picture_with_its_own_texts_only():
    images = torch.eye(3)
    texts = [torch.eye(3)[[1, 0]], torch.eye(3)[[1, 0, 2]], torch.eye(3)[[0, 2]]]
    assert r.recognised(images, texts, [1, 0, 0]).tolist() == [True, True, False]


@pytest.mark.parametrize("domain", world.DOMAINS)
@pytest.mark.parametrize("attribute", r.ATTRIBUTES)
def test_candidates_differ_in_one_attribute_and_hold_the_true_prompt_once(domain, attribute):
    for scene in scenes(domain, 14):
        found = r.candidates(scene, attribute)
        if attribute == "expression" and domain != "person":
            assert found is None
            continue
        texts, true = found
        assert len(set(texts)) == len(texts)
        if attribute == "domain":
            assert [re.search(r"of an? (\w+)", text)[1] for text in texts] == list(
                world.NOUNS.values()
            )
            assert true == world.DOMAINS.index(domain)
        else:
            assert texts[true] == r.scene_prompt(scene)
            values = {
                "background": world.BACKGROUNDS,
                "accessory": world.ACCESSORIES[domain],
                "style": tuple(world.STYLES),
                "expression": world.EXPRESSIONS,
            }[attribute]
            contexts = [dataclasses.replace(scene.context, **{attribute: v}) for v in values]
            words = scene.identities[0].description
            assert texts == [world.prompt(words, context) for context in contexts]


def test_an_unknown_attribute_is_refused_by_name():
    with pytest.raises(ValueError, match="'colour'.*choose one of domain"):
        r.candidates(scenes("pet", 1)[0], "colour")


def test_scenes_use_every_word_equally_often_and_each_identity_once():
    for domain in world.DOMAINS:
        found = scenes(domain, 60)
        assert [s.identities[0].seed for s in found] == list(world.SPLITS["held-out"][7:67])
        for values, name in (
            (world.BACKGROUNDS, "background"),
            (world.ACCESSORIES[domain], "accessory"),
            (tuple(world.STYLES), "style"),
            (world.EXPRESSIONS if domain == "person" else ("neutral",), "expression"),
        ):
            counts = Counter(getattr(scene.context, name) for scene in found)
            assert set(counts) == set(values)
            assert max(counts.values()) - min(counts.values()) <= 1


def test_recognition_is_known_where_the_encoder_reads_the_prompt(monkeypatch, pipeline):
    """Renders say their prompt; drawn pictures say it, and louder that the background is the beach,
    and every second one that it is an object: shares and ratios follow by counting."""
    says: dict[bytes, dict[str, float]] = {}
    asked: list[tuple[world.Scene, int]] = []
    render = world.Scene.render
    scenes_of: dict[str, world.Scene] = {}

    def kind(scene: world.Scene, domain: str) -> str:
        return r.candidates(scene, "domain")[0][world.DOMAINS.index(domain)]

    def rendered(scene: world.Scene) -> np.ndarray:
        picture = render(scene)
        own, domain = r.scene_prompt(scene), scene.identities[0].domain
        scenes_of.setdefault(own, scene)
        says[picture.tobytes()] = {own: 1.0, kind(scene, domain): 1.0}
        return picture

    def drawn(pipeline, prompts, seeds, **options) -> torch.Tensor:
        pictures = []
        for n, prompt in enumerate(prompts):
            scene = scenes_of[prompt]
            beach = dataclasses.replace(scene.context, background="beach")
            picture = np.full((64, 64, 3), n, np.uint8)
            says[picture.tobytes()] = {
                prompt: 1.0,
                r.scene_prompt(dataclasses.replace(scene, context=beach)): 2.0,
                kind(scene, scene.identities[0].domain if n % 2 else "object"): 1.0,
            }
            asked.append((scene, seeds[n]))
            pictures.append(picture)
        return torch.from_numpy(np.stack(pictures))

    monkeypatch.setattr(world.Scene, "render", rendered)
    monkeypatch.setattr(q, "draw", drawn)
    found = q.measure_quality(pipeline, Reader(says), pictures=80, identities=2).recognition

    assert tuple(found) == r.ATTRIBUTES
    assert all(share.renders == 1.0 for share in found.values())
    assert found["background"].drawn == 8 / 80 == found["background"].ratio  # 2 of 20, 4 domains
    # odd ones of every domain say the right noun, even ones only where it is "object"
    assert found["domain"].drawn == (3 * 10 + 20) / 80
    assert found["accessory"].drawn == found["style"].drawn == found["expression"].drawn == 1.0
    assert {name: share.count for name, share in found.items()} == {
        **dict.fromkeys(r.ATTRIBUTES, 80),
        "expression": 20,
    }
    assert found["background"].chance == pytest.approx(0.1)
    assert found["accessory"].chance == pytest.approx((1 / 7 + 1 / 8 + 1 / 4 + 1 / 6) / 4)
    assert [seed for _, seed in asked] == [scene.render_seed for scene, _ in asked]


def test_psnr_figures_are_means_over_the_pictures_that_they_name(measured, pipeline):
    found, shown, _ = measured
    renders = shown["pictures"][1].numpy()
    values = numpy_psnr(pipeline.vae, renders)
    counts = [3, 3, 2, 2]  # of ten pictures
    assert found.psnr["all"] == pytest.approx(values.mean(), rel=1e-4)
    starts = np.cumsum([0, *counts])
    for domain, start, stop in zip(world.DOMAINS, starts, starts[1:], strict=False):
        assert found.psnr[domain] == pytest.approx(values[start:stop].mean(), rel=1e-4)
    people = numpy_psnr(pipeline.vae, shown["identities"][0].numpy())
    assert len(people) == 2 * SETTINGS["identities"]
    assert found.psnr["photos of people"] == pytest.approx(people.mean(), rel=1e-4)


def test_distances_compare_drawn_and_real_with_one_disjoint_set(measured, encoder):
    found, shown, _ = measured
    drawn, real_a, real_b = (encoder.pictures(batch) for batch in shown["pictures"])
    assert len(drawn) == len(real_a) == len(real_b) == SETTINGS["pictures"]
    assert (found.mmd, found.mmd_renders) == (mmd(drawn, real_b), mmd(real_a, real_b))
    assert (found.frechet, found.frechet_renders) == (
        frechet(drawn, real_b),
        frechet(real_a, real_b),
    )


def test_all_identities_are_held_out_and_the_three_sets_are_disjoint(
    monkeypatch, pipeline, encoder
):
    used: list[tuple[str, int]] = []
    held_out, references = q.held_out_scenes, q.references

    def watched_scenes(domain, seeds, rng):
        used.extend((domain, seed) for seed in seeds)
        return held_out(domain, seeds, rng)

    def watched_references(domain, one, count, seed):
        used.append((domain, one))
        found = references(domain, one, count, seed)
        assert [context.style for _, context in found] == ["photo", "photo"]
        assert found[0][1].background != found[1][1].background
        return found

    monkeypatch.setattr(q, "held_out_scenes", watched_scenes)
    monkeypatch.setattr(q, "references", watched_references)
    q.measure_quality(pipeline, encoder, **SETTINGS)
    assert len(used) == len(set(used)) == 2 * SETTINGS["pictures"] + 4 * SETTINGS["identities"]
    assert all(seed in world.SPLITS["held-out"] for _, seed in used)


def test_drawing_is_the_stock_call_picture_by_picture(pipeline):
    prompts = [r.scene_prompt(scene) for scene in scenes("object", 3)]
    lines: list[str] = []
    pipeline.set_progress_bar_config(desc="mine", disable=True)
    drawn = q.draw(
        pipeline, prompts, [5, 6, 7], steps=2, guidance=3.0, batch=2, progress=lines.append
    )
    assert pipeline._progress_bar_config == {"desc": "mine", "disable": True}
    assert lines == ["drawn 2 of 3 pictures", "drawn 3 of 3 pictures"]
    for prompt, seed, picture in zip(prompts, (5, 6, 7), drawn, strict=True):
        alone = pipeline(
            prompt,
            num_inference_steps=2,
            guidance_scale=3.0,
            generator=torch.Generator().manual_seed(seed),
        ).images[0]
        assert np.abs(np.asarray(alone, np.int16) - picture.numpy()).max() <= 1


@pytest.mark.parametrize("autocast", [False, True])
def test_autocast_is_on_only_where_it_is_asked_for(monkeypatch, pipeline, autocast):
    seen = []
    forward = pipeline.unet.forward

    def watched(*args, **kwargs):
        seen.append(torch.is_autocast_enabled("cpu"))
        return forward(*args, **kwargs)

    monkeypatch.setattr(pipeline.unet, "forward", watched)
    q.draw(pipeline, ["a mug"], [0], steps=1, guidance=1.0, batch=1, autocast=autocast)
    assert seen == [autocast]


def test_the_same_seed_measures_the_same(measured, pipeline, encoder):
    again = q.measure_quality(pipeline, encoder, **SETTINGS)
    timed = ("pictures_per_second",)
    first, second = ({**one.to_json()} for one in (measured[0], again))
    assert {k: v for k, v in first.items() if k not in timed} == {
        k: v for k, v in second.items() if k not in timed
    }
    assert measured[0].grid.tobytes() == again.grid.tobytes()


def test_the_grid_has_renders_above_the_pictures_drawn_from_the_same_prompts(measured):
    found, shown, lines = measured
    drawn, renders = shown["pictures"][:2]
    cell = world.SIZE + q.GAP
    assert found.grid.size == (3 * cell + q.GAP, 8 * cell + q.GAP)
    pixels = np.asarray(found.grid)
    starts = [0, 3, 6, 8]
    for row, (start, prompts) in enumerate(zip(starts, found.grid_prompts, strict=True)):
        assert len(prompts) == (3, 3, 2, 2)[row]
        for x in range(len(prompts)):
            for below, pictures in enumerate((renders, drawn)):
                y0, x0 = q.GAP + (2 * row + below) * cell, q.GAP + x * cell
                part = pixels[y0 : y0 + world.SIZE, x0 : x0 + world.SIZE]
                assert np.array_equal(part, pictures[start + x].numpy())
    assert any("drawn 10 of 10" in line for line in lines)


def a_quality(**changes) -> q.Quality:
    share = r.Recognition(drawn=0.81, renders=0.9, chance=0.1, count=40)
    fields = {
        "psnr": {"all": 30.0, "person": 29.0, "photos of people": 31.5},
        "auc": {"person": 0.998, "pet": 0.9},
        "identities": 300,
        "recognition": dict.fromkeys(r.ATTRIBUTES, share),
        "mmd": 0.0021,
        "mmd_renders": 0.0004,
        "frechet": 0.05,
        "frechet_renders": 0.02,
        "pictures_per_second": 12.5,
        "pictures": 40,
        "seed": 0,
        "steps": 25,
        "guidance": 3.0,
        "batch": 32,
        "autocast": True,
        "device": "cpu",
        "threads": 2,
        "encoder": "tiny",
        "grid": Image.new("RGB", (4, 4)),
        "grid_prompts": (("a mug",),),
    }
    return q.Quality(**{**fields, **changes})


def test_every_aim_alone_decides_whether_the_base_passes():
    low = r.Recognition(drawn=0.8, renders=0.9, chance=0.1, count=40)
    good = a_quality()
    assert good.passed
    assert {row.aim for row in good.rows() if row.ok is not None} == {
        ">= 30",
        ">= 0.998",
        ">= 0.9",
    }
    assert not a_quality(psnr={**good.psnr, "all": 29.99}).passed
    assert not a_quality(psnr={**good.psnr, "photos of people": 29.99}).passed
    assert not a_quality(auc={"person": 0.9979, "pet": 1.0}).passed
    for attribute in r.ATTRIBUTES:
        worse = a_quality(recognition={**good.recognition, attribute: low})
        assert [row.name for row in worse.rows() if row.ok is False] == [
            f"Recognised {attribute}, drawn / renders"
        ]


def test_the_ratio_is_zero_where_the_encoder_recognises_nothing():
    assert r.Recognition(drawn=0.5, renders=0.0, chance=0.1, count=4).ratio == 0.0


def test_an_attribute_that_is_only_guessed_in_renders_misses_its_aim_at_any_ratio():
    """At chance 1/4 and 48 pictures a standard error is 1/16: three of them end at 7/16."""
    guessed = r.Recognition(drawn=0.5, renders=7 / 16, chance=0.25, count=48)
    read = dataclasses.replace(guessed, renders=7 / 16 + 1e-6)
    assert guessed.ratio > 1 and not guessed.readable and read.readable
    good = a_quality()
    assert a_quality(recognition={**good.recognition, "expression": read}).passed
    blind = a_quality(recognition={**good.recognition, "expression": guessed})
    assert [row.name for row in blind.rows() if row.ok is False] == [
        "Recognised expression, drawn / renders"
    ]


def test_json_holds_every_figure_and_survives_a_round_trip(measured):
    found = measured[0]
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    names = {item.name for item in dataclasses.fields(q.Quality)} - {"grid"}
    assert set(plain) == names | {"aims", "passed"}
    assert plain["psnr"] == found.psnr and plain["passed"] == found.passed
    share = found.recognition["style"]
    assert plain["recognition"]["style"]["ratio"] == share.ratio
    assert math.isfinite(found.pictures_per_second) and found.pictures_per_second > 0
    assert plain["threads"] == torch.get_num_threads() and plain["device"] == "cpu"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pictures": 7}, "pictures: 7 .* at least 8"),
        ({"identities": 1}, "identities: 1 .* at least 2"),
        ({"steps": 0}, "steps: 0"),
        ({"batch": 0}, "batch: 0"),
        ({"seed": -1}, "seed: -1"),
        ({"pictures": 400_000}, "pictures: 400000 .*100000"),
    ],
)
def test_options_out_of_range_are_refused_by_name(pipeline, encoder, options, message):
    with pytest.raises(ValueError, match=message):
        q.measure_quality(pipeline, encoder, **options)


def some_facts(pipeline, encoder, folder) -> dict[str, object]:
    rows = [
        {"step": n, "loss": 1.0 / n, "norm": 1.0, "lr": 1e-3, "seconds": 60.0 * n}
        for n in range(1, 101)
    ]
    rows[49]["psnr"] = 27.5
    rows[98]["psnr"] = 30.25
    (folder / "log.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return {
        "parts": model_facts(pipeline, encoder),
        "stages": [stage_facts(folder, name="vae", batch=16, seed=2, hardware="one AMX core")],
        "training_pictures": 123_457,
        "held_out_pictures": 2_222,
        "bytes": 40_400_000,
        "command": "perdure doctor --base",
        "hardware": "two AMX cores",
    }


def test_facts_count_parameters_and_read_the_training_log(pipeline, encoder, tmp_path):
    facts = some_facts(pipeline, encoder, tmp_path)
    counts = {part["name"]: part["parameters"] for part in facts["parts"]}
    assert counts["U-Net"] == pipeline.unet.num_parameters()
    assert counts["metric encoder"] == encoder.model.num_parameters()
    assert "identity head" not in counts
    stage = facts["stages"][0]
    assert (stage["steps"], stage["seconds"]) == (100, 6000.0)
    last = np.mean([1.0 / n for n in range(81, 101)])
    assert stage["losses"] == {"loss": pytest.approx(last), "psnr": 30.25}


def test_the_card_says_what_was_measured_and_what_missed_its_aim(pipeline, encoder, tmp_path):
    facts = some_facts(pipeline, encoder, tmp_path)
    path = tmp_path / "docs" / "smallworld.md"
    write_card(path, quality=a_quality(), facts=facts)
    text = path.read_text()
    for row in a_quality().rows():
        assert row.name in text and row.value in text
    for words in ("123,457", "40.4 MB", "perdure doctor --base", "30.25", "one AMX core", "1.7 h"):
        assert words in text, words
    assert "Every figure that has an aim reaches it" in text and "![" not in text
    low = a_quality(auc={"person": 0.9})
    write_card(path, quality=low, facts={**facts, "grid": "smallworld.png", "notes": "A note."})
    text = path.read_text()
    assert "miss their aim: Identity AUC, person (300 identities)." in text
    assert "](smallworld.png)" in text and "A note." in text


def test_a_missing_fact_is_named(pipeline, encoder, tmp_path):
    facts = some_facts(pipeline, encoder, tmp_path)
    for key in FACTS:
        short = {name: value for name, value in facts.items() if name != key}
        with pytest.raises(ValueError, match=f"'{key}' is missing"):
            write_card(tmp_path / "card.md", quality=a_quality(), facts=short)
    del facts["stages"][0]["seconds"]
    with pytest.raises(ValueError, match="stage 'vae' lacks seconds"):
        write_card(tmp_path / "card.md", quality=a_quality(), facts=facts)
