"""Generative replay: what is drawn again, with which chance it is learned, and what is stored."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from perdure.bank import Bank
from perdure.drawing.painter import Painter
from perdure.hosts.diffusion.host import Base
from perdure.learning import learn as teaching
from perdure.learning import loop
from perdure.learning.advice import make_settings
from perdure.learning.drawn import Replay, replayed
from perdure.learning.latents import Latents
from perdure.learning.learn import learn
from perdure.learning.loop import train
from perdure.learning.settings import LearnSettings
from perdure.methods import Kept, Method, build
from perdure.randomness import seed_of

FAST = {"steps": 3, "checkpoint_every": 2, "lr": 1e-2}


@pytest.fixture(scope="module")
def base(tiny: Path) -> Base:
    torch.set_num_threads(1)
    return Base.open(tiny, device="cpu")


@pytest.fixture(scope="module")
def bank(base: Base, drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two concepts; two pictures of the first were replayed while the second was learned."""
    path = tmp_path_factory.mktemp("replay") / "bank"
    options = {"rank": 2, "replay": 2}
    for name in ("ada", "bo"):
        source = {name: drawings / name}
        learn(base, path, source, method="generative-replay", options=options, **FAST)
    return path


def of_bank(path: Path) -> tuple[Method, list[Kept]]:
    opened = Bank.open(path)
    kept = [Kept(concepts=names, tensors=tensors) for names, tensors in opened.kept()]
    return build(opened.method, **opened.config), kept


PLAIN = {name: ("a photo of {}",) for name in ("ada", "bo")}


def settings_of(base: Base, seed: int = 0) -> LearnSettings:
    return make_settings(base.hints.get("learning", {}), {"seed": seed})


def latents_of(replays: Mapping[str, Replay]) -> dict[str, Latents]:
    return {name: replay.latents for name, replay in replays.items()}


def test_the_same_seed_draws_the_same_bits_again_and_another_seed_others(
    base: Base, bank: Path
) -> None:
    method, kept = of_bank(bank)
    with base.session(tokens=Bank.open(bank).tokens()) as session:
        one, two, other = (
            latents_of(replayed(session, method, kept, PLAIN, settings_of(base, seed)))
            for seed in (0, 0, 1)
        )
    assert list(one) == ["ada", "bo"]
    for name in one:
        assert len(one[name]) == 2
        assert torch.equal(one[name].mean, two[name].mean)
        assert not torch.equal(one[name].mean, other[name].mean)
        assert not one[name].std.any()
    assert not torch.equal(one["ada"].mean[0], one["ada"].mean[1])
    assert all(torch.equal(base.layers[k].weight, W) for k, W in base.pristine.items())


def test_what_is_replayed_is_what_the_bank_draws(base: Base, bank: Path) -> None:
    method, kept = of_bank(bank)
    painter = Painter(base, bank)
    templates = {**PLAIN, "bo": ("{} at sea", "{}")}
    with base.session(tokens=painter.tokens) as session:
        replay = replayed(session, method, kept, templates, settings_of(base))["bo"]
    assert replay.prompt == "<bo> at sea"
    seeds = [seed_of(0, 2, 1, k) for k in range(2)]  # after two tasks, the second concept
    unguided = painter.draw([replay.prompt] * 2, seeds=seeds, guidance=1)
    drawn = np.stack([np.asarray(picture) for picture in unguided])
    again = (base.decode(replay.latents.mean).permute(0, 2, 3, 1).numpy() + 1) * 127.5
    assert np.abs(drawn - again).max() <= 6  # where bf16 is fast, the painter decodes in it


def test_only_a_method_that_replays_draws_anything(base: Base, bank: Path) -> None:
    _, kept = of_bank(bank)
    with base.session() as session:
        settings = settings_of(base)
        assert replayed(session, build("lora", rank=2), kept, PLAIN, settings) == {}
        assert replayed(session, build("generative-replay"), [], {}, settings) == {}


def test_half_of_a_batch_is_replayed_evenly_over_the_past_with_their_own_prompts(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {name: torch.randn(1, 32) for name in ("ada", "bo", "cy")}
    value = {"ada": 1.0, "bo": 2.0, "cy": 3.0}
    latents = {
        name: Latents(mean=torch.full((5, 4, 8, 8), v), std=torch.zeros(5, 4, 8, 8))
        for name, v in value.items()
    }
    seen: Counter[str] = Counter()

    def count(step: loop.Step, x: Tensor, prompts: list[str], *rest: object) -> Tensor:
        for one, said in zip(x, prompts, strict=True):
            (name,) = [name for name in value if f"<{name}>" in said]
            assert float(one.mean()) == value[name]
            assert ("painting" in said) == (name == "cy") and ("style" in said) == (name == "bo")
            seen[name] += 1
        return torch.zeros(())

    monkeypatch.setattr(loop.Step, "_loss", count)
    learner = build("generative-replay").start(
        base.shapes, [], {"cy": rows["cy"]}, torch.Generator()
    )
    settings = LearnSettings(batch_size=10, templates=("a painting of {}",))
    old = {
        "ada": Replay(latents=latents["ada"], prompt="a photo of <ada>"),
        "bo": Replay(latents=latents["bo"], prompt="a thing in <bo> style"),
    }
    with base.session() as session:
        batches = loop.Step(session, learner, {"cy": [latents["cy"]]}, settings, None, old)
        for step in range(200):
            batches._denoising(10, torch.Generator().manual_seed(step))
    # 2000 draws: 1000 +- 22 new ones, 500 +- 19 of each past concept
    assert abs(seen["cy"] - 1000) < 90
    assert abs(seen["ada"] - 500) < 80 and abs(seen["bo"] - 500) < 80


def test_nothing_of_what_was_drawn_is_stored_and_the_past_tokens_stay(
    base: Base, bank: Path
) -> None:
    opened = Bank.open(bank)
    for _, tensors in opened.kept():
        assert {key.rpartition("/")[2] for key in tensors} == {"A", "B"}
    assert not [path for path in bank.rglob("*") if path.suffix in {".png", ".npy", ".pt"}]
    assert sum(path.stat().st_size for path in bank.rglob("*") if path.is_file()) < 200_000


def test_the_replay_changes_what_is_learned(
    base: Base, bank: Path, drawings: Path, tmp_path: Path
) -> None:
    """The first task is that of sequential LoRA to the bit; the second is not."""
    for name in ("ada", "bo"):
        source = {name: drawings / name}
        learn(base, tmp_path / "b", source, method="lora", options={"rank": 2}, **FAST)
    (_, first), (_, second) = Bank.open(tmp_path / "b").kept()
    (_, first_replayed), (_, second_replayed) = Bank.open(bank).kept()
    assert all(torch.equal(first[key], first_replayed[key]) for key in first)
    assert not all(torch.equal(second[key], second_replayed[key]) for key in second)


def test_a_concept_is_replayed_with_the_first_prompt_that_it_was_taught_with(
    base: Base, drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, str] = {}

    def noted(*args: Any, replay: Mapping[str, Replay], **kwargs: Any) -> dict[str, float]:
        seen.update({name: old.prompt for name, old in replay.items()})
        return train(*args, replay=replay, **kwargs)

    monkeypatch.setattr(teaching, "train", noted)
    taught = {"ada": ("a thing in {} style", "{}"), "bo": ("{} at sea",)}
    for name, templates in taught.items():
        options = {"rank": 2, "replay": 2}
        source = {name: drawings / name}
        known = {"method": "generative-replay", "options": options, "templates": templates}
        learn(base, tmp_path / "b", source, **known, **FAST)  # type: ignore[arg-type]
    assert seen == {"ada": "a thing in <ada> style"}
