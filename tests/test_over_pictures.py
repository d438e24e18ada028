"""Drawing that begins with a picture, in the families whose pipelines have it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_pipelines import MAKERS

import perdure
from perdure.adapters import PromptDelta, Prompts
from perdure.errors import PerdureError
from perdure.hosts.diffusion.families import FAMILIES
from perdure.hosts.diffusion.files import read_index
from perdure.hosts.diffusion.session import Begun

HAVE = {"sd", "sdxl", "sd3", "flux", "z-image", "qwen-image", "chroma"}
PROMPT = "a photo of a dog in the snow"
INIT = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8))


@pytest.fixture(params=sorted(HAVE))
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    yield MAKERS[request.param](tmp_path / "base")


def weights(base: perdure.Base) -> dict[str, torch.Tensor]:
    modules = enumerate(base.family.frozen(base.pipeline)[:2])  # text encoders may rest
    return {f"{k} {n}": v for k, module in modules for n, v in module.state_dict().items()}


def test_it_is_the_stock_pipelines_picture_and_concepts_act_in_it(folder: Path) -> None:
    base = perdure.Base.open(folder, device="cpu")
    generator = torch.Generator().manual_seed(0)
    factors = {
        name: (
            torch.randn(d_out, 2, generator=generator),
            torch.randn(2, d_in, generator=generator),
        )
        for name, (d_out, d_in) in base.shapes.items()
    }

    def acting(prompts: Prompts) -> list[PromptDelta]:
        return [PromptDelta(factors, torch.ones(prompts.states.shape[:2]))]

    def drawn(**more: Any) -> np.ndarray:
        with base.session() as session:
            (picture,) = session.draw(
                [PROMPT],
                seeds=[3],
                begun=[Begun(picture=INIT, strength=0.5)],
                num_inference_steps=4,
                guidance_scale=3.0,
                **more,
            )
        return np.asarray(picture)

    before = {name: value.clone() for name, value in weights(base).items()}
    ours = drawn()
    assert all(torch.equal(value, before[name]) for name, value in weights(base).items())
    kind = getattr(diffusers, base.family.image_to_image)
    stock = kind.from_pretrained(folder, **base.family.arguments(read_index(folder)))
    base.family.prepare(stock, base.device)
    own = {"width": 32, "height": 32} if hasattr(base.pipeline, "transformer") else {}
    with torch.no_grad(), base.autocast():
        (theirs,) = stock(
            prompt=[PROMPT],
            image=[INIT],
            strength=0.5,
            num_inference_steps=4,
            generator=[torch.Generator().manual_seed(3)],
            **own,
            **base.family.call(1, 3.0),
        ).images
    assert np.array_equal(ours, np.asarray(theirs))
    assert not np.array_equal(ours, drawn(said=acting))
    assert np.array_equal(ours, drawn())


def test_other_families_refuse_a_picture_in_one_sentence(tmp_path: Path) -> None:
    have = {family.pipelines[0] for family in FAMILIES if family.image_to_image}
    assert len(have) == len(HAVE)
    base = perdure.Base.open(MAKERS["sana"](tmp_path / "base"), device="cpu")
    with base.session() as session, pytest.raises(PerdureError, match="Sana .* leave --init out"):
        session.draw([PROMPT], seeds=[3], begun=[Begun(picture=INIT, strength=0.5)])


def test_strength_is_checked(tiny: Path, drawings: Path, tmp_path: Path) -> None:
    base = perdure.Base.open(tiny, device="cpu")
    perdure.learn(base, tmp_path / "bank", {"ada": drawings / "ada"}, steps=1)
    for options, why in (
        ({"strength": 0.5}, "strength has no effect without init"),
        ({"init": INIT, "strength": 0.4}, "strength of 0.4 leaves none of 2 steps"),
        ({"init": INIT, "strength": 1.5}, "strength is 1.5"),
        ({"init": tmp_path / "none.png"}, "none.png"),
        ({"init": tmp_path}, "is a folder"),
    ):
        with pytest.raises(PerdureError, match=why):
            perdure.draw(base, tmp_path / "bank", "a dog", steps=2, **options)
    whole = perdure.draw(base, tmp_path / "bank", "a dog", init=INIT, strength=1, size="64x32")
    assert whole[0].size == (64, 32)
