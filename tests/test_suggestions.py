"""What `perdure suggest` says of a concept's pictures, and that it says no more than it knows."""

import json

import numpy as np
import pytest
from conftest import PHOTOS
from PIL import Image, ImageCms, ImageFilter
from typer.testing import CliRunner

from perdure import suggest
from perdure.cli import app
from perdure.hosts.diffusion.host import Base
from perdure.suggestions import BLURRED, blur


@pytest.fixture(scope="module")
def base(tiny) -> Base:
    return Base.open(tiny)


def noise(seed=0, size=(40, 40)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def about(told, what: str) -> list[tuple[str, ...]]:
    return [finding.files for finding in told.findings if finding.about == what]


def test_pictures_that_are_fine_are_said_to_be(base, tmp_path):
    for k in range(4):
        noise(k).save(tmp_path / f"{k}.png")
    told = suggest(tmp_path, base)
    assert told.findings == () and told.settings == {} and told.pictures == 4
    assert told.size == (32, 32)
    # 800 steps of the base's 2 pictures are 400 of each of four
    assert told.because["steps"].startswith("800") and "400 times" in told.because["steps"]


def test_each_thing_that_stands_in_the_way_is_found(base, tmp_path):
    noise(0).save(tmp_path / "a.png")
    noise(0).point(lambda v: min(255, v + 1)).save(tmp_path / "b.png")
    noise(1).filter(ImageFilter.GaussianBlur(3)).save(tmp_path / "soft.png")
    noise(2, (20, 20)).save(tmp_path / "small.png")
    noise(3, (80, 40)).save(tmp_path / "wide.png")
    noise(4, (40, 60)).save(tmp_path / "high.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    noise(5).save(tmp_path / "turned.jpg", exif=turned)
    turned[0x0112] = 77
    noise(6).save(tmp_path / "odd.jpg", exif=turned)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    noise(7).save(tmp_path / "colours.png", icc_profile=lab)
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise(8).save(tmp_path / "usual.png", icc_profile=own)
    told = suggest(tmp_path, base)
    assert about(told, "near-duplicates") == [("a.png", "b.png")]
    assert about(told, "blurred") == [("soft.png",)]
    assert about(told, "too small") == [("small.png",)]
    assert about(told, "shapes") == [("high.png", "wide.png")]
    assert about(told, "EXIF") == [("turned.jpg",), ("odd.jpg",)]
    ((named,),) = about(told, "colours")
    assert named.startswith("colours.png (")
    assert told.settings == {"fit": "buckets"}  # a crop of 80x40 loses half
    assert "50%" in told.because["fit"]


def test_a_size_follows_where_most_pictures_are_small(base, tmp_path):
    for k in range(3):
        noise(k, (25, 27)).save(tmp_path / f"{k}.png")
    told = suggest(tmp_path, base)
    assert told.settings["size"] == "24x24" and about(told, "number") == []


def test_masks_and_captions_that_lie_there_are_said(base, tmp_path):
    for k in range(3):
        noise(k).save(tmp_path / f"{k}.png")
    Image.new("L", (40, 40), 255).save(tmp_path / "1-mask.png")
    (tmp_path / "2.txt").write_text("asleep")
    told = suggest(tmp_path, base)
    assert told.pictures == 3
    assert told.because["masks"].startswith("1 of 3") and told.because["captions"][0] == "1"


def test_blur_is_told_in_photographs():
    """Values of an implementation by scipy's uniform filter, rounded to two digits."""
    if not PHOTOS.exists():
        pytest.skip("the photographs are not here")
    from scipy.ndimage import uniform_filter1d

    for name in ("dog/00.jpg", "teapot/02.jpg"):
        with Image.open(PHOTOS / name) as photo:
            sharp = photo.convert("RGB").resize((256, 256), Image.Resampling.LANCZOS)
        soft = sharp.filter(ImageFilter.GaussianBlur(1.5))
        assert blur(sharp) < BLURRED < blur(soft)
        grey = np.asarray(sharp.convert("L"), float)
        shares = []
        for axis in (0, 1):
            softened = np.moveaxis(uniform_filter1d(grey, 7, axis=axis), axis, 0)[3:-3]
            before = np.abs(np.diff(np.moveaxis(grey, axis, 0)[3:-3], axis=0))
            after = np.abs(np.diff(softened, axis=0))
            shares.append(1 - np.maximum(0, before - after).sum() / before.sum())
        assert blur(sharp) == pytest.approx(max(shares), abs=1e-9)


def test_the_command_says_one_screen_or_json(tiny, tmp_path):
    folder = tmp_path / "rex"
    folder.mkdir()
    for k in range(3):
        noise(k, (80, 40)).save(folder / f"{k}.png")
    run = CliRunner()
    words = ["suggest", str(folder), "--base", str(tiny)]
    shown = run.invoke(app, words)
    assert shown.exit_code == 0, shown.output
    assert len(shown.output.splitlines()) < 24
    assert "--fit buckets" in shown.output and "not known" in shown.output
    told = json.loads(run.invoke(app, [*words, "--json"]).output)
    assert told["settings"] == {"fit": "buckets"} and told["pictures"] == 3
    lost = run.invoke(app, ["suggest", str(folder / "none")])
    assert lost.exit_code != 0 and "There is no" in str(lost.exception)
    other = run.invoke(app, [*words, "--method", "magic"])
    assert other.exit_code != 0 and "no method 'magic'" in str(other.exception)
