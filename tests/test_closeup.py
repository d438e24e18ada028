"""Subjects of a picture of several, drawn over by themselves and put back."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_pipelines import MAKERS, make_sana

import perdure
from perdure.drawing.closeup import Window, put_back, schedule, shared_out, windows
from perdure.drawing.painter import Painter
from perdure.drawing.regions import Region
from perdure.errors import PerdureError

LEFT = Region(phrase="a photo of <ada>", box=(0.0, 0.0, 0.5, 1.0))
RIGHT = Region(phrase="a photo of <bo>", box=(0.5, 0.0, 1.0, 1.0))
TWO = "a photo of <ada> next to <bo>"


def test_a_window_has_the_shape_of_the_base_and_somewhat_more_than_the_regions_area() -> None:
    looks = windows([LEFT, RIGHT], (64, 64), (64, 64))
    # 1.1 * sqrt(32 * 64) = 49.8; the middles are (16, 32) and (48, 32)
    assert looks == {
        0: Window(left=-9, top=7, width=50, height=50),
        1: Window(left=23, top=7, width=50, height=50),
    }
    assert windows([LEFT], (64, 64), (64, 32)) == {}  # 1.1 * sqrt(32 * 64 / (64 * 32)) = 1.1
    (wide,) = windows([LEFT], (96, 64), (64, 64)).values()
    assert (wide.width, wide.height, wide.top) == (61, 61, 2)  # 1.1 * sqrt(48 * 64)


def test_a_subject_that_stands_at_full_scale_has_no_window_and_the_farthest_comes_first() -> None:
    whole = Region(phrase="a photo of <ada>", box=(0.0, 0.0, 1.0, 1.0))
    assert windows([whole], (64, 64), (64, 64)) == {}
    assert windows([LEFT, RIGHT], (256, 128), (64, 64)) == {}
    behind = Region(phrase="a photo of <bo>", box=(0.3, 0.0, 0.9, 0.8), depth=1)
    assert list(windows([LEFT, behind], (64, 64), (64, 64))) == [1, 0]


def test_a_window_goes_on_where_the_picture_ends() -> None:
    columns = np.broadcast_to(np.arange(8, dtype=np.uint8)[None, :, None] * 30, (8, 8, 3))
    part = Window(left=-2, top=5, width=4, height=4).cut(Image.fromarray(columns.copy()), (4, 4))
    assert np.asarray(part)[:, :, 0].tolist() == [[0, 0, 0, 30]] * 4


def test_what_is_put_back_stays_in_its_region_and_behind_what_hides_it() -> None:
    black, white = Image.new("RGB", (64, 64)), Image.new("RGB", (64, 64), "white")
    window = windows([LEFT], (64, 64), (64, 64))[0]
    shown = np.asarray(put_back(black, white, window, [LEFT], 0))[:, :, 0]
    assert shown[32, 12] == 255 and 100 < shown[32, 31] < 255  # it fades at the edge
    assert not shown[:, 46:].any() and (shown[0] < 60).all()  # another region; outside the window
    behind = Region(phrase="a photo of <bo>", box=(0.0, 0.0, 1.0, 1.0), depth=1)
    over = Window(left=0, top=0, width=63, height=63)
    rear = np.asarray(put_back(black, white, over, [LEFT, behind], 1))[:, :, 0]
    assert not rear[:, :18].any() and rear[32, 48] == 255


def test_steps_are_shared_out_so_that_two_cost_at_most_half_more_than_one() -> None:
    assert shared_out(12) == (8, 3) and shared_out(30) == (20, 8) and shared_out(4) == (4, 2)
    for steps in range(12, 101):
        whole, each = shared_out(steps)
        assert whole + 2 * each <= 1.25 * steps
    assert schedule(3, 0.6, 1000) == 5 and schedule(2, 1.0, 1000) == 2
    for strength in (0.05, 0.3, 0.6, 0.77, 1.0):
        assert int(schedule(8, strength, 1000) * strength) == 8
    assert schedule(2, 0.001, 1000) == 1000


@pytest.fixture(scope="module")
def base(tiny: Path) -> perdure.Base:
    return perdure.Base.open(tiny, device="cpu")


@pytest.fixture(scope="module")
def bank(base: perdure.Base, drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("banks") / "bank"
    for name in ("ada", "bo"):
        perdure.learn(base, path, {name: drawings / name}, nouns={name: "person"}, steps=1)
    return path


def test_it_is_what_drawing_over_each_part_by_hand_gives(base: perdure.Base, bank: Path) -> None:
    painter = Painter(base, bank)
    (drawn,) = painter.draw(TWO, seed=3, steps=12, guidance=3.0)
    (by_hand,) = painter.draw(TWO, seed=3, steps=8, guidance=3.0, closeup=0)
    layout = painter.layout(TWO)
    assert layout is not None
    for k, window in windows(layout.regions, base.size, base.size).items():
        (part,) = painter.draw(
            layout.regions[k].phrase,
            seed=3,
            steps=5,
            guidance=3.0,
            init=window.cut(by_hand, base.size),
            strength=0.6,
        )
        by_hand = put_back(by_hand, part, window, layout.regions, k)
    assert drawn.tobytes() == by_hand.tobytes()
    facts = perdure.facts_of(drawn)
    assert facts is not None and facts.closeup == 0.6 and facts.steps == 12
    (less,) = painter.draw(TWO, seed=3, steps=12, guidance=3.0, closeup=0.3)
    assert less.tobytes() != drawn.tobytes()


def test_boxes_are_drawn_over_too_and_a_picture_of_one_is_not(
    base: perdure.Base, bank: Path
) -> None:
    painter = Painter(base, bank)
    boxes = [LEFT, RIGHT]
    (near,) = painter.draw("two people", seed=3, steps=4, regions=boxes)
    (far,) = painter.draw("two people", seed=3, steps=4, regions=boxes, closeup=0)
    assert near.tobytes() != far.tobytes()
    for prompt in ("a photo of <ada>", "a dog"):
        (one,) = painter.draw(prompt, seed=3, steps=4)
        (off,) = painter.draw(prompt, seed=3, steps=4, closeup=0)
        assert one.tobytes() == off.tobytes()


ABLE = ("sdxl", "sd3", "flux", "z-image", "qwen-image", "chroma")


@pytest.mark.parametrize("family", ABLE)
def test_in_every_family_that_can_begin_with_a_picture(
    family: str, drawings: Path, tmp_path: Path
) -> None:
    base = perdure.Base.open(MAKERS[family](tmp_path / "base"), device="cpu")
    for name in ("ada", "bo"):
        pictures = {name: drawings / name}
        perdure.learn(base, tmp_path / "bank", pictures, nouns={name: "person"}, steps=1)
    painter = Painter(base, tmp_path / "bank")
    (near,) = painter.draw(TWO, seed=3, steps=2)
    (far,) = painter.draw(TWO, seed=3, steps=2, closeup=0)
    assert near.size == far.size == base.size and near.tobytes() != far.tobytes()


def test_a_family_that_cannot_begin_with_a_picture_leaves_it_out(
    drawings: Path, tmp_path: Path
) -> None:
    base = perdure.Base.open(make_sana(tmp_path / "base"), device="cpu")
    for name in ("ada", "bo"):
        pictures = {name: drawings / name}
        perdure.learn(base, tmp_path / "bank", pictures, nouns={name: "person"}, steps=1)
    painter = Painter(base, tmp_path / "bank")
    (drawn,) = painter.draw(TWO, seed=3, steps=2)
    facts = perdure.facts_of(drawn)
    assert facts is not None and facts.closeup == 0
    with pytest.raises(PerdureError, match="leave --closeup out"):
        painter.draw(TWO, seed=3, steps=2, closeup=0.5)
