"""Boxes where text and picture are one sequence: what reads what, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_pipelines import MAKERS

import perdure
from perdure.adapters import PromptDelta, Prompts
from perdure.drawing.regions import Region
from perdure.hosts.diffusion.conditioning import Encoded
from perdure.hosts.diffusion.regional import Place
from perdure.hosts.diffusion.rooms import Phrased, Rooms, gates_side_by_side

LEFT, WHOLE = (0.0, 0.0, 0.5, 1.0), (0.0, 0.0, 1.0, 1.0)
NEVER = 2.0
BOXED = sorted(MAKERS.keys() - {"sd", "sdxl"})
SHIFTED = {"z-image", "lumina2"}
"""Where a picture's positions count on from the text's."""


def nothing(prompts: Prompts) -> Sequence[PromptDelta]:
    return ()


def rooms(*places: Place, before: bool = True) -> Rooms:
    """A prompt of 2 rows and phrases of 1, and a picture of 2 x 1 before or behind them."""
    rows = 2 + len(places)
    text = slice(0, rows) if before else slice(2, 2 + rows)
    lengths = (2, *(1 for _ in places))
    return Rooms(places=places, lengths=lengths, text=text, patches=2, alone=rows, size=(64, 32))


def test_each_row_reads_its_own_text_and_its_own_part_of_the_picture() -> None:
    left = Place(box=LEFT, since=0.5)
    mask = rooms(left).mask(5, 5, 0.6, prompts=True)
    assert mask is not None
    assert mask.int().tolist() == [
        [1, 1, 0, 1, 1],  # the prompt: itself and the whole picture
        [1, 1, 0, 1, 1],
        [0, 0, 1, 1, 0],  # the phrase: itself and the left half
        [0, 0, 1, 1, 1],  # left: the phrase and the picture
        [1, 1, 0, 1, 1],  # right: the prompt and the picture
    ]
    early = rooms(left).mask(5, 5, 0.4, prompts=True)
    other = rooms(left).mask(5, 5, 0.6, prompts=False)
    assert early is not None and other is not None and torch.equal(early, other)
    assert early[3:, 2].sum() == 0  # no one reads the phrase
    behind = rooms(left, before=False).mask(5, 5, 0.6, prompts=True)
    order = [2, 3, 4, 0, 1]
    assert behind is not None and torch.equal(behind[order][:, order], mask)


def test_a_cross_attention_and_one_of_the_text_alone_are_told_from_the_pictures_own() -> None:
    one = rooms(Place(box=LEFT))
    cross = one.mask(2, 3, 0.0, prompts=True)
    text = one.mask(3, 3, 0.0, prompts=True)
    assert cross is not None and cross.int().tolist() == [[0, 0, 1], [1, 1, 0]]
    assert text is not None and text.int().tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert one.mask(2, 2, 0.0, prompts=True) is None


def test_what_acts_in_a_phrase_acts_at_its_own_positions() -> None:
    own, other = ({"layer": (torch.ones(1, 1), torch.ones(1, 1))} for _ in range(2))
    said = Encoded(states=torch.zeros(1, 2, 4))
    deltas = [PromptDelta(other, torch.tensor([[0.0, 1.0]]))]
    phrase = Phrased(place=Place(box=LEFT), said=said, deltas=deltas, read=said.states[None])
    prompt = [PromptDelta(own, torch.tensor([[1.0, 0.0, 0.5], [0.0, 0.0, 0.0]]))]
    one, two = gates_side_by_side(prompt, [phrase], 3, 2)
    assert one.factors is own and two.factors is other
    assert one.gate.tolist() == [[1.0, 0.0, 0.5, 0.0, 0.0], [0.0] * 5]
    assert two.gate.tolist() == [[0.0, 0.0, 0.0, 0.0, 1.0]] * 2


@pytest.mark.usefixtures("fp32")
@pytest.mark.parametrize("family", BOXED)
def test_a_phrase_that_is_never_read_changes_nothing_and_one_that_is_does(
    family: str, tmp_path: Path
) -> None:
    base = perdure.Base.open(MAKERS[family](tmp_path / "base"), device="cpu")

    def draw(prompt: str, *places: Place) -> Any:
        with base.session() as session:
            regions = [session.region(place, "a dog", nothing) for place in places]
            return session.draw_latents(
                [prompt], seeds=[3], regions=regions, num_inference_steps=2, guidance_scale=3.0
            )

    plain = draw("a hat")
    never = draw("a hat", Place(box=LEFT, since=NEVER))
    late = draw("a hat", Place(box=LEFT, since=0.01))
    own = draw("a hat", Place(box=WHOLE))
    size = plain.abs().mean()
    if family not in SHIFTED:
        assert (never - plain).abs().mean() < 1e-4 * size
    assert not torch.equal(late, never)
    assert not torch.equal(own, late)
    if family in {"chroma", "pixart", "sana"}:  # no pooled vector, no positions of text
        phrase = draw("a dog")
        assert (own - phrase).abs().mean() < 1e-4 * size


@pytest.mark.usefixtures("fp32")
def test_a_sentence_of_two_is_laid_out_where_the_text_is_a_stream(
    drawings: Path, tmp_path: Path
) -> None:
    base = perdure.Base.open(MAKERS["sd3"](tmp_path / "base"), device="cpu")
    bank = tmp_path / "bank"
    for name in ("ada", "bo"):
        perdure.learn(base, bank, {name: drawings / name}, nouns={name: "person"}, steps=2, lr=0.05)
    sentence, notes = "a photo of <ada> next to <bo>", []
    (laid,) = perdure.draw(base, bank, sentence, seed=3, steps=4, note=notes.append)
    (plain,) = perdure.draw(base, bank, sentence, seed=3, steps=4, layout="none")
    (nouns,) = perdure.draw(base, bank, "a photo of a person next to a person", seed=3, steps=4)
    pictures = [np.asarray(one, int) for one in (laid, plain, nouns)]
    assert not np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])
    assert notes == [f"{sentence!r} is laid out: <ada> on the left, <bo> on the right."]
    boxed = perdure.draw(
        base, bank, "a dog", seed=3, steps=4, regions=[Region(phrase="<ada>", box=LEFT)]
    )
    assert len(boxed) == 1
