"""Where the subjects of one sentence stand, and what each part of the picture reads."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from typer.testing import CliRunner

import perdure
from perdure.cli import app
from perdure.drawing.again import draw_like
from perdure.drawing.layout import PULL, NoNounError, laid_out
from perdure.drawing.plan import plan
from perdure.drawing.regions import Region
from perdure.hosts.diffusion.regional import Place, masks

NOUNS = dict.fromkeys(("ada", "ben", "cleo"), "person") | {
    "rex": "dog",
    "otto": "otter",
    "hat": "hat",
    "harbour": "harbour",
}
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
TOP, BOTTOM = (0.0, 0.0, 1.0, 0.5), (0.0, 0.5, 1.0, 1.0)


def boxes(prompt: str) -> dict[str, tuple[float, ...]]:
    layout = laid_out(prompt, NOUNS, ["ink"])
    assert layout is not None
    names = [names[0] for names in layout.subjects]
    return dict(zip(names, (region.box for region in layout.regions), strict=True))


def phrases(prompt: str) -> tuple[str, ...]:
    layout = laid_out(prompt, NOUNS, ["ink"])
    assert layout is not None
    return layout.prompt, *(region.phrase for region in layout.regions)


@pytest.mark.parametrize(
    "prompt",
    [
        "a photo of a dog",
        "a photo of <ada>, in the snow",
        "<ada> next to <ada>",
        "a painting of <ada> in the style of <ink>",
        "<ada> in <ink> style",
        "a photo of <ada> at <harbour>",
        "<ada> in front of the <harbour>",
        "<ada> wearing the <hat>",
    ],
)
def test_a_sentence_of_one_subject_or_none_is_left_as_it_is(prompt: str) -> None:
    assert laid_out(prompt, NOUNS, ["ink"]) is None


@pytest.mark.parametrize(
    ("prompt", "ada", "ben"),
    [
        ("a photo of <ada> next to <ben>", LEFT, RIGHT),
        ("a photo of <ben> and <ada>", RIGHT, LEFT),
        ("<ada> to the left of <ben>", LEFT, RIGHT),
        ("<ada> to the right of <ben>", RIGHT, LEFT),
        ("<ada> on the right, <ben> on the left", RIGHT, LEFT),
        ("<ada> hugging <ben>", LEFT, RIGHT),
        ("<ada> above <ben>", TOP, BOTTOM),
        ("<ada> under <ben>", BOTTOM, TOP),
    ],
)
def test_subjects_stand_as_the_sentence_says(
    prompt: str, ada: tuple[float, ...], ben: tuple[float, ...]
) -> None:
    assert boxes(prompt) == {"ada": ada, "ben": ben}


def test_three_and_more_stand_in_a_row() -> None:
    row = boxes("<ada>, <ben>, <cleo> and <rex>")
    assert [row[name][0] for name in ("ada", "ben", "cleo", "rex")] == [0.0, 0.25, 0.5, 0.75]
    row = boxes("<ada> between <ben> and <cleo>")
    assert row["ben"][0] < row["ada"][0] < row["cleo"][0]
    assert str(laid_out("<ada>, <ben> and <cleo>", NOUNS)) == (
        "<ada> on the left, <ben> in the middle, <cleo> on the right"
    )


@pytest.mark.parametrize("prompt", ["<ada> behind <ben>", "<ben> in front of <ada>"])
def test_who_stands_in_front_hides_who_stands_behind(prompt: str) -> None:
    layout = laid_out(prompt, NOUNS)
    assert layout is not None
    depth = {of[0]: one.depth for of, one in zip(layout.subjects, layout.regions, strict=True)}
    assert depth["ben"] < depth["ada"]
    front, back = Place(box=LEFT), Place(box=(0.25, 0.0, 1.0, 1.0), depth=1)
    seen = masks([back, front], 4, 1)
    assert torch.equal(seen, torch.tensor([[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]]))


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        (
            "a photo of <ada> next to <rex>",
            ("a photo of a person next to a dog", "a photo of <ada>", "a photo of <rex>"),
        ),
        (
            "a photo of <ada> wearing a hat next to the <otto> with a bow, at night",
            (
                "a photo of a person wearing a hat next to the otter with a bow, at night",
                "a photo of <ada> wearing a hat, at night",
                "a photo of <otto> with a bow, at night",
            ),
        ),
        (
            "<otto> holding <hat> next to <ada>",
            ("an otter holding a hat next to a person", "<otto> holding <hat>", "<ada>"),
        ),
        (
            "a painting in the style of <ink> of <ada> and <ben> at <harbour>",
            (
                "a painting in the style of <ink> of a person and a person at <harbour>",
                "a painting in the style of <ink> of <ada> at <harbour>",
                "a painting in the style of <ink> of <ben> at <harbour>",
            ),
        ),
        (  # what speaks of the whole picture is in every phrase
            "<ada> in the style of <ink> next to <ben>",
            (
                "a person in the style of <ink> next to a person",
                "<ada> in the style of <ink>",
                "<ben> in the style of <ink> next to <ben>",
            ),
        ),
    ],
)
def test_the_whole_reads_nouns_and_each_region_its_own_subject(
    prompt: str, read: tuple[str, ...]
) -> None:
    assert phrases(prompt) == read


def test_a_subject_without_a_noun_is_named() -> None:
    with pytest.raises(NoNounError, match=r"what <zoe> is.*--noun"):
        laid_out("<ada> next to <zoe>", NOUNS)


def test_the_plan_shows_who_stands_where() -> None:
    layout = laid_out("<ada> behind <ben>", NOUNS)
    assert layout is not None
    picture = plan(layout, (64, 32))
    assert picture.size == (512, 256)
    corners = {picture.getpixel(at) for at in ((20, 240), (500, 10), (500, 250))}
    assert len(corners) == 3  # the front one, the one behind, and neither


@pytest.fixture(scope="module")
def base(tiny: Path) -> perdure.Base:
    return perdure.Base.open(tiny, device="cpu")


@pytest.fixture(scope="module")
def bank(base: perdure.Base, drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two people, and of one without a noun."""
    path = tmp_path_factory.mktemp("banks") / "bank"
    for name in ("ada", "bo", "cy"):
        nouns = {} if name == "cy" else {name: "person"}
        perdure.learn(base, path, {name: drawings / name}, nouns=nouns, steps=1)
    return path


def pixels(picture: Image.Image) -> bytes:
    return picture.convert("RGB").tobytes()


TWO = "a photo of <ada> next to <bo>"


def test_with_one_subject_or_a_box_nothing_is_laid_out(base: perdure.Base, bank: Path) -> None:
    told: list[str] = []
    boxes = [Region(phrase="a photo of <bo>", box=LEFT)]
    for prompt, regions in (
        ("a photo of <ada>, in the snow", []),
        ("a dog next to a person", []),
        (TWO, boxes),
    ):
        own, off = (
            perdure.draw(
                base, bank, prompt, seed=3, regions=regions, layout=layout, note=told.append
            )
            for layout in ("sentence", "none")
        )
        assert pixels(own[0]) == pixels(off[0])
    assert not told


def test_two_subjects_are_laid_out_said_in_one_line_and_drawn_again_to_the_same_bits(
    base: perdure.Base, bank: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    prompts = ["a dog", TWO, "a photo of <ada>"]
    drawn = perdure.draw(base, bank, prompts, seed=3, steps=4, note=told.append)
    assert told == [f"{TWO!r} is laid out: <ada> on the left, <bo> on the right."]
    (off,) = perdure.draw(base, bank, TWO, seed=3, steps=4, layout="none")
    assert pixels(drawn[1]) != pixels(off)
    for k, picture in enumerate((drawn[1], off)):
        perdure.save_picture(picture, tmp_path / f"{k}.png")
        assert perdure.read_facts(tmp_path / f"{k}.png").prompt == TWO
        assert pixels(draw_like(base, bank, tmp_path / f"{k}.png")[0]) == pixels(picture)
    (dog,) = perdure.draw(base, bank, "a dog", seed=3, steps=4)
    assert pixels(dog) == pixels(drawn[0])  # whatever else is drawn


def test_three_side_by_side_are_said_to_want_a_wider_picture(
    base: perdure.Base, drawings: Path, tmp_path: Path
) -> None:
    for name in ("ada", "bo", "cy"):
        pictures = {name: drawings / name}
        perdure.learn(base, tmp_path / "bank", pictures, nouns={name: "person"}, steps=1)
    three, told = "<ada>, <bo> and <cy>", []
    perdure.draw(base, tmp_path / "bank", three, steps=1, note=told.append)
    assert told[1:] == ["For 3 side by side a wider picture is better: --size 48x32."]
    told.clear()
    perdure.draw(base, tmp_path / "bank", three, steps=1, size="48x32", note=told.append)
    assert len(told) == 1


def test_the_first_steps_read_the_nouns_alone(base: perdure.Base, bank: Path) -> None:
    """At one step, where all is noise, the picture is that of the nouns, guided as strongly."""
    (laid,) = perdure.draw(base, bank, TWO, seed=3, steps=1, guidance=2, closeup=0)
    (nouns,) = perdure.draw(
        base, bank, "a photo of a person next to a person", seed=3, steps=1, guidance=2 * PULL
    )
    assert pixels(laid) == pixels(nouns)


def test_a_bank_that_lacks_a_noun_says_so_and_leaves_the_layout_to_the_base(
    base: perdure.Base, bank: Path
) -> None:
    told: list[str] = []
    prompt = "<ada> next to <cy>"
    (own,) = perdure.draw(base, bank, prompt, seed=3, note=told.append)
    (off,) = perdure.draw(base, bank, prompt, seed=3, layout="none")
    assert pixels(own) == pixels(off)
    assert len(told) == 1 and "does not know what <cy> is" in told[0]


def test_the_command_line_says_and_shows_the_layout(tiny: Path, bank: Path, tmp_path: Path) -> None:
    out = tmp_path / "pictures"
    asked = ["generate", TWO, "a dog", "--base", str(tiny), "--bank", str(bank)]
    result = CliRunner().invoke(
        app, [*asked, "--count", "1", "--out", str(out), "--device", "cpu", "--show-layout"]
    )
    assert result.exit_code == 0, result.output
    assert "is laid out: <ada> on the left, <bo> on the right." in result.output
    assert sorted(one.name for one in out.iterdir()) == ["00-0.png", "00-layout.png", "01-0.png"]


@pytest.mark.usefixtures("fp32")
def test_an_attached_pipeline_is_laid_out_too(tiny: Path, base: perdure.Base, bank: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)

    def call(layout: str, prompt: str = TWO) -> np.ndarray:
        with perdure.attach(pipeline, bank, layout=layout):
            generator = torch.Generator().manual_seed(3)
            drawn = pipeline(prompt, num_inference_steps=4, guidance_scale=3.0, generator=generator)
        return np.asarray(drawn.images[0], int)

    def draw(guidance: float, layout: str, prompt: str = TWO) -> np.ndarray:
        (drawn,) = perdure.draw(
            base, bank, prompt, seed=3, steps=4, guidance=guidance, layout=layout, closeup=0
        )
        return np.asarray(drawn, int)

    laid, plain = call("sentence"), call("none")
    assert np.abs(laid - draw(3.0 / PULL, "sentence")).max() <= 2
    assert np.abs(plain - draw(3.0, "none")).max() <= 2
    assert np.abs(laid - plain).max() > 2
    one = "a photo of <ada>"
    assert np.array_equal(call("sentence", one), call("none", one))
