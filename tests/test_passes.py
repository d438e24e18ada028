"""What acts in prompts never lands on the negative ones, whichever way a pipeline runs them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_pipeline
from tiny_pipelines import (
    make_flux2,
    make_qwen_image,
    make_sana,
    make_sd3,
    make_sdxl,
    make_z_image,
)
from torch import Tensor

import perdure
from perdure.adapters import PromptDelta, Prompts
from perdure.hosts.diffusion.passes import named_passes

MAKERS = {
    "sd": make_pipeline,
    "sdxl": make_sdxl,
    "sana": make_sana,
    "sd3": make_sd3,
    "flux2": make_flux2,
    "z-image": make_z_image,
    "qwen-image": make_qwen_image,
}
"""Families that guide by a negative prompt."""
PROMPT = "a photo of a dog in the snow"


@pytest.fixture(params=MAKERS)
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[perdure.Base]:
    yield perdure.Base.open(MAKERS[request.param](tmp_path / "base"), device="cpu")


def said(base: perdure.Base, deltas: list[PromptDelta]) -> list[Tensor]:
    """What the denoiser says in the first step, each of a prompt and of its negative one."""
    heard: list[Tensor] = []

    def hear(module: Any, args: Any, output: Any) -> None:
        rows = output[0] if isinstance(output, tuple) else output.sample
        heard.extend(row.clone() for row in rows)

    def acting(prompts: Prompts) -> list[PromptDelta]:
        gate = torch.ones(prompts.states.shape[:2])
        return [PromptDelta(delta.factors, gate) for delta in deltas]

    handle = base.denoiser.register_forward_hook(hear)
    try:
        with base.session() as session:
            session.draw(
                [PROMPT], seeds=[3], said=acting, num_inference_steps=1, guidance_scale=3.0
            )
    finally:
        handle.remove()
    return heard[:2]


def test_a_delta_that_acts_in_prompts_leaves_the_negative_ones_to_the_bit(
    base: perdure.Base,
) -> None:
    generator = torch.Generator().manual_seed(0)
    factors = {
        name: (
            torch.randn(d_out, 2, generator=generator),
            torch.randn(2, d_in, generator=generator),
        )
        for name, (d_out, d_in) in base.shapes.items()
    }
    before = said(base, [])
    after = said(base, [PromptDelta(factors, torch.ones(1, 1))])
    same = [torch.equal(one, other) for one, other in zip(before, after, strict=True)]
    assert sorted(same) == [False, True]
    first = base.family.title.startswith(("FLUX.2", "Z-Image", "Qwen"))
    assert same == ([False, True] if first else [True, False])


def test_the_name_of_a_pass_is_forgotten_after_it(tmp_path: Path) -> None:
    denoiser = perdure.Base.open(make_flux2(tmp_path / "base"), device="cpu").denoiser
    with named_passes(denoiser) as rows:
        with denoiser.cache_context("uncond"):  # type: ignore[operator]
            assert rows(4) == slice(0, 0)
        assert rows(4) == slice(0, 4)
    assert "cache_context" not in vars(denoiser)
