"""Several concepts in one picture: who stands where, and is that whom one asked for?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from perdure.benchmarks.streams import Photographed, Stream, stream
from perdure.benchmarks.together import groups_of
from perdure.measuring import detector
from perdure.measuring.company import draw_company, said_of, score_settings, score_subjects
from perdure.measuring.detector import (
    LEAST,
    WINDOWS,
    Window,
    cut,
    likeness_in,
    seen,
    shown,
    standing,
)
from perdure.measuring.features import MetricEncoder
from perdure.smallworld import world
from perdure.smallworld.world import SPLITS, Context, identity, references, render

LEFT, MIDDLE, RIGHT = (WINDOWS.index(Window(x=x, y=0.52, side=0.52)) for x in (0.23, 0.5, 0.77))


def likeness(*, concepts: int = 3, **peaks: tuple[int, float]) -> torch.Tensor:
    """Nothing anywhere but at some windows: `left=(0, 0.9)` is concept 0 on the left."""
    found = torch.zeros(len(WINDOWS), concepts)
    for place, (concept, value) in peaks.items():
        found[{"left": LEFT, "middle": MIDDLE, "right": RIGHT}[place], concept] = value
    return found


def test_a_window_shows_what_stands_there_as_if_it_stood_alone() -> None:
    array = np.zeros((64, 96, 3), np.uint8)
    array[20:36, 24:40] = (255, 0, 0)
    inside, edge = cut(
        Image.fromarray(array),
        [Window(x=32 / 96, y=28 / 64, side=0.25), Window(x=0.0, y=0.5, side=0.5)],
    )
    assert inside.size == edge.size == (64, 64)
    assert (np.asarray(inside)[4:-4, 4:-4] == (255, 0, 0)).all()  # the red square and no more
    assert not np.asarray(edge).any()


def test_beyond_the_edge_the_last_pixels_go_on() -> None:
    array = np.zeros((64, 64, 3), np.uint8)
    array[:, :2] = (0, 0, 255)
    (part,) = cut(Image.fromarray(array), [Window(x=0.0, y=0.5, side=0.5)])
    assert (np.asarray(part)[:, :28, 2] == 255).all()


def test_a_picture_shows_the_windows_closest_to_any_concept_and_apart() -> None:
    names = ("ada", "ben", "cleo")
    sights = shown(likeness(left=(0, 0.8), right=(1, 0.9)), names, 2)
    assert [(one.concept, one.window.x) for one in sights] == [("ben", 0.77), ("ada", 0.23)]
    assert sights[0].likeness == pytest.approx(0.9)
    twice = shown(likeness(left=(0, 0.8), right=(0, 0.7)), names, 2)
    assert [one.concept for one in twice] == ["ada", "ada"]
    faint = shown(likeness(left=(0, 0.8), right=(1, LEAST - 0.01)), names, 2)
    assert [one.concept for one in faint] == ["ada"]
    close = likeness(left=(0, 0.8))
    close[LEFT + 1, 1] = 0.7  # the next window down: the same subject
    assert [one.concept for one in shown(close, names, 2)] == ["ada"]


def test_no_window_serves_two_concepts() -> None:
    both = likeness(left=(0, 0.9), right=(0, 0.6))
    both[LEFT, 1] = 0.7
    both[RIGHT, 1] = 0.1
    # not 0.9 + 0.1, as the first would choose
    assert standing(both, (0, 1)) == pytest.approx((0.6, 0.7))
    assert standing(both, (1, 0)) == pytest.approx((0.7, 0.6))
    assert standing(likeness(middle=(2, 0.8)), (2,)) == pytest.approx((0.8,))


def test_what_is_seen_is_the_nearest_of_some_window() -> None:
    there = likeness(left=(0, 0.8), middle=(2, 0.6), right=(1, 0.3))
    there[MIDDLE, 0] = 0.7  # ada is nearer there
    assert {name: one.window.x for name, one in seen(there, ("a", "b", "c")).items()} == {"a": 0.23}
    there[MIDDLE, 2] = 0.75
    assert seen(there, ("a", "b", "c")).keys() == {"a", "c"}


class Colours:
    """An encoder that sees how red, green and blue a picture is; of texts it knows "red"."""

    reads_texts = True

    def identities(self, pictures):
        means = [np.asarray(one).reshape(-1, 3).mean(axis=0) for one in pictures]
        return torch.nn.functional.normalize(torch.tensor(np.stack(means)).float() + 1e-6, dim=1)

    pictures = identities

    def texts(self, texts):
        return torch.tensor([[1.0, 0.0, 0.0] for _ in texts])


REFERENCES = {name: torch.eye(3)[k : k + 1] for k, name in enumerate(("red", "green", "blue"))}


@pytest.fixture
def one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flat colours look the same however high one looks: two windows, one in each half."""
    two = [Window(x=x, y=0.5, side=0.4) for x in (0.25, 0.75)]
    monkeypatch.setattr(detector, "WINDOWS", two)
    monkeypatch.setattr(cut, "__defaults__", (two,))
    monkeypatch.setattr(detector, "_APART", ~torch.eye(2, dtype=torch.bool))


def halves_of(left: tuple[int, ...], right: tuple[int, ...]) -> Image.Image:
    array = np.zeros((64, 64, 3), np.uint8)
    array[:, :32], array[:, 32:] = left, right
    return Image.fromarray(array)


def test_subjects_are_recognised_if_they_and_no_others_are_shown(one_row: None) -> None:
    red, green = (255, 0, 0), (0, 255, 0)
    drawn = [
        (("red", "green"), [halves_of(red, green), halves_of(green, red), halves_of(red, red)]),
        (("red", "blue"), [halves_of(red, green)]),
    ]
    score = score_subjects(Colours(), REFERENCES, drawn)  # type: ignore[arg-type]
    assert score.pictures == 4 and score.all == 0.5
    assert {one.concept for one in score.sights[0]} == {"red", "green"}
    # the third picture has nothing green, the fourth nothing blue
    assert score.likeness == pytest.approx((1 + 1 + 0.5 + 0.5) / 4, abs=0.02)


def test_a_place_is_seen_behind_its_subject_and_a_style_in_the_whole_picture() -> None:
    red, green = (255, 0, 0), (0, 255, 0)
    drawn = [(("red", "green"), [halves_of(red, green), halves_of(red, red)])]
    place = score_settings(
        Colours(),  # type: ignore[arg-type]
        REFERENCES,
        drawn,
        said=["red"],
    )
    assert (place.all, place.subject, place.setting) == (0.5, 1.0, 0.5)
    assert place.text_alignment == pytest.approx((0.5**0.5 + 1) / 2, abs=1e-3)
    looks = {"red": torch.tensor([[0.0, 0.0, 1.0]]), "green": torch.tensor([[1.0, 1.0, 0.0]])}
    style = score_settings(
        Colours(),  # type: ignore[arg-type]
        REFERENCES,
        drawn,
        said=["red"],
        looks=looks,
    )
    assert style.setting == 1.0


class Asked:
    """A painter that remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[tuple[float, ...], str], str]] = []

    def draw(self, prompts, *, seeds, regions, layout, closeup, batch_size):
        assert closeup == (None if layout == "sentence" else 0.0)
        assert len(prompts) == len(seeds) == 3 and list(seeds) == [7, 8, 9]
        self.asked.append((prompts[0], {region.box: region.phrase for region in regions}, layout))
        return [Image.new("RGB", (64, 64))] * len(prompts)


def test_every_box_reads_a_phrase_of_the_whole_picture_in_which_it_is_the_concept() -> None:
    painter, nouns = Asked(), {"ada": "woman", "rex": "dog", "tom": "cat"}
    for names, company, arrangement in (
        (("ada", "rex"), "pairs", "plain"),
        (("ada", "rex"), "pairs", "sentence"),
        (("rex", "ada"), "pairs", "boxes"),
        (("ada", "rex", "tom"), "triples", "boxes"),
    ):
        draw_company(
            painter,  # type: ignore[arg-type]
            names,
            company,  # type: ignore[arg-type]
            arrangement,  # type: ignore[arg-type]
            nouns=nouns,
            pictures=3,
            seed=7,
        )
    third = 1 / 3
    assert painter.asked == [
        ("a photo of <ada> next to <rex>", {}, "none"),
        ("a photo of <ada> next to <rex>", {}, "sentence"),
        (
            "a photo of a dog next to a woman",
            {
                (0.0, 0.0, 0.5, 1.0): "a photo of <rex> next to a woman",
                (0.5, 0.0, 1.0, 1.0): "a photo of <ada> next to a dog",
            },
            "none",
        ),
        (
            "a photo of a woman next to a dog and a cat",
            {
                (0.0, 0.0, third, 1.0): "a photo of <ada> next to a dog and a cat",
                (third, 0.0, 2 * third, 1.0): "a photo of <rex> next to a woman and a cat",
                (2 * third, 0.0, 1.0, 1.0): "a photo of <tom> next to a woman and a dog",
            },
            "none",
        ),
    ]
    with pytest.raises(ValueError, match="places are the whole picture's"):
        draw_company(
            painter,  # type: ignore[arg-type]
            ("ada", "rex"),
            "places",
            "boxes",
            nouns=nouns,
            pictures=3,
            seed=7,
        )
    assert said_of(("ada", "tom"), "places", nouns) == "a photo of a woman at a cat"
    assert said_of(("ada", "tom"), "styles", nouns) == "a photo of a woman"


def test_pairs_make_sense() -> None:
    people = groups_of(stream("people-5"), 3)
    assert people == {
        "pairs": [("ada", "ben"), ("ben", "cleo"), ("cleo", "dov")],
        "triples": [("ada", "ben", "cleo"), ("ben", "cleo", "dov"), ("cleo", "dov", "eli")],
    }
    mixed = groups_of(stream("mixed-10"), 4)
    assert mixed == {
        "pairs": [("ada", "rex"), ("ada", "trinket"), ("ada", "tom"), ("ada", "rollo")],
        "triples": [
            ("ada", "rex", "trinket"),
            ("ada", "trinket", "tom"),
            ("ada", "tom", "rollo"),
            ("ada", "rollo", "tilly"),
        ],
        "places": [
            ("ada", "tower"),
            ("rex", "tower"),
            ("trinket", "tower"),
            ("tom", "tower"),
        ],
        "styles": [("ada", "etching"), ("ada", "print"), ("rex", "etching"), ("rex", "print")],
    }
    assert groups_of(stream("mixed-10"), 4, ("ada", "rex", "print")) == {
        "pairs": [("ada", "rex")],
        "styles": [("ada", "print"), ("rex", "print")],
    }
    fifty = groups_of(stream("people+places-50"), 2)
    assert fifty["places"] == [("ada", "place01"), ("ben", "place02")]
    assert "pairs" not in groups_of(stream("places-10"), 4)
    photos = Stream(
        name="photos",
        concepts=tuple(Photographed(name=name, noun="subject", files=()) for name in "abc"),
    )
    assert groups_of(photos, 9) == {"pairs": [("a", "b"), ("b", "c")], "triples": [("a", "b", "c")]}


def test_two_rendered_people_are_seen_where_they_stand_and_one_of_them_twice_is_no_two() -> None:
    encoder = MetricEncoder.open(Path(world.__file__).parent / "weights" / "encoder")
    people = [identity("person", SPLITS["tuning"].start + k) for k in range(3)]
    names = ("ada", "ben", "cleo")
    known = {
        name: encoder.identities([Image.fromarray(p) for p, _ in references("person", one.seed, 8)])
        for name, one in zip(names, people, strict=True)
    }
    beach = Context(background="beach", accessory="none", expression="neutral", style="photo")
    pictures = [
        Image.fromarray(render([people[0], people[1]], beach, 1)),
        Image.fromarray(render([people[0], people[0]], beach, 1)),
    ]
    two, twice = (shown(each, names, 2) for each in likeness_in(encoder, pictures, known))
    assert {one.concept for one in two} == {"ada", "ben"}
    (ada,) = (one for one in two if one.concept == "ada")
    assert ada.window.x < 0.5 and ada.likeness > 0.7  # the first stands on the left
    assert [one.concept for one in twice] == ["ada", "ada"]
