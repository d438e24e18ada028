"""The main job on tiny models: learn, keep, draw; nothing lost, nothing moved."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PHOTOS
from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from transformers import Dinov2Config, Dinov2Model

from perdure.adapters import Prompts
from perdure.bank import Bank
from perdure.drawing.painter import Painter
from perdure.drawing.stock import stock_difference
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.hosts.diffusion.objective import of_schedule
from perdure.learning import learn as teaching
from perdure.learning.advice import make_settings
from perdure.learning.composition import EVERYDAY, MOST_PROMPTS, prompts_of
from perdure.learning.latents import cache, reconstruction
from perdure.learning.learn import learn, resume
from perdure.learning.moments import TEMPLATES
from perdure.learning.photos import read_pictures
from perdure.learning.request import discard
from perdure.measuring.evaluate import evaluate
from perdure.measuring.features import MetricEncoder
from perdure.measuring.scores import diversity, image_alignment, kid, mmd
from perdure.measuring.sharpness import sharpness
from perdure.methods import METHODS, Shapes
from perdure.methods.fl2t import FL2T

CONTINUAL = [name for name in METHODS if not METHODS[name].all_at_once]
FAST = {"steps": 4, "checkpoint_every": 2}
OPTIONS = {"rank": 2}


def options(method: str) -> dict[str, int]:
    known = {field.name for field in fields(METHODS[method].Config)}
    small = OPTIONS | {"replay": 2, "width": 8, "heads": 2, "together_steps": 4}
    return {key: value for key, value in small.items() if key in known}


@pytest.fixture(scope="module")
def base(tiny: Path) -> Base:
    torch.set_num_threads(1)
    return Base.open(tiny, device="cpu")


def hashes(bank: Path) -> dict[str, str]:
    return {
        str(path.relative_to(bank)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((bank / "concepts").rglob("*.safetensors"))
    }


def pixels(pictures: list) -> np.ndarray:
    return np.stack([np.asarray(p) for p in pictures]).astype(int)


def teach(base: Base, bank: Path, drawings: Path, *names: str, **settings: object) -> None:
    for name in names:
        learn(base, bank, {name: drawings / name}, options=OPTIONS, **{**FAST, **settings})


@pytest.mark.parametrize("method", CONTINUAL)
def test_two_tasks_are_learned_and_the_first_concepts_file_never_changes(
    method: str, base: Base, drawings: Path, tmp_path: Path
) -> None:
    bank = tmp_path / "bank"
    learn(base, bank, {"ada": drawings / "ada"}, method=method, options=options(method), **FAST)
    before = hashes(bank)
    learn(base, bank, {"bo": drawings / "bo"}, **FAST)
    after = hashes(bank)
    assert before.items() < after.items()
    assert Bank.open(bank).concepts == ("ada", "bo")
    assert not Bank.open(bank).workspace.exists()


@pytest.mark.parametrize("method", CONTINUAL)
def test_a_bank_draws_the_same_after_it_is_opened_anew_on_a_fresh_base(
    method: str, base: Base, tiny: Path, drawings: Path, tmp_path: Path
) -> None:
    bank = tmp_path / "bank"
    for name in ("ada", "bo"):
        learn(base, bank, {name: drawings / name}, method=method, options=options(method), **FAST)
    prompts = ["a photo of <ada>", "a photo of <bo> and <ada>"]
    first = Painter(base, bank).draw(prompts, seeds=[1, 2])
    second = Painter(Base.open(tiny, device="cpu"), bank).draw(prompts, seeds=[1, 2])
    assert np.array_equal(pixels(first), pixels(second))


@pytest.mark.parametrize("method", CONTINUAL)
def test_a_resumed_learn_ends_in_the_same_bits(
    method: str, base: Base, drawings: Path, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for bank in (whole, cut):
        learn(base, bank, {"ada": drawings / "ada"}, method=method, options=options(method), **FAST)
    learn(base, whole, {"bo": drawings / "bo"}, **FAST)

    class PlugPulled(Exception):
        pass

    def pull(progress: object) -> None:
        if progress.step == 3:  # type: ignore[attr-defined]
            raise PlugPulled

    with pytest.raises(PlugPulled):
        learn(base, cut, {"bo": drawings / "bo"}, report=pull, **FAST)
    assert Bank.open(cut).concepts == ("ada",)
    resume(base, cut)
    a, b = Bank.open(whole), Bank.open(cut)
    for (names, tensors), (other_names, other) in zip(a.kept(), b.kept(), strict=True):
        assert names == other_names
        assert tensors.keys() == other.keys()
        assert all(torch.equal(tensors[key], other[key]) for key in tensors)
    assert all(torch.equal(a.tokens()[n].rows, b.tokens()[n].rows) for n in ("ada", "bo"))
    assert (b.task_folder("bo") / "log.jsonl").read_text().count("\n") == FAST["steps"]


def test_the_learner_sees_what_the_trained_token_means_in_every_template(
    base: Base, drawings: Path, tmp_path: Path
) -> None:
    templates = ("a photo of {}", "{} at the beach")
    options = {"rank": 2, "shared": 2, "layerwise_tokens": False}
    pictures = {name: drawings / name for name in ("ada", "bo")}
    learn(
        base,
        tmp_path / "bank",
        pictures,
        method="cidm",
        options=options,
        templates=templates,
        **FAST,
    )
    bank = Bank.open(tmp_path / "bank")
    for name in pictures:
        with torch.no_grad(), base.session(tokens=bank.tokens()) as session:
            said = session.conditioning([text.format(f"<{name}>") for text in templates]).prompts
        places = [(prompt, place) for prompt, of in enumerate(said.spoken) for _, place in of]
        assert len(places) == len(templates)
        expected = torch.stack([said.states[place] for place in places]).mean(dim=0)
        kept = bank.kept()[0][1][f"encoded/{name}"]
        assert torch.allclose(kept, expected, atol=1e-5)


def test_what_is_trained_together_reads_each_concept_in_the_prompts_it_was_taught_with(
    base: Base, drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, read = FL2T.start_composition, []

    def noted(method: FL2T, shapes: Shapes, kept: Any, together: Any, prompts: Prompts, g: Any):  # type: ignore[no-untyped-def]
        read.append(prompts.spoken)
        return start(method, shapes, kept, together, prompts, g)

    monkeypatch.setattr(FL2T, "start_composition", noted)
    taught = {"ada": ("a photo of {}",), "bo": ("{} at sea", "a thing in {} style"), "cy": ("{}",)}
    for name, templates in taught.items():
        source = {name: drawings / name}
        known = {"method": "fl2t", "options": options("fl2t"), "templates": templates}
        learn(base, tmp_path / "bank", source, **known, **FAST)  # type: ignore[arg-type]
    seen = {name: [at for ((who, at),) in read[-1] if who == name] for name in taught}
    places = {"ada": [4], "bo": [1, 4], "cy": [1]}  # after the begin token
    assert {name: at[: len(places[name])] for name, at in seen.items()} == places
    assert all(len(seen[name]) == len(places[name]) + EVERYDAY for name in taught)


def test_what_is_trained_together_reads_other_prompts_in_every_task() -> None:
    taught = {"ada": ("a photo of {}",), "bo": ("{} at sea", "a thing in {} style")}
    texts = prompts_of(taught, seed=0)
    assert texts == prompts_of(taught, seed=0) and len(texts) == 3 + 2 * EVERYDAY
    assert all(text.count("<") == 1 for text in texts)
    alone, company = set(), set()
    for seed in range(20):
        texts = prompts_of(taught, seed)
        assert texts[0] == "a photo of <ada>"
        assert texts[1 + EVERYDAY :][:2] == ["<bo> at sea", "a thing in <bo> style"]
        alone |= set(texts[1 : 1 + EVERYDAY : 2])
        company |= set(texts[2 : 1 + EVERYDAY : 2])
    assert alone == {text.format("<ada>") for text in TEMPLATES}
    assert any(text.startswith("a photo of <ada> next to a") for text in company)
    assert any(text.endswith(" and <ada>") for text in company) and len(company) > 40


def test_a_large_bank_reads_no_more_prompts_than_a_bound() -> None:
    taught = {f"c{i}": ("a photo of {}", "a close-up of {}") for i in range(200)}
    texts = prompts_of(taught, seed=0)
    assert len(texts) == MOST_PROMPTS
    assert len({text[text.index("<") : text.index(">")] for text in texts}) > 190
    assert texts != prompts_of(taught, seed=1)


def test_what_a_bank_trained_together_is_replaced_with_each_commit_and_removal(
    base: Base, drawings: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bank"
    for name in ("ada", "bo"):
        learn(base, path, {name: drawings / name}, method="fl2t", options=options("fl2t"), **FAST)
    bank = Bank.open(path)
    assert [p.name for p in path.glob("composition*")] == ["composition.1.safetensors"]
    together = bank.composition()
    assert {key for key in together if key.startswith("proxy/")} == {"proxy/ada", "proxy/bo"}
    assert bank.metadata("bo")["facts"]["composition"]["loss"] > 0
    method = teaching.build("fl2t", **bank.config)
    bank.remove("ada", composition=method.without(together, "ada"))  # type: ignore[attr-defined]
    bank = Bank.open(path)
    assert {key for key in bank.composition() if key.startswith("proxy/")} == {"proxy/bo"}
    Painter(base, bank).draw(["a photo of <bo>"], seeds=[0])
    file = next(path.glob("composition*"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(PerdureError, match="composition.*damaged"):
        bank.composition()


def test_a_learn_cut_in_its_second_step_ends_in_the_same_bits(
    base: Base, drawings: Path, tmp_path: Path
) -> None:
    class PlugPulled(Exception):
        pass

    steps: list[int] = []

    def pull(progress: object) -> None:
        steps.append(progress.step)  # type: ignore[attr-defined]
        if steps == [1, 2, 3, 4, 1, 2, 3]:
            raise PlugPulled

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    settings = {"method": "fl2t", "options": options("fl2t"), **FAST}
    learn(base, whole, {"ada": drawings / "ada"}, **settings)
    with pytest.raises(PlugPulled):
        learn(base, cut, {"ada": drawings / "ada"}, report=pull, **settings)
    assert Bank.open(cut).concepts == ()
    record = resume(base, cut)
    assert np.isfinite(record.facts["loss"])  # the first step's, which had ended
    assert hashes(cut).keys() == hashes(whole).keys()
    one, other = Bank.open(whole).composition(), Bank.open(cut).composition()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    one, other = Bank.open(whole).kept()[0][1], Bank.open(cut).kept()[0][1]
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_learning_changes_the_drawing_and_nothing_in_the_base(
    base: Base, drawings: Path, tmp_path: Path
) -> None:
    identity = base.identity.hash
    pristine = {name: w.clone() for name, w in base.pristine.items()}
    table = base.tokens.vocabularies[0].table
    own = table.weight.clone()
    teach(base, tmp_path / "bank", drawings, "ada", lr=1e-2, method="c-lora")
    painter = Painter(base, tmp_path / "bank")
    drawn = painter.draw(["a photo of a cat"], seeds=[0])
    untouched = Painter(base, tmp_path / "bank", upto=0).draw(["a photo of a cat"], seeds=[0])
    assert np.abs(pixels(drawn) - pixels(untouched)).max() > 0
    for name, layer in base.layers.items():
        assert torch.equal(layer.weight, pristine[name])
    assert base.tokens.vocabularies[0].table is table and torch.equal(table.weight, own)
    assert Base.open(base.pipeline.name_or_path, device="cpu").identity.hash == identity


def test_the_loss_falls_on_a_few_pictures(base: Base, drawings: Path, tmp_path: Path) -> None:
    record = learn(
        base,
        tmp_path / "bank",
        {"ada": drawings / "ada"},
        method="lora",
        options={"rank": 8},
        steps=120,
        lr=2e-2,
        token_lr=2e-2,
        batch_size=4,
    )
    log = (Bank.open(tmp_path / "bank").task_folder(record) / "log.jsonl").read_text()
    losses = [json.loads(line)["loss"] for line in log.splitlines()]
    assert np.mean(losses[-40:]) < np.mean(losses[:40])


def test_the_folded_export_draws_what_the_bank_draws_with_the_stock_pipeline(
    base: Base, drawings: Path, tmp_path: Path
) -> None:
    teach(base, tmp_path / "bank", drawings, "ada", "bo", lr=0.1, method="c-lora")
    painter = Painter(base, tmp_path / "bank")
    ours = painter.draw(["a photo of <ada>"], seeds=[3], steps=3, guidance=2.0)
    painter.save_folded(tmp_path / "folded")
    stock = StableDiffusionPipeline.from_pretrained(
        tmp_path / "folded", safety_checker=None, requires_safety_checker=False
    )
    stock.set_progress_bar_config(disable=True)
    for attention, most in ((AttnProcessor(), 0), (AttnProcessor2_0(), 8)):  # of 255
        stock.unet.set_attn_processor(attention)
        with torch.no_grad(), base.autocast():
            theirs = stock(
                "a photo of <ada>",
                num_inference_steps=3,
                guidance_scale=2.0,
                height=32,
                width=32,
                generator=[torch.Generator().manual_seed(3)],
            ).images
        assert np.abs(pixels(ours) - pixels(theirs)).max() <= most
    off = stock_difference(painter, tmp_path / "folded", ["a photo of <ada>"])
    earlier = Painter(base, tmp_path / "bank", upto=1)
    assert off <= 8
    assert off < stock_difference(earlier, tmp_path / "folded", ["a photo of <ada>"])
    with pytest.raises(PerdureError, match="not empty"):
        painter.save_folded(tmp_path / "folded")


def test_kill_minus_nine_at_twenty_random_moments_loses_nothing(
    base: Base, drawings: Path, tmp_path: Path
) -> None:
    """The bank opens every time, and a resume ends in the bits of a run that was not killed."""
    settings = {"steps": 12, "checkpoint_every": 2}
    start = tmp_path / "start"
    teach(base, start, drawings, "ada")
    whole = tmp_path / "whole"
    shutil.copytree(start, whole)
    began = time.monotonic()
    learn(base, whole, {"bo": drawings / "bo"}, **settings)
    length = time.monotonic() - began
    expected = hashes(whole)["concepts/ada/concept.safetensors"], Bank.open(whole).kept()[1][1]
    fork = multiprocessing.get_context("fork")
    rng, landed = random.Random(0), []
    for attempt in range(20):
        bank = tmp_path / f"bank{attempt}"
        shutil.copytree(start, bank)
        child = fork.Process(
            target=learn, args=(base, bank, {"bo": drawings / "bo"}), kwargs=settings
        )
        child.start()
        time.sleep(rng.uniform(0, 1.1 * length))
        os.kill(child.pid, signal.SIGKILL)  # type: ignore[arg-type]
        child.join()
        opened = Bank.open(bank)
        assert opened.concepts in (("ada",), ("ada", "bo"))
        landed.append(len(opened.concepts))
        if opened.concepts == ("ada",):
            if (opened.workspace / "request.json").exists():
                resume(base, bank)
            else:
                discard(bank)
                learn(base, bank, {"bo": drawings / "bo"}, **settings)
        tensors = Bank.open(bank).kept()[1][1]
        assert all(torch.equal(tensors[key], expected[1][key]) for key in expected[1])
        assert hashes(bank)["concepts/ada/concept.safetensors"] == expected[0]
    assert landed.count(1) >= 5  # the kills did fall into the learn


def test_an_interrupted_learn_is_named_and_can_be_given_up(
    base: Base, drawings: Path, tmp_path: Path
) -> None:
    bank = tmp_path / "bank"
    teach(base, bank, drawings, "ada")

    def pull(progress: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(base, bank, {"bo": drawings / "bo"}, report=pull, **FAST)
    with pytest.raises(PerdureError, match=r"<bo> was interrupted.*--resume"):
        learn(base, bank, {"cy": drawings / "cy"}, **FAST)
    discard(bank)
    with pytest.raises(PerdureError, match="Nothing was interrupted"):
        resume(base, bank)
    learn(base, bank, {"cy": drawings / "cy"}, **FAST)
    assert Bank.open(bank).concepts == ("ada", "cy")


def test_a_resume_with_other_pictures_is_refused(
    base: Base, drawings: Path, tmp_path: Path
) -> None:
    pictures = tmp_path / "bo"
    shutil.copytree(drawings / "bo", pictures)

    def pull(progress: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(base, tmp_path / "bank", {"bo": pictures}, report=pull, options=OPTIONS, **FAST)
    shutil.copy(drawings / "cy" / "0.png", pictures / "0.png")
    with pytest.raises(PerdureError, match="pictures of <bo> are not those"):
        resume(base, tmp_path / "bank")


def test_another_base_is_refused_with_both_named(
    base: Base, tiny_v: Path, drawings: Path, tmp_path: Path
) -> None:
    teach(base, tmp_path / "bank", drawings, "ada")
    other = Base.open(tiny_v, device="cpu")
    with pytest.raises(PerdureError, match=r"tiny.*tiny-v|tiny-v.*tiny"):
        learn(other, tmp_path / "bank", {"bo": drawings / "bo"}, **FAST)
    with pytest.raises(PerdureError, match="tiny-v"):
        Painter(other, tmp_path / "bank")


def test_another_method_or_option_for_a_bank_is_refused(
    base: Base, drawings: Path, tmp_path: Path
) -> None:
    teach(base, tmp_path / "bank", drawings, "ada")
    with pytest.raises(PerdureError, match="lora"):
        learn(base, tmp_path / "bank", {"bo": drawings / "bo"}, method="lora", **FAST)
    with pytest.raises(PerdureError, match="rank"):
        learn(base, tmp_path / "bank", {"bo": drawings / "bo"}, options={"rank": 3}, **FAST)
    with pytest.raises(PerdureError, match="nonsense"):
        learn(base, tmp_path / "new", {"bo": drawings / "bo"}, options={"nonsense": 3}, **FAST)
    with pytest.raises(PerdureError, match="There is no learning option 'step'"):
        learn(base, tmp_path / "bank", {"bo": drawings / "bo"}, step=3)
    assert Bank.open(tmp_path / "bank").concepts == ("ada",)


def test_a_prompt_with_an_unknown_concept_is_refused_by_name(
    base: Base, drawings: Path, tmp_path: Path
) -> None:
    teach(base, tmp_path / "bank", drawings, "ada")
    with pytest.raises(PerdureError, match="<zoe>.*it knows <ada>"):
        Painter(base, tmp_path / "bank").draw(["a photo of <zoe>"], seeds=[0])


def test_a_v_prediction_base_and_every_option_of_the_loop_work_together(
    tiny_v: Path, drawings: Path, tmp_path: Path
) -> None:
    other = Base.open(tiny_v, device="cpu")
    record = learn(
        other,
        tmp_path / "bank",
        {"ada": drawings / "ada", "bo": drawings / "bo"},
        options=OPTIONS,
        nouns={"ada": "person"},
        accumulate=2,
        flip=True,
        fit="letterbox",
        templates=("a photo of {}", "{} at the beach"),
        prior="a photo of a person",
        prior_pictures=3,
        weight_decay=0.1,
        **FAST,
    )
    assert record.concepts == ("ada", "bo")
    assert set(Bank.open(tmp_path / "bank").tokens()) == {"ada", "bo"}


def test_accumulated_passes_are_one_larger_batch_in_expectation(
    base: Base, drawings: Path, tmp_path: Path
) -> None:
    losses = {}
    for accumulate, batch_size in ((1, 8), (8, 1)):
        bank = tmp_path / f"bank{accumulate}"
        record = learn(
            base,
            bank,
            {"ada": drawings / "ada"},
            options=OPTIONS,
            steps=10,
            batch_size=batch_size,
            accumulate=accumulate,
        )
        log = (Bank.open(bank).task_folder(record) / "log.jsonl").read_text().splitlines()
        losses[accumulate] = np.mean([json.loads(line)["loss"] for line in log])
    assert losses[1] == pytest.approx(losses[8], rel=0.25)


def test_the_objective_is_the_noise_or_v_of_the_schedule() -> None:
    scheduler = DDIMScheduler(num_train_timesteps=10, prediction_type="v_prediction")
    x, noise = torch.randn(4, 2, 3, 3), torch.randn(4, 2, 3, 3)
    t = torch.tensor([0, 3, 6, 9])
    v = of_schedule(scheduler.alphas_cumprod, "v_prediction")
    assert torch.allclose(v.noised(x, noise, t), scheduler.add_noise(x, noise, t), atol=1e-6)
    assert torch.allclose(v.target(x, noise, t), scheduler.get_velocity(x, noise, t), atol=1e-6)
    assert torch.equal(of_schedule(scheduler.alphas_cumprod, "epsilon").target(x, noise, t), noise)
    with pytest.raises(PerdureError, match="sample"):
        of_schedule(scheduler.alphas_cumprod, "sample")


def test_a_bank_holds_no_pixel_of_the_user(base: Base, drawings: Path, tmp_path: Path) -> None:
    teach(base, tmp_path / "bank", drawings, "ada")
    files = [p for p in (tmp_path / "bank").rglob("*") if p.is_file()]
    assert not [p for p in files if p.suffix in {".png", ".jpg", ".webp"}]
    assert sum(p.stat().st_size for p in files) < 200_000


def test_a_cosine_goes_from_the_given_rate_to_zero() -> None:
    settings = make_settings({}, {"steps": 4, "schedule": "cosine"})
    shares = [settings.share_of_rate(step) for step in range(5)]
    assert shares == pytest.approx([1, 0.8535534, 0.5, 0.1464466, 0])
    assert make_settings({}, {}).share_of_rate(700) == 1.0
    with pytest.raises(PerdureError, match="schedule is 'linear', but must be"):
        make_settings({}, {"schedule": "linear"})


def test_threads_that_share_a_base_get_the_pictures_that_each_gets_alone(
    base: Base, drawings: Path, tmp_path: Path
) -> None:
    banks = {}
    for name, method in (("ada", "lora"), ("bo", "dreambooth")):
        learn(base, tmp_path / name, {name: drawings / name}, method=method, lr=0.1, **FAST)
        banks[name] = Painter(base, tmp_path / name)

    def drawn(name: str) -> tuple[str, bytes, list[bytes]]:
        seeds = range(4)
        prompts = [f"a photo of <{name}>"] * len(seeds)
        pictures = banks[name].draw(prompts, seeds=seeds, steps=2, batch_size=1)
        folder = tmp_path / f"{name}-{time.monotonic_ns()}"
        banks[name].save_folded(folder)
        (weights,) = (folder / "unet").glob("*.safetensors")
        mark = banks[name].fingerprint(prompts[0])
        return mark, weights.read_bytes(), [picture.tobytes() for picture in pictures]

    alone = {name: drawn(name) for name in banks}
    with ThreadPoolExecutor(2) as pool:
        together = pool.map(drawn, [*banks] * 3)
        for name, pictures in zip([*banks] * 3, together, strict=True):
            assert pictures == alone[name]


def test_a_base_that_learns_draws_afterwards(base: Base, drawings: Path, tmp_path: Path) -> None:
    learn(base, tmp_path / "done", {"ada": drawings / "ada"}, method="dreambooth", **FAST)
    painter = Painter(base, tmp_path / "done")
    before = painter.fingerprint("<ada>")
    with ThreadPoolExecutor(1) as pool:
        prints: list[Future[str]] = []
        learn(
            base,
            tmp_path / "new",
            {"bo": drawings / "bo"},
            report=lambda progress: prints.append(pool.submit(painter.fingerprint, "<ada>")),
            **FAST,
        )
        assert [one.result() for one in prints] == [before] * FAST["steps"]
    learn(base, tmp_path / "alone", {"bo": drawings / "bo"}, **FAST)
    (mine, row), (theirs, other) = (
        Bank.open(tmp_path / which).read("bo") for which in ("new", "alone")
    )
    assert torch.equal(row["bo"].rows, other["bo"].rows) and mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_settings_name_the_option_and_the_mend() -> None:
    for given, words in (
        ({"steps": 0}, "steps is 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"templates": ["a photo"]}, "templates"),
        ({"fit": "stretch"}, "'crop', 'letterbox' or"),
        ({"seed": -1}, "seed is -1"),
    ):
        with pytest.raises(PerdureError, match=words):
            make_settings({}, given)
    assert make_settings({"steps": 7}, {"lr": 1.0}).steps == 7


def test_a_base_says_itself_what_pictures_it_is_for(tiny: Path, drawings: Path) -> None:
    opened = Base.open(tiny, device="cpu")
    pictures = read_pictures(drawings / "ada", size=opened.size)
    latents = cache(opened, pictures)
    opened.hints = {"pictures": "tiny is for noise; for cats take another one."}
    assert reconstruction(opened, pictures, latents)[1].endswith(opened.hints["pictures"])
    opened.hints = {}
    opened.name = "smallworld"
    assert "smallworld is for" not in reconstruction(opened, pictures, latents)[1]
    assert "drawn world" in Base.open("smallworld", device="cpu").hints["pictures"]


@pytest.mark.skipif(
    not PHOTOS.is_dir(), reason="the folder of photographs is not beside the project"
)
def test_photographs_are_learned_drawn_and_measured_on_a_stable_diffusion_folder(
    base: Base, tmp_path: Path
) -> None:
    notes: list[str] = []
    for name in ("dog", "teapot"):
        learn(base, tmp_path / "bank", {name: PHOTOS / name}, note=notes.append, **FAST)
    assert any("cannot even reproduce" in sentence for sentence in notes)
    result = evaluate(
        base,
        tmp_path / "bank",
        MetricEncoder.open(base.encoder),
        references={name: PHOTOS / name for name in ("dog", "teapot")},
        pictures=2,
        held_out=False,
    )
    assert result.matrix.concepts == ("dog", "teapot")
    assert result.matrix.at("identity", 0, "teapot") is None
    for score in ("identity", "image_alignment", "mmd", "kid", "text_alignment", "base_drift"):
        assert np.isfinite(result.matrix.need(score, 1, "dog"))


def test_every_score_is_of_the_features_that_it_is_named_after(
    base: Base, drawings: Path, tmp_path: Path
) -> None:
    """With an identity head of its own, identity and image embedding are not the same thing."""
    sources = {name: drawings / name for name in ("ada", "bo")}
    for name, folder in sources.items():
        learn(base, tmp_path / "bank", {name: folder}, **FAST)
    weight = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    encoder = replace(MetricEncoder.of(base), identity_weight=weight)
    result = evaluate(base, tmp_path / "bank", encoder, references=sources, pictures=3)
    first, last = result.drawn["ada"][0], result.drawn["ada"][1]
    told, real = result.matrix, result.references["ada"]
    for score, value in {
        "identity": image_alignment(encoder.identities(last), encoder.identities(real)),
        "image_alignment": image_alignment(encoder.pictures(last), encoder.pictures(real)),
        "mmd": mmd(encoder.pictures(last), encoder.pictures(real)),
        "kid": kid(encoder.pictures(last), encoder.pictures(real)),
        "diversity": diversity(encoder.pictures(last)),
        "sharpness": sharpness(last, real),
        "mmd_change": mmd(encoder.pictures(first), encoder.pictures(last)),
        "likeness_kept": float(
            (encoder.identities(first) * encoder.identities(last)).sum(dim=1).mean()
        ),
    }.items():
        assert told.need(score, 1, "ada") == pytest.approx(value, rel=1e-4, abs=1e-7), score
    assert result.encoder == encoder.facts()


def test_an_encoder_that_reads_no_texts_leaves_their_scores_out(
    base: Base, drawings: Path, tmp_path: Path
) -> None:
    learn(base, tmp_path / "bank", {"ada": drawings / "ada"}, **FAST)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    Dinov2Model(Dinov2Config(**sizes, image_size=32, patch_size=8)).save_pretrained(tmp_path / "e")
    scheme = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    (tmp_path / "e" / "preprocessor_config.json").write_text(json.dumps(scheme))
    encoder = MetricEncoder.open(tmp_path / "e")
    found = evaluate(base, tmp_path / "bank", encoder, references={"ada": drawings / "ada"})
    assert not {"text_alignment", "text_held_out"} & set(found.matrix.scores)
    assert np.isfinite(found.matrix.need("identity_held_out", 0, "ada"))
    assert np.isfinite(found.matrix.need("image_alignment", 0, "ada"))


def test_build_method_takes_a_bases_advice_and_the_users_word_over_it(base: Base) -> None:
    base.hints = {**base.hints, "methods": {"c-lora": {"rank": 3, "penalty": 7.0}}}
    try:
        made = teaching.build_method("c-lora", base, {"rank": 5})
        assert (made.config.rank, made.config.penalty) == (5, 7.0)  # type: ignore[attr-defined]
    finally:
        base.hints = {k: v for k, v in base.hints.items() if k != "methods"}
