"""What a prompt may be, and what is said of one that cannot be drawn as it stands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import perdure
from perdure.base.base import Base
from perdure.learning.learn import learn

ADA = "a photo of <ada>"


@pytest.fixture(scope="module")
def base(tiny: Path) -> Base:
    return Base.open(tiny, device="cpu")


@pytest.fixture(scope="module")
def bank(base: Base, drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank that knows <ada>; nothing may write into it."""
    folder = tmp_path_factory.mktemp("banks") / "bank"
    learn(base, folder, {"ada": drawings / "ada"}, method="c-lora", options={"rank": 2}, steps=1)
    return folder


def test_one_prompt_is_a_prompt_and_not_its_letters(base: Base, bank: Path) -> None:
    listed = perdure.draw(base, bank, [ADA])
    for drawn in (
        perdure.draw(base, bank, ADA),
        perdure.draw(base, bank, ADA, seeds=0),
        perdure.Painter(base, bank).draw(ADA, seeds=[0]),
    ):
        assert len(drawn) == 1
        assert np.array_equal(np.asarray(drawn[0]), np.asarray(listed[0]))
