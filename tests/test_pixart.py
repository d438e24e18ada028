"""PixArt Sigma: what a training step computes is what its pipeline draws by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import PixArtTransformer2DModel
from tiny_pipelines import make_pixart
from torch import Tensor

import perdure
from perdure import PerdureError
from perdure.adapters import PromptDelta, Prompts

PROMPT = "a photo of a dog in the snow"
ONE_STEP: dict[str, Any] = {"num_inference_steps": 1, "guidance_scale": 1.0}
SIZES = pytest.mark.parametrize("size", [(32, 32), (64, 32)], ids=["square", "wide"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pixart(tmp_path_factory.mktemp("pixart") / "base")


@pytest.fixture(scope="module")
def base(folder: Path) -> Iterator[perdure.Base]:
    yield perdure.Base.open(folder, device="cpu")


def test_the_class_that_published_folders_name_is_opened_as_pixarts_own(base: perdure.Base) -> None:
    assert isinstance(base.denoiser, PixArtTransformer2DModel)


@pytest.mark.usefixtures("fp32")
@SIZES
@torch.no_grad()
def test_one_step_of_drawing_follows_from_what_training_predicts(
    base: perdure.Base, size: tuple[int, int]
) -> None:
    """The noise that drawing starts from is `alpha x + sigma prediction`, by its schedule."""
    objective = base.objective_at(size)
    with base.session() as session:
        drawn = session.draw_latents([PROMPT], seeds=[7], size=size, **ONE_STEP)
        t = base.pipeline.scheduler.timesteps[:1]
        noise = torch.randn(drawn.shape, generator=torch.Generator().manual_seed(7))
        said = session.predict(noise, t, session.conditioning([PROMPT]), size)
    assert drawn.shape == base.encode(torch.zeros(1, 3, size[1], size[0]))[0].shape
    assert torch.allclose(objective.noised(drawn, said, t), noise, atol=1e-4)
    assert objective.target(drawn, noise, t) is noise


@pytest.mark.usefixtures("fp32")
@torch.no_grad()
def test_latents_and_pictures_are_the_autoencoders_own(base: perdure.Base) -> None:
    with base.session() as session:
        latents = session.draw_latents([PROMPT], seeds=[7], **ONE_STEP)
        picture = session.draw([PROMPT], seeds=[7], output_type="pt", **ONE_STEP)
    assert torch.allclose(base.decode(latents) / 2 + 0.5, picture.float(), atol=2e-3)


@SIZES
@pytest.mark.parametrize("negative", ["", "at night"])
def test_without_a_concept_it_is_the_stock_pipeline_whatever_size_and_negative_prompt(
    base: perdure.Base, folder: Path, negative: str, size: tuple[int, int]
) -> None:
    prompt = "A photo (of a dog) "  # as it stands, but small and without blanks at its ends
    with base.session() as session:
        (drawn,) = session.draw(
            [prompt],
            seeds=[3],
            negative=negative,
            size=size,
            num_inference_steps=2,
            guidance_scale=4.0,
        )
    with torch.no_grad(), base.autocast():
        (stock,) = base.stock(folder)(
            prompt=[prompt],
            negative_prompt=[negative],
            num_inference_steps=2,
            width=size[0],
            height=size[1],
            generator=[torch.Generator().manual_seed(3)],
            **base.family.call(1, 4.0),
        ).images
    assert np.array_equal(drawn, stock)


def test_in_bf16_it_is_the_stock_pipelines_too(folder: Path) -> None:
    """Whose table of positions, which no file holds, stays in fp32."""
    base = perdure.Base.open(folder, device="cpu", dtype="bfloat16")
    with base.session() as session:
        (drawn,) = session.draw([PROMPT], seeds=[3], num_inference_steps=1, guidance_scale=4.0)
    with torch.no_grad():
        (stock,) = base.stock(folder)(
            prompt=[PROMPT],
            num_inference_steps=1,
            generator=[torch.Generator().manual_seed(3)],
            **base.family.call(1, 4.0),
        ).images
    assert np.array_equal(drawn, stock)


@torch.no_grad()
def test_what_methods_are_told_of_prompts_is_what_the_attentions_read(base: perdure.Base) -> None:
    read: list[Tensor] = []
    handles = [
        reader.register_forward_pre_hook(
            lambda module, args, kwargs: read.append(kwargs["encoder_hidden_states"]),
            with_kwargs=True,
        )
        for reader in base.family.readers(base.pipeline).values()
    ]
    with base.session() as session:
        said = session.conditioning([PROMPT])
        session.predict(torch.zeros(1, 4, 8, 8), torch.tensor([5]), said, (32, 32))
    for handle in handles:
        handle.remove()
    assert len(read) == 2
    assert all(torch.equal(states, said.prompts.states) for states in read)


@torch.no_grad()
def test_a_concept_is_spoken_of_where_its_row_goes_in_and_the_end_token_ends_a_prompt(
    base: perdure.Base,
) -> None:
    prompts = [" A photo of <Ada> in the snow", "a dog"]
    told = []
    for scale in (1.0, 3.0):
        rows = base.tokens.random("word", torch.Generator().manual_seed(0)) * scale
        with base.session(tokens={"Ada": base.tokens.token("word", rows, 1.0)}) as session:
            told.append(session.conditioning(prompts))
    changed = (told[0].states != told[1].states).any(dim=-1)
    ((name, place),), nothing = told[0].prompts.spoken
    assert (name, nothing) == ("Ada", ())
    assert changed[0, place] and not changed[1].any()
    mask = told[0].beside["prompt_attention_mask"]
    assert told[0].prompts.ends == tuple(mask.sum(dim=1).sub(1).tolist())
    row = torch.full((1, base.tokens.state_width), 0.25)
    with base.session(tokens={"Ada": base.tokens.token("state", row, 1.0)}) as session:
        assert torch.equal(session.conditioning(prompts).states[0, place], row[0])


def test_what_a_prompt_loses_is_counted_and_a_lost_concept_refused(base: perdure.Base) -> None:
    room = " ".join(["dog"] * 299)  # of 300 positions one is the end token's
    assert [base.tokens.too_long(text) for text in (room, f"{room} dog")] == [0, 1]
    rows = base.tokens.random("state", torch.Generator())
    with base.session(tokens={"ada": base.tokens.token("state", rows, 1.0)}) as session:
        with pytest.raises(PerdureError, match="is too long for this base"):
            session.conditioning([f"{room} <ada>"])


def test_what_acts_behind_the_end_of_a_prompt_is_never_read(base: perdure.Base) -> None:
    """A batch's padding is masked: the picture stays the same to the bit."""
    generator = torch.Generator().manual_seed(0)
    factors: dict[str, tuple[Tensor, Tensor]] = {
        name: (
            torch.randn(d_out, 2, generator=generator),
            torch.randn(2, d_in, generator=generator),
        )
        for name, (d_out, d_in) in base.shapes.items()
    }

    def drawn(first: int | None) -> Any:
        """With a delta that acts from so many positions behind the end tokens on."""

        def acting(prompts: Prompts) -> list[PromptDelta]:
            if first is None:
                return []
            gate = torch.zeros(prompts.states.shape[:2])
            for row, end in zip(gate, prompts.ends, strict=True):
                row[end + first :] = 1.0
            return [PromptDelta(factors, gate)]

        with base.session() as session:
            pictures = session.draw(
                [PROMPT, "a dog"],
                seeds=[3, 4],
                said=acting,
                num_inference_steps=1,
                guidance_scale=3.0,
            )
        return np.stack([np.asarray(picture) for picture in pictures])

    plain = drawn(None)
    assert np.array_equal(drawn(1), plain)
    assert not np.array_equal(drawn(0), plain)
