"""What is the same bits: the rows of the table in docs/reliability.md that no other test holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from perdure.bank import Bank
from perdure.drawing.painter import Painter
from perdure.hosts.diffusion.host import Base
from perdure.learning.learn import learn

PROMPTS = ["a photo of <ada>", "a dog", "<ada> in the snow"]


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def bits(pictures: list[Image.Image]) -> list[bytes]:
    return [picture.tobytes() for picture in pictures]


@pytest.fixture(scope="module")
def base(tiny: Path) -> Base:
    torch.set_num_threads(1)
    return Base.open(tiny, device="cpu")


@pytest.fixture(scope="module")
def bank(base: Base, drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("determinism") / "bank"
    learn(base, path, {"ada": drawings / "ada"}, method="gated", steps=2, seed=5)
    return path


def test_the_same_learn_is_the_same_bits_on_a_fresh_base_and_another_seed_is_not(
    tiny: Path, bank: Path, drawings: Path, tmp_path: Path
) -> None:
    first = Bank.open(bank).read("ada")[0]
    for seed in (5, 6):
        path = tmp_path / str(seed)
        fresh = Base.open(tiny, device="cpu")
        learn(fresh, path, {"ada": drawings / "ada"}, method="gated", steps=2, seed=seed)
        again = Bank.open(path).read("ada")[0]
        assert all(torch.equal(first[key], again[key]) for key in first) == (seed == 5)


def test_a_picture_is_the_same_bits_whatever_its_neighbours_and_their_order_are(
    base: Base, bank: Path, threads: int
) -> None:
    painter = Painter(base, bank)
    settings = {"steps": 2, "batch_size": 1}
    alone = [bits(painter.draw([p], seeds=[k], **settings))[0] for k, p in enumerate(PROMPTS)]
    assert bits(painter.draw(PROMPTS, seeds=range(3), **settings)) == alone
    assert bits(painter.draw(PROMPTS[::-1], seeds=[2, 1, 0], **settings)) == alone[::-1]


def test_a_picture_of_smallworld_is_the_same_bits_whatever_is_asked_for_beside_it(
    tmp_path: Path,
) -> None:
    base = Base.open("smallworld", device="cpu")
    path = tmp_path / "bank"
    Bank.create(path, base=base.identity, method="gated", config={"rank": 2})
    settings = {"steps": 2, "batch_size": 1}
    three = bits(Painter(base, path).draw("a dog", seed=7, count=3, **settings))
    one = bits(Painter(base, path).draw("a dog", seed=8, **settings))
    assert three[1:2] == one and len(set(three)) == 3
