"""Families that predict flow: what a training step computes is what their pipelines draw by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_pipelines import (
    FLOW,
    MAKERS,
    make_flux,
    make_flux2,
    make_flux2_dev,
    make_krea2,
    make_z_image,
)

import perdure
from perdure import PerdureError

FAMILIES = {
    **{name: MAKERS[name] for name in sorted(FLOW)},
    "flux-schnell": lambda folder: make_flux(folder, guided=False),
}
UNGUIDED = {"z-image": 0.0, "krea2": 0.0}
PROMPT = "a photo of a dog in the snow"


@pytest.fixture(scope="module", params=FAMILIES)
def named(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, perdure.Base]]:
    folder = FAMILIES[request.param](tmp_path_factory.mktemp("flow") / "base")
    yield request.param, perdure.Base.open(folder, device="cpu")


@pytest.mark.usefixtures("fp32")
@pytest.mark.parametrize("size", [(32, 32), (64, 32)], ids=["square", "wide"])
@torch.no_grad()
def test_one_step_of_drawing_follows_from_what_training_predicts(
    named: tuple[str, perdure.Base], size: tuple[int, int]
) -> None:
    """x = noise - sigma * prediction: sign, scale of time, packing, sizes and guidance."""
    name, base = named
    shape = base.encode(torch.zeros(1, 3, size[1], size[0]))[0].shape
    with base.session() as session:
        drawn = session.draw_latents(
            [PROMPT],
            seeds=[7],
            size=size,
            num_inference_steps=1,
            guidance_scale=UNGUIDED.get(name, 1.0),
        )
        t = base.pipeline.scheduler.timesteps[:1].float()
        sigma = base.pipeline.scheduler.sigmas[0]
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(7))
        said = session.predict(noise, t, session.conditioning([PROMPT]), size)
    assert drawn.shape == shape
    assert torch.allclose(drawn, noise - sigma * said, atol=1e-4)


@pytest.mark.parametrize("family", sorted(FLOW))
@torch.no_grad()
def test_a_base_in_bf16_is_told_the_same_times_in_training_as_in_drawing(
    family: str, tmp_path: Path
) -> None:
    base = perdure.Base.open(MAKERS[family](tmp_path / "base"), device="cpu", dtype="bfloat16")
    told: list[torch.Tensor] = []

    def hear(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        told.append((kwargs["timestep"] if "timestep" in kwargs else args[1]).flatten()[:1].float())

    guidance = UNGUIDED.get(family, 1.0)
    with base.session() as session:
        said = session.conditioning([PROMPT])
        handle = base.denoiser.register_forward_pre_hook(hear, with_kwargs=True)
        try:
            latents = session.draw_latents(
                [PROMPT], seeds=[7], num_inference_steps=20, guidance_scale=guidance
            )
            drawn = told.copy()
            told.clear()
            for t in base.pipeline.scheduler.timesteps:
                session.predict(latents, t[None].float(), said, base.size)
        finally:
            handle.remove()
    assert len(drawn) == len(told) == 20
    assert torch.equal(torch.cat(drawn), torch.cat(told))


@pytest.mark.usefixtures("fp32")
@torch.no_grad()
def test_latents_and_pictures_are_the_autoencoders_own(named: tuple[str, perdure.Base]) -> None:
    """What the stock pipeline makes of latents is what `decode` makes of them."""
    base = named[1]
    arguments: dict[str, Any] = {"seeds": [7], "num_inference_steps": 1, "guidance_scale": 1.0}
    with base.session() as session:
        latents = session.draw_latents([PROMPT], **arguments)
        picture = session.draw([PROMPT], output_type="pt", **arguments)
    assert torch.allclose(base.decode(latents) / 2 + 0.5, picture.float(), atol=2e-3)
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, deviation = base.encode(pictures)
    assert mean.shape == deviation.shape == (2, *latents.shape[1:])
    assert (deviation > 0).all() or named[0] == "sana"  # whose autoencoder has no posterior


@torch.no_grad()
def test_a_concept_is_spoken_of_where_its_words_row_goes_in(
    named: tuple[str, perdure.Base],
) -> None:
    """Another row changes the states at the concept's position, and none before it where the
    encoder is causal; behind the prompt's end lies what its template says, and padding."""
    name = named[0]
    base = perdure.Base.open(named[1].pipeline.config["_name_or_path"], device="cpu")  # untouched
    generator = torch.Generator().manual_seed(0)
    one, other = (base.tokens.random("word", generator) * k for k in (1.0, 3.0))
    prompts = ["a photo of <ada> in the snow", "a dog"]
    told = []
    for rows in (one, other):
        with base.session(tokens={"ada": base.tokens.token("word", rows, 1.0)}) as session:
            told.append(session.conditioning(prompts))
    first, second = told
    changed = (first.states != second.states).any(dim=-1)
    assert not changed[1].any()
    (spoken, nothing) = first.prompts.spoken
    assert nothing == ()
    places = [place for _, place in spoken]
    assert len(places) == (2 if name == "sd3" else 1)
    assert all(changed[0, place] for place in places)
    if name not in {"flux", "flux-schnell", "sd3", "chroma"}:  # T5 looks both ways
        assert not changed[0, : places[0]].any()
    assert places[0] < first.prompts.ends[0]
    rests, end = first.prompts.rest(0), first.prompts.ends[0]
    assert not rests[places[0]] and rests[end : end + 1].all()  # Lumina closes prompts by nothing


@torch.no_grad()
def test_a_state_stands_at_that_very_position(named: tuple[str, perdure.Base]) -> None:
    base = named[1]
    row = torch.full((1, base.tokens.state_width), 0.25)
    token = base.tokens.token("state", row, 1.0)
    with base.session(tokens={"ada": token}) as session:
        said = session.conditioning(["a photo of <ada>"])
    for _, place in said.prompts.spoken[0]:
        assert torch.equal(said.states[0, place], row[0])


def test_what_a_prompt_loses_is_counted_and_a_lost_concept_refused(
    named: tuple[str, perdure.Base],
) -> None:
    base = named[1]
    assert base.tokens.too_long(PROMPT) == 0
    long = " ".join(["dog"] * 600)
    assert base.tokens.too_long(long) > 0
    rows = base.tokens.random("state", torch.Generator())
    with base.session(tokens={"ada": base.tokens.token("state", rows, 1.0)}) as session:
        with pytest.raises(PerdureError, match="is too long for this base"):
            session.conditioning([f"{long} <ada>"])


def test_guidance_by_a_negative_prompt_is_refused_where_there_is_none(tmp_path: Path) -> None:
    for make in (make_flux, make_flux2_dev, lambda folder: make_flux2(folder, distilled=True)):
        base = perdure.Base.open(make(tmp_path / str(make)), device="cpu")
        with base.session() as session, pytest.raises(PerdureError, match="leave --negative out"):
            session.draw([PROMPT], seeds=[0], negative="a cat", num_inference_steps=1)


@pytest.mark.parametrize("family", ["sana", "lumina2"])
def test_a_concept_in_a_negative_prompt_that_is_read_by_itself_is_refused(
    family: str, tmp_path: Path
) -> None:
    base = perdure.Base.open(MAKERS[family](tmp_path / "base"), device="cpu")
    rows = base.tokens.random("state", torch.Generator())
    with base.session(tokens={"ada": base.tokens.token("state", rows, 1.0)}) as session:
        with pytest.raises(PerdureError, match="leave <ada> out of --negative"):
            session.draw([PROMPT], seeds=[0], negative="<ada>", num_inference_steps=1)


def test_a_distilled_model_says_so_and_draws_in_few_steps(tmp_path: Path) -> None:
    turbo = make_z_image(tmp_path / "turbo", shift=3.0)
    schnell = make_flux(tmp_path / "schnell", guided=False)
    klein = make_flux2(tmp_path / "klein", distilled=True)
    krea = make_krea2(tmp_path / "krea", distilled=True)
    steps = {turbo: 9, schnell: 4, klein: 4, krea: 8}
    for folder, few in steps.items():
        (folder / "perdure.json").unlink()
        base = perdure.Base.open(folder, device="cpu")
        assert "distilled" in base.family.distilled(base.pipeline)
        assert base.hints["drawing"]["steps"] == few
    whole = perdure.Base.open(make_z_image(tmp_path / "whole"), device="cpu")
    assert whole.family.distilled(whole.pipeline) == ""
