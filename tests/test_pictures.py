"""Reading pictures: every kind of file made here with Pillow, every expectation worked out here."""

from __future__ import annotations

import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from perdure.errors import PerdureError
from perdure.learning.photos import read_pictures

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def noise(seed: int = 0, width: int = 64, height: int = 64) -> Image.Image:
    """A smooth random picture: no two seeds look alike."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def quadrants(size: int = 64) -> Image.Image:
    """Red and green above, blue and white below."""
    image = Image.new("RGB", (2, 2))
    image.putdata([RED, GREEN, BLUE, WHITE])
    return image.resize((size, size), Image.Resampling.NEAREST)


def levels(path: Path | list[Path], size: int = 64, **options) -> torch.Tensor:
    """The first picture as 0 to 255, (3, size, size)."""
    return (read_pictures(path, size=size, **options).tensor[0] + 1) * 127.5


def colour(picture: torch.Tensor, x: int, y: int) -> tuple[int, ...]:
    return tuple(round(float(level)) for level in picture[:, y, x])


def corners(picture: torch.Tensor) -> list[tuple[int, ...]]:
    """Colours in the middle of the four quadrants, left to right, top to bottom."""
    near, far = picture.shape[-1] // 4, 3 * picture.shape[-1] // 4
    return [colour(picture, x, y) for y in (near, far) for x in (near, far)]


def near(ours: tuple[int, ...], theirs: tuple[int, ...], tolerance: int) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(ours, theirs, strict=True))


# What comes back


def test_a_folder_is_read_in_the_order_of_its_names_without_hidden_or_other_files(tmp_path):
    for index, name in enumerate(["b.png", "a.png", "C.PNG", ".hidden.png", "._a.png"]):
        noise(index).save(tmp_path / name, format="PNG")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "sub").mkdir()
    noise(9).save(tmp_path / "sub" / "d.png")
    pictures = read_pictures(tmp_path, size=64)
    assert pictures.files == tuple(tmp_path / name for name in ("C.PNG", "a.png", "b.png"))
    assert pictures.tensor.shape == (3, 3, 64, 64) and pictures.tensor.dtype == torch.float32
    assert pictures.notes == () and len(pictures) == 3
    expected = torch.from_numpy(np.array(noise(1))).permute(2, 0, 1) / 127.5 - 1  # a.png
    assert torch.allclose(pictures.tensor[1], expected, atol=1e-6)
    assert pictures.tensor.min() >= -1 and pictures.tensor.max() <= 1


def test_black_is_minus_one_and_white_is_one(tmp_path):
    Image.new("RGB", (8, 8), "black").save(tmp_path / "a.png")
    Image.new("RGB", (8, 8), "white").save(tmp_path / "b.png")
    tensor = read_pictures(tmp_path, size=8).tensor
    assert torch.equal(tensor[0], torch.full((3, 8, 8), -1.0))
    assert torch.equal(tensor[1], torch.full((3, 8, 8), 1.0))


def test_files_are_read_in_the_order_given_and_one_may_be_a_string(tmp_path):
    for index, name in enumerate("ab"):
        noise(index).save(tmp_path / f"{name}.png")
    files = [tmp_path / "b.png", tmp_path / "a.png"]
    assert read_pictures(files, size=64).files == tuple(files)
    assert read_pictures(str(tmp_path / "a.png"), size=64).files == (tmp_path / "a.png",)
    assert len(read_pictures([tmp_path], size=64)) == 2
    assert len(read_pictures(str(tmp_path), size=64)) == 2


def test_the_digest_tells_other_pictures_and_ignores_names(tmp_path):
    for folder, seeds in {
        "one": (1, 2),
        "same": (1, 2),
        "swapped": (2, 1),
        "other": (1, 3),
    }.items():
        (tmp_path / folder).mkdir()
        for index, seed in enumerate(seeds):
            noise(seed).save(tmp_path / folder / f"{folder}{index}.png")
    digest = {path.name: read_pictures(path, size=64).digest for path in tmp_path.iterdir()}
    assert digest["one"] == digest["same"]
    assert len({digest["one"], digest["swapped"], digest["other"]}) == 3
    assert read_pictures(tmp_path / "one", size=32).digest != digest["one"]


# Geometry


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_exif_orientation_is_applied(tmp_path, orientation, kind):
    # How a camera stores the upright picture under each orientation, by the EXIF specification,
    # which says where in the upright picture the stored row 0 and column 0 are.
    upright = np.asarray(quadrants())
    flipped, mirrored = upright[::-1], upright[:, ::-1]
    swapped = upright.transpose(1, 0, 2)  # row 0 is the left side, column 0 the top
    stored = {
        1: upright,  # row 0 is the top, column 0 the left side
        2: mirrored,  # top, right
        3: flipped[:, ::-1],  # bottom, right
        4: flipped,  # bottom, left
        5: swapped,  # left, top
        6: swapped[::-1],  # right, top
        7: swapped[::-1, ::-1],  # right, bottom
        8: swapped[:, ::-1],  # left, bottom
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100} if kind == "jpg" else {"lossless": True} if kind == "webp" else {}
    path = tmp_path / f"a.{kind}"
    Image.fromarray(np.ascontiguousarray(stored[orientation])).save(path, exif=exif, **options)
    found = corners(levels(path))
    assert all(near(a, b, 6) for a, b in zip(found, [RED, GREEN, BLUE, WHITE], strict=True)), found


@pytest.mark.parametrize("shape", [(192, 64), (64, 192)])
def test_the_crop_is_the_centre_square(tmp_path, shape):
    image = Image.new("RGB", shape, RED)
    left, top = (shape[0] - 64) // 2, (shape[1] - 64) // 2
    image.paste(quadrants(), (left, top))
    image.save(tmp_path / "a.png")
    picture = levels(tmp_path / "a.png")
    assert torch.equal(picture.round(), torch.from_numpy(np.array(quadrants())).permute(2, 0, 1))


@pytest.mark.parametrize(
    ("shape", "box"), [((120, 60), (0, 16, 64, 48)), ((60, 120), (16, 0, 48, 64))]
)
def test_the_letterbox_keeps_all_and_pads_with_the_mean_colour_of_the_edge(tmp_path, shape, box):
    # A frame of (200, 100, 50) around a blue middle: the edge's mean is the frame's colour.
    image = Image.new("RGB", shape, (200, 100, 50))
    image.paste(BLUE, (20, 20, shape[0] - 20, shape[1] - 20))
    image.save(tmp_path / "a.png")
    picture = levels(tmp_path / "a.png", fit="letterbox")
    assert colour(picture, 32, 32) == BLUE
    outside = torch.ones(64, 64, dtype=torch.bool)
    outside[box[1] : box[3], box[0] : box[2]] = False
    assert outside.sum() == 64 * 32
    frame = torch.tensor([200.0, 100.0, 50.0])
    assert torch.allclose(picture[:, outside], frame[:, None].expand(3, 64 * 32), atol=1.0)


def test_a_letterboxed_thread_is_one_pixel_thin(tmp_path):
    Image.new("RGB", (1000, 1), RED).save(tmp_path / "a.png")
    assert levels(tmp_path / "a.png", fit="letterbox").shape == (3, 64, 64)


def test_shrinking_antialiases(tmp_path):
    # A one-pixel checkerboard becomes even grey; without antialiasing it stays black and white.
    board = (np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "a.png")
    picture = levels(tmp_path / "a.png")
    assert float((picture[:, 2:-2, 2:-2] - 127.5).abs().max()) < 3


# Kinds of pixels


def test_alpha_is_laid_on_white(tmp_path):
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 32, 64))
    image.paste((0, 0, 255, 128), (32, 0, 64, 32))
    for name in ("a.png", "b.webp"):
        image.save(tmp_path / name, lossless=True)
        blended = (127, 127, 255)  # 255 - 128 of 255 parts white, and blue
        found = corners(levels(tmp_path / name))
        assert all(near(a, b, 1) for a, b in zip(found, [BLUE, blended, BLUE, WHITE], strict=True))


def test_grey_with_alpha_is_laid_on_white(tmp_path):
    image = Image.new("LA", (64, 64), (40, 255))
    image.paste((40, 0), (0, 0, 32, 64))
    image.save(tmp_path / "a.png")
    assert corners(levels(tmp_path / "a.png")) == [WHITE, (40, 40, 40)] * 2


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255, 255])])
def test_palettes_with_and_without_transparency(tmp_path, transparency):
    image = Image.new("P", (64, 64), 0)
    image.putpalette([*RED, *GREEN, *BLUE, 10, 20, 30])
    image.paste(1, (32, 0, 64, 32))
    image.paste(2, (0, 32, 32, 64))
    image.paste(3, (32, 32, 64, 64))
    image.save(tmp_path / "a.png")
    assert corners(levels(tmp_path / "a.png")) == [RED, GREEN, BLUE, (10, 20, 30)]
    image.save(tmp_path / "b.png", transparency=transparency)
    assert Image.open(tmp_path / "b.png").mode == "P"
    assert corners(levels(tmp_path / "b.png")) == [RED, WHITE, BLUE, (10, 20, 30)]


def test_a_transparent_colour_of_an_rgb_picture_is_white(tmp_path):
    quadrants().save(tmp_path / "a.png", transparency=GREEN)
    assert corners(levels(tmp_path / "a.png")) == [RED, WHITE, BLUE, WHITE]


def test_cmyk_jpeg(tmp_path):
    cmyk = Image.new("CMYK", (64, 64), (0, 255, 255, 0))  # no cyan, full magenta and yellow: red
    cmyk.paste((255, 0, 255, 0), (32, 0, 64, 32))  # green
    cmyk.paste((255, 255, 0, 0), (0, 32, 32, 64))  # blue
    cmyk.paste((0, 0, 0, 0), (32, 32, 64, 64))  # paper
    cmyk.save(tmp_path / "a.jpg", quality=100)
    found = corners(levels(tmp_path / "a.jpg"))
    assert all(near(a, b, 6) for a, b in zip(found, [RED, GREEN, BLUE, WHITE], strict=True)), found


def test_sixteen_bit_greyscale_is_scaled_not_clipped(tmp_path):
    pixels = np.zeros((64, 64), dtype=np.uint16)
    pixels[:32, 32:], pixels[32:, :32], pixels[32:, 32:] = 300, 32896, 65535  # 32896 = 128 * 257
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == "I;16"
    found = corners(levels(tmp_path / "a.png"))
    assert found == [(0,) * 3, (1,) * 3, (128,) * 3, (255,) * 3]


def test_sixteen_bit_greyscale_is_turned_upright_too(tmp_path):
    pixels = np.zeros((64, 64), dtype=np.uint16)
    pixels[:32, :32] = 65535
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert corners(levels(tmp_path / "a.png")) == [(0,) * 3] * 3 + [WHITE]


def test_bilevel_and_grey(tmp_path):
    image = Image.new("1", (64, 64), 0)
    image.paste(1, (32, 0, 64, 64))
    image.save(tmp_path / "a.png")
    assert corners(levels(tmp_path / "a.png")) == [(0,) * 3, WHITE] * 2
    Image.new("L", (64, 64), 77).save(tmp_path / "b.jpg", quality=100)
    assert near(colour(levels(tmp_path / "b.jpg"), 9, 9), (77,) * 3, 1)


@pytest.mark.parametrize("kind", ["png", "webp", "avif", "tiff"])
def test_of_several_frames_or_pages_the_first_is_taken(tmp_path, kind):
    frames = [Image.new("RGB", (64, 64), colour) for colour in (GREEN, RED, BLUE)]
    path = tmp_path / f"a.{kind}"
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    assert getattr(Image.open(path), "n_frames", 1) == 3
    assert near(colour(levels(path), 32, 32), GREEN, 4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.bmp", {}),
        ("a.tif", {}),
        ("a.TIFF", {"compression": "tiff_lzw"}),
        ("a.avif", {"quality": 100, "subsampling": "4:4:4"}),
    ],
)
def test_bmp_tiff_and_avif_are_read(tmp_path, name, options):
    quadrants().save(tmp_path / name, **options)
    found = corners(levels(tmp_path))
    assert all(near(a, b, 4) for a, b in zip(found, [RED, GREEN, BLUE, WHITE], strict=True)), found


@pytest.mark.parametrize("kind", ["tiff", "avif"])
def test_tiff_and_avif_are_turned_upright(tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112] = 3
    image = quadrants().transpose(Image.Transpose.ROTATE_180)
    image.save(tmp_path / f"a.{kind}", exif=exif, quality=100)
    found = corners(levels(tmp_path))
    assert all(near(a, b, 12) for a, b in zip(found, [RED, GREEN, BLUE, WHITE], strict=True)), found


def test_an_avif_that_begins_with_the_brand_of_all_heif_is_read(tmp_path):
    quadrants().save(tmp_path / "a.avif")
    data = bytearray((tmp_path / "a.avif").read_bytes())
    assert data[8:12] == b"avif"
    data[8:12] = b"mif1"
    (tmp_path / "a.avif").write_bytes(data)
    assert len(read_pictures(tmp_path, size=64)) == 1


def test_a_tiff_of_fractions_is_refused(tmp_path):
    Image.fromarray(np.ones((64, 64), dtype=np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(PerdureError, match="holds fractions.*save it with 8 or 16 bits"):
        read_pictures(tmp_path, size=64)


def test_the_contents_tell_the_format_not_the_name(tmp_path):
    noise().save(tmp_path / "a.jpg", format="PNG")
    assert len(read_pictures(tmp_path, size=64)) == 1


def test_heic(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif")
    image = quadrants().transpose(Image.Transpose.ROTATE_180)
    exif = Image.Exif()
    exif[0x0112] = 3
    stored = heif.from_bytes("RGB", image.size, image.tobytes())
    stored.info["exif"] = exif.tobytes()  # written as cameras do: stored turned, and how to turn
    stored.save(tmp_path / "a.heic", quality=100)
    found = corners(levels(tmp_path))
    assert all(near(a, b, 12) for a, b in zip(found, [RED, GREEN, BLUE, WHITE], strict=True)), found
    with pytest.raises(PerdureError, match="decompression bomb"):
        read_pictures(tmp_path, size=64, max_pixels=4095)
    (tmp_path / "a.heic").write_bytes((tmp_path / "a.heic").read_bytes()[:-200])
    with pytest.raises(PerdureError, match="a.heic is damaged or cut short"):
        read_pictures(tmp_path, size=64)


def test_heic_without_its_reader_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100)
    with pytest.raises(PerdureError, match=r"a\.jpg is a HEIC picture.*'perdure\[heic\]'"):
        read_pictures(tmp_path, size=64)


# Reported


def test_exact_duplicates_are_left_out_and_reported(tmp_path):
    noise(1).save(tmp_path / "a.png")
    noise(1).save(tmp_path / "b.webp", lossless=True)
    noise(2).save(tmp_path / "c.png")
    pictures = read_pictures(tmp_path, size=64)
    assert pictures.files == (tmp_path / "a.png", tmp_path / "c.png")
    assert pictures.notes == (
        f"{tmp_path / 'b.webp'} is the same picture as {tmp_path / 'a.png'}: left out.",
    )
    twice = [tmp_path / "c.png", tmp_path / "c.png"]
    assert read_pictures(twice, size=64).files == (tmp_path / "c.png",)


def test_near_duplicates_are_kept_and_reported_and_different_pictures_are_not(tmp_path):
    noise(1, 256, 256).save(tmp_path / "a.png")
    noise(1, 256, 256).resize((128, 128)).save(tmp_path / "b.jpg", quality=70)
    for seed in range(2, 30):
        noise(seed).save(tmp_path / f"{seed}.png")
    Image.new("RGB", (64, 64), (90, 90, 90)).save(tmp_path / "x.png")
    Image.new("RGB", (64, 64), (200, 200, 200)).save(tmp_path / "y.png")
    pictures = read_pictures(tmp_path, size=64)
    assert len(pictures) == 32
    assert len(pictures.notes) == 1
    assert f"{tmp_path / 'b.jpg'} looks almost like {tmp_path / 'a.png'}: kept" in pictures.notes[0]


def test_small_pictures_are_enlarged_and_reported_and_too_small_ones_left_out(tmp_path):
    for side in (31, 32, 63, 64):
        noise(side, 100, side).save(tmp_path / f"{side}.png")
    pictures = read_pictures(tmp_path, size=64)
    assert [path.stem for path in pictures.files] == ["32", "63", "64"]
    small, smaller, tiny = sorted(
        pictures.notes, key=lambda note: note.split(".png")[0], reverse=True
    )
    assert "63.png is small (100x63 pixels, 64x64 wanted): enlarged" in small
    assert "32.png is small (100x32 pixels, 64x64 wanted): enlarged" in smaller
    assert "31.png is too small (100x31 pixels, 64x64 wanted): left out" in tiny
    # A letterbox scales the longer side, which is large enough here.
    assert len(read_pictures(tmp_path, size=64, fit="letterbox").files) == 4
    with pytest.raises(PerdureError, match="None of the 4 pictures is large enough for 256x256"):
        read_pictures(tmp_path, size=256)


def test_pictures_of_other_formats_in_a_folder_are_reported(tmp_path):
    noise(1).save(tmp_path / "a.png")
    noise(2).save(tmp_path / "b.gif")
    pictures = read_pictures(tmp_path, size=64)
    assert pictures.files == (tmp_path / "a.png",)
    assert "b.gif is left out: only JPEG, PNG, WebP, AVIF, TIFF, BMP and HEIC" in pictures.notes[0]
    with pytest.raises(PerdureError, match="b.gif is not a picture that can be read"):
        read_pictures(tmp_path / "b.gif", size=64)


# Refused


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tiff", "bmp"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_truncated_file_is_named_with_the_mend(tmp_path, kind, part):
    path = tmp_path / f"a.{kind}"
    noise(0, 256, 256).save(path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(PerdureError, match=rf"a\.{kind} is damaged or cut short.*copy it again"):
        read_pictures(tmp_path, size=64)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "avif", "tiff", "bmp"])
def test_a_file_cut_anywhere_is_a_sentence_or_a_picture(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    noise(0, 64, 64).save(path)
    data = path.read_bytes()
    for end in range(0, len(data), max(1, len(data) // 40)):
        path.write_bytes(data[:end])
        with pytest.raises(PerdureError, match=rf"a\.{kind} is (empty|damaged|not a picture)"):
            read_pictures(path, size=64)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [100_000, 10_000])  # Pillow: an error, and only a warning
def test_a_decompression_bomb_is_refused_and_pillow_stays_as_it_was(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(bomb(side, side))
    before = Image.MAX_IMAGE_PIXELS, list(warnings.filters), sorted(Image.OPEN)
    with pytest.raises(PerdureError, match="bomb.png claims .* may be a decompression bomb"):
        read_pictures(tmp_path, size=64)
    assert before == (Image.MAX_IMAGE_PIXELS, list(warnings.filters), sorted(Image.OPEN))


def test_a_bomb_is_refused_even_where_the_program_has_lifted_pillows_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (tmp_path / "bomb.png").write_bytes(bomb(100_000, 100_000))
    with pytest.raises(PerdureError, match="bomb.png claims 100000x100000 pixels"):
        read_pictures(tmp_path, size=64)


def test_a_text_file_named_jpg_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_text("This is not a picture.\n" * 20)
    with pytest.raises(PerdureError, match=r"a\.jpg is not a picture that can be read"):
        read_pictures(tmp_path, size=64)


def test_an_empty_file_an_empty_folder_and_a_missing_path_are_refused(tmp_path):
    with pytest.raises(PerdureError, match=f"{tmp_path} has no pictures"):
        read_pictures(tmp_path, size=64)
    with pytest.raises(PerdureError, match="nowhere does not exist"):
        read_pictures(tmp_path / "nowhere", size=64)
    with pytest.raises(PerdureError, match="No pictures were given"):
        read_pictures([], size=64)
    (tmp_path / "a.jpg").touch()
    with pytest.raises(PerdureError, match=r"a\.jpg is empty"):
        read_pictures(tmp_path, size=64)
    with pytest.raises(PerdureError, match="is a folder: name either"):
        read_pictures([tmp_path / "a.jpg", tmp_path], size=64)


def test_too_many_pictures_are_refused_before_one_is_opened(tmp_path):
    for index in range(4):
        (tmp_path / f"{index}.png").touch()
    with pytest.raises(PerdureError, match="4 pictures were given, at most 3"):
        read_pictures(tmp_path, size=64, max_pictures=3)


def test_options_that_do_not_exist_are_value_errors(tmp_path):
    with pytest.raises(ValueError, match="size must be"):
        read_pictures(tmp_path, size=0)
    with pytest.raises(ValueError, match="fit must be"):
        read_pictures(tmp_path, size=64, fit="stretch")  # type: ignore[arg-type]


def test_nothing_is_printed_or_warned(tmp_path, capfd, recwarn):
    noise(1).convert("P").save(tmp_path / "a.png", transparency=bytes([0, 128]))
    noise(2).save(tmp_path / "b.jpg")
    read_pictures(tmp_path, size=64)
    assert capfd.readouterr() == ("", "") and len(recwarn) == 0


def test_photographs_are_read(photos=Path(__file__).parents[2] / "shared" / "photos"):
    if not photos.is_dir():
        pytest.skip("needs ../shared/photos")
    pictures = read_pictures(photos / "dog", size=64)
    assert len(pictures) >= 4 and pictures.tensor.std() > 0.1
