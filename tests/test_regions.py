"""Region control: boxes, their keys and values, what a picture attends to in and outside them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor

from perdure.adapters import Token
from perdure.drawing.painter import Painter
from perdure.drawing.regions import Region, read_region
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.hosts.diffusion.regional import Boxed, Place, attending, keys_and_values, mask
from perdure.learning.learn import learn

LEFT = (0.0, 0.0, 0.5, 1.0)
RIGHT = (0.5, 0.0, 1.0, 1.0)


class Denoiser(torch.nn.Module):
    """One cross-attention, by the name that it has in a U-Net."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.attn2 = Attention(8, cross_attention_dim=6, heads=2, dim_head=4)
        self.attn2.set_processor(AttnProcessor())

    def forward(self, x: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        return self.attn2(x, encoder_hidden_states=states)


def readers(module: torch.nn.Module) -> dict[str, torch.nn.Module]:
    return {name: one for name, one in module.named_modules() if name.endswith("attn2")}


def within(denoiser: Denoiser, regions: Any, rows: Any, latents: tuple[int, int]) -> Any:
    return attending(readers(denoiser), regions, rows, latents, lambda: 0.0)


def last(pictures: int) -> Callable[[int], slice]:
    return lambda rows: slice(rows - pictures, rows)


@torch.no_grad()
def test_a_box_reads_its_own_phrase_and_the_rest_the_prompt() -> None:
    denoiser = Denoiser()
    x, states, phrase = torch.randn(2, 16, 8), torch.randn(2, 5, 6), torch.randn(1, 5, 6)
    plain = denoiser(x, states)
    own = denoiser(x, phrase.expand(2, -1, -1))  # the phrase as if it were the prompt
    keys = Boxed(Place(box=LEFT), keys_and_values(readers(denoiser), phrase, {}))
    with within(denoiser, [keys], last(2), (4, 4)):
        drawn = denoiser(x, states)
    left = mask(LEFT, 4, 4).bool()
    assert left.view(4, 4).tolist() == [[True, True, False, False]] * 4
    assert torch.allclose(drawn[:, left], own[:, left], atol=1e-6)
    assert torch.allclose(drawn[:, ~left], plain[:, ~left], atol=1e-6)
    assert torch.equal(denoiser(x, states), plain)  # afterwards all is as before


@torch.no_grad()
def test_the_empty_prompts_of_guidance_know_no_box_and_overlaps_are_means() -> None:
    denoiser = Denoiser()
    x, states = torch.randn(2, 16, 8), torch.randn(2, 5, 6)
    phrases = torch.randn(2, 1, 5, 6)
    plain, whole = denoiser(x, states), (0.0, 0.0, 1.0, 1.0)
    keys = [
        Boxed(Place(box=whole), keys_and_values(readers(denoiser), phrase, {}))
        for phrase in phrases
    ]
    with within(denoiser, keys, last(1), (4, 4)):
        drawn = denoiser(x, states)
    one, two = (denoiser(x[1:], phrase) for phrase in phrases)
    assert torch.allclose(drawn[0], plain[0], atol=1e-6)
    assert torch.allclose(drawn[1:], (one + two) / 2, atol=1e-6)


@torch.no_grad()
def test_what_a_method_adds_reaches_the_phrases_keys_and_values() -> None:
    denoiser, states = Denoiser(), torch.randn(1, 5, 6)
    extra = torch.randn(1, 5, 8)
    bare = keys_and_values(readers(denoiser), states, {})["attn2"]
    more = keys_and_values(readers(denoiser), states, {"attn2.to_v": extra})["attn2"]
    assert torch.equal(bare[0], more[0])
    assert torch.allclose(more[1], bare[1] + extra[0])


@torch.no_grad()
def test_every_layer_answers_to_its_own_states_of_the_phrase() -> None:
    denoiser = torch.nn.ModuleDict({"a": Denoiser(), "b": Denoiser()})
    states = torch.randn(2, 5, 6)
    found = keys_and_values(readers(denoiser), states, {})
    for own, (name, module) in zip(states, denoiser.items(), strict=True):
        k, v = found[f"{name}.attn2"]
        assert torch.equal(k, module.attn2.to_k(own))
        assert torch.equal(v, module.attn2.to_v(own))
    with pytest.raises(ValueError, match="zip"):
        keys_and_values(readers(denoiser), torch.randn(3, 5, 6), {})


@pytest.mark.parametrize(
    "box", [(0.5, 0, 0.5, 1), (0, 0.9, 1, 0.1), (-0.1, 0, 1, 1), (0, 0, 1.5, 1)]
)
def test_a_box_that_is_none_is_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(PerdureError, match="is no box: give left, top, right, bottom"):
        Region(phrase="a photo of <rex>", box=box)


def test_a_narrow_box_covers_at_least_one_position() -> None:
    assert mask((0.99, 0.99, 1.0, 1.0), 100, 100).sum() == 1


@torch.no_grad()
def test_a_box_of_a_wide_picture_covers_its_share_at_every_depth() -> None:
    denoiser, phrase = Denoiser(), torch.randn(1, 5, 6)
    keys = Boxed(Place(box=LEFT), keys_and_values(readers(denoiser), phrase, {}))
    for width, height in ((12, 5), (6, 3), (3, 2)):  # the latents, and halved twice
        x, states = torch.randn(1, width * height, 8), torch.randn(1, 5, 6)
        plain, own = denoiser(x, states)[0], denoiser(x, phrase)[0]
        with within(denoiser, [keys], last(1), (12, 5)):
            drawn = denoiser(x, states)[0]
        left = torch.arange(width * height) % width < round(width / 2)
        assert torch.allclose(drawn[left], own[left], atol=1e-6)
        assert torch.allclose(drawn[~left], plain[~left], atol=1e-6)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a photo of <rex>", "write it as PHRASE@LEFT,TOP,RIGHT,BOTTOM"),
        ("<rex>@0,0,1", "write it as PHRASE@LEFT,TOP,RIGHT,BOTTOM"),
        ("<rex>@0,0,half,1", "write it as PHRASE@LEFT,TOP,RIGHT,BOTTOM"),
        ("@0,0,1,1", "has no phrase"),
    ],
)
def test_a_box_on_the_command_line_that_cannot_be_read_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(PerdureError, match=sentence):
        read_region(text)


def tell_apart(painter: Painter) -> None:
    """Tokens so long that their prompts draw unlike pictures, and no rounding to bf16."""
    painter.base.autocast = lambda: torch.autocast("cpu", enabled=False)
    generator = torch.Generator().manual_seed(0)
    painter.tokens = {
        name: Token(
            {p: 10 * torch.randn(t.shape, generator=generator) for p, t in of.parts.items()}
        )
        for name, of in painter.tokens.items()
    }


@pytest.mark.parametrize("method", ["c-lora", "fl2t", "gated", "lora-independent"])
def test_a_box_over_the_whole_picture_draws_its_phrase(
    method: str, tiny: Path, drawings: Path, tmp_path: Path
) -> None:
    base, bank = Base.open(tiny, device="cpu"), tmp_path / "bank"
    options = {"rank": 2} | ({"together_steps": 2} if method == "fl2t" else {})
    for name in ("ada", "bo"):
        learn(
            base,
            bank,
            {name: drawings / name},
            method=method,
            options=options,
            steps=4,
            lr=0.05,
        )
    painter = Painter(base, bank)
    tell_apart(painter)
    region = Region(phrase="a photo of <bo>", box=(0.0, 0.0, 1.0, 1.0))
    phrase = painter.draw(["a photo of <bo>"], seeds=[3], guidance=1)[0]
    boxed = painter.draw(["a photo of <ada>"], seeds=[3], guidance=1, regions=[region])[0]
    plain = painter.draw(["a photo of <ada>"], seeds=[3], guidance=1)[0]
    near = np.abs(np.asarray(boxed, int) - np.asarray(phrase, int)).mean()
    far = np.abs(np.asarray(plain, int) - np.asarray(phrase, int)).mean()
    assert near < 0.1 * far, (near, far)
    right = Region(phrase="a photo of <max>", box=RIGHT)
    with pytest.raises(PerdureError, match="<max>, which this bank has not learned"):
        painter.draw(["a photo of <ada>"], seeds=[3], regions=[right])


def test_a_box_reads_a_token_with_a_row_for_every_layer_in_each_layer_by_its_own(
    tiny: Path, drawings: Path, tmp_path: Path
) -> None:
    base, bank = Base.open(tiny, device="cpu"), tmp_path / "bank"
    pictures = {name: drawings / name for name in ("ada", "bo")}
    options = {"rank": 2, "shared": 2}
    learn(base, bank, pictures, method="cidm", options=options, steps=2)
    painter = Painter(base, bank)  # of one task, so that the mixture is the same for all prompts
    tell_apart(painter)
    region = Region(phrase="a photo of <bo>", box=(0.0, 0.0, 1.0, 1.0))
    drawn = [
        np.asarray(painter.draw([prompt], seeds=[3], guidance=2, regions=boxes)[0], int)
        for prompt, boxes in (
            ("a photo of <bo>", []),
            ("a photo of <ada>", [region]),
            ("a photo of <ada>", []),
        )
    ]
    phrase, boxed, plain = drawn
    near, far = np.abs(boxed - phrase).mean(), np.abs(plain - phrase).mean()
    assert near < 0.1 * far, (near, far)
