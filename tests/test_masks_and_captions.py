"""What is learned of a picture: the masked part, by its caption, in a size of its own shape."""

import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from perdure import learn, resume
from perdure.bank import Bank
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.hosts.size import buckets
from perdure.learning import loop
from perdure.learning.latents import Latents, cache
from perdure.learning.photos import read_buckets, read_pictures
from perdure.learning.settings import LearnSettings
from perdure.learning.sources import read_source
from perdure.methods import build


@pytest.fixture(scope="module")
def base(tiny) -> Base:
    return Base.open(tiny)


def half(size=(40, 40), left=255, right=0) -> Image.Image:
    """A mask whose left half is the concept."""
    mask = np.full((size[1], size[0]), right, np.uint8)
    mask[:, : size[0] // 2] = left
    return Image.fromarray(mask)


def picture(seed=0, size=(40, 40)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_a_mask_beside_its_picture_is_its_mask_and_no_picture(tmp_path):
    for k in range(2):
        picture(k).save(tmp_path / f"rex{k}.png")
    half().save(tmp_path / "rex1-mask.png")
    picture(5).save(tmp_path / "lone-mask.png")  # of no picture: it is one itself
    read = read_pictures(tmp_path, size=32, masks="given")
    assert [file.name for file in read.files] == ["lone-mask.png", "rex0.png", "rex1.png"]
    assert read.masks.shape == (3, 1, 32, 32)
    assert (read.masks[:2] == 1).all() and read.masks[2, 0, :, :16].min() == 1
    assert read.masks[2, 0, :, 16:].max() == 0
    plain = read_pictures(tmp_path, size=32)
    assert plain.masks is None and len(plain) == 3 and torch.equal(plain.tensor, read.tensor)
    assert plain.digest != read.digest


def test_transparency_is_a_mask_and_a_letterboxs_border_is_not_the_concept(tmp_path):
    shown = picture(size=(40, 20)).convert("RGBA")
    shown.putalpha(half((40, 20)))
    shown.save(tmp_path / "rex.png")
    picture(1).convert("RGBA").save(tmp_path / "solid.png")
    read = read_pictures(tmp_path, size=32, fit="letterbox", masks="given")
    assert read.masks[0].sum() == 16 * 16 and read.masks[0, 0, 8:24, :16].min() == 1
    assert (read.masks[1] == 1).all()


def test_masks_among_files_that_were_named_are_no_pictures_and_their_transparency_counts(tmp_path):
    picture().save(tmp_path / "rex.png")
    painted = Image.new("RGBA", (40, 40), "white")
    painted.putalpha(half())
    painted.save(tmp_path / "rex-mask.png")
    for read in (
        read_pictures(sorted(tmp_path.iterdir()), size=32, masks="given"),
        *read_buckets(sorted(tmp_path.iterdir()), sizes=((32, 32),), masks="given"),
    ):
        assert [file.name for file in read.files] == ["rex.png"]
        assert (read.masks[..., :16] == 1).all() and (read.masks[..., 16:] == 0).all()


@pytest.mark.parametrize(
    ("mask", "size", "word"),
    [
        (half((20, 40)), (40, 40), "20x40 pixels and its picture 40x40"),
        (Image.new("L", (40, 40)), (40, 40), "shows no subject"),
    ],
)
def test_a_mask_that_cannot_be_meant_is_one_sentence(tmp_path, mask, size, word):
    picture(size=size).save(tmp_path / "rex.png")
    mask.save(tmp_path / "rex-mask.png")
    with pytest.raises(PerdureError, match=word):
        read_pictures(tmp_path, size=32, masks="given")


def test_a_crop_that_leaves_nothing_of_the_subject_is_said(tmp_path):
    picture(size=(160, 40)).save(tmp_path / "rex.png")
    mask = np.zeros((40, 160), np.uint8)
    mask[:, :20] = 255
    Image.fromarray(mask).save(tmp_path / "rex-mask.png")
    with pytest.raises(PerdureError, match="leaves nothing of its masked subject"):
        read_pictures(tmp_path, size=32, masks="given")
    assert read_pictures(tmp_path, size=32, fit="letterbox", masks="given").masks.sum() > 0


def test_masks_are_found_where_asked_and_those_given_win(tmp_path, monkeypatch):
    for k in range(2):
        picture(k).save(tmp_path / f"{k}.png")
    half().save(tmp_path / "0-mask.png")
    monkeypatch.setitem(sys.modules, "rembg", None)
    with pytest.raises(PerdureError, match=r"pip install 'perdure\[masks\]'"):
        read_pictures(tmp_path, size=32, masks="auto")
    asked = []

    def remove(shown, only_mask):
        asked.append((shown.size, only_mask))
        return half(left=0, right=255)

    monkeypatch.setitem(sys.modules, "rembg", SimpleNamespace(remove=remove))
    read = read_pictures(tmp_path, size=32, masks="auto")
    assert asked == [((40, 40), True)]
    assert read.masks[0, 0, 0, 0] == 1 and read.masks[1, 0, 0, 0] == 0


def test_latents_hold_shares_and_captions_of_mirrored_pictures_too(base, tmp_path):
    for k in range(2):
        picture(k).save(tmp_path / f"{k}.png")
    half().save(tmp_path / "1-mask.png")
    (tmp_path / "0.txt").write_text("asleep")
    (read,) = read_source(base, "rex", tmp_path, LearnSettings())
    assert any("1.png has no caption" in sentence for sentence in read.notes)
    own = cache(base, read, flip=True)
    width = own.mean.shape[-1]
    assert own.shares.shape == (4, 1, *own.mean.shape[-2:])
    assert (own.shares[1, ..., : width // 2] == 1).all() and own.shares[1].mean() == 0.5
    assert torch.equal(own.shares[3], own.shares[1].flip(-1))
    asleep = "a photo of {}, asleep"
    assert [own.caption(k) for k in range(4)] == [asleep, None, asleep, None]


def step_of(session, latents, **settings):
    learner = build("lora", rank=2).start(
        session.shapes, [], {"rex": torch.randn(1, 32)}, torch.Generator()
    )
    return loop.Step(session, learner, {"rex": latents}, LearnSettings(**settings), None, {})


def test_the_masked_loss_is_the_mean_error_where_the_concept_is(base, monkeypatch):
    x, shares = torch.randn(2, 4, 8, 8), torch.ones(2, 1, 8, 8)
    shares[0, :, :, 3:] = 0
    shares[1, :, 4] = 0.5
    own = Latents(mean=x, std=torch.zeros_like(x))
    with base.session() as session:
        session.speak({"rex": base.tokens.token("word", torch.randn(1, 32), 1.0)})
        monkeypatch.setattr(session, "predict", lambda noised, t, said, size: 0 * noised)
        step = step_of(session, [own])
        losses = [
            float(step._loss(x, ["<rex>"] * 2, given, (32, 32), torch.Generator().manual_seed(3)))
            for given in (None, torch.ones_like(shares), shares)
        ]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(3)).square()
    assert losses[0] == pytest.approx(float(noise.mean()), rel=1e-5)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    rows = noise[1].mean(dim=(0, 2)) * torch.tensor([1, 1, 1, 1, 0.5, 1, 1, 1])
    wanted = (float(noise[0, :, :, :3].mean()) + float(rows.sum() / 7.5)) / 2
    assert losses[2] == pytest.approx(wanted, rel=1e-5)


def test_a_picture_is_learned_by_its_caption_and_at_times_by_a_template(base, monkeypatch):
    value = torch.arange(3.0)[:, None, None, None].expand(3, 4, 8, 8)
    own = Latents(
        mean=value, std=torch.zeros(3, 4, 8, 8), captions=("{} asleep", None, "a drawing of {}")
    )
    seen = Counter()

    def count(step, x, prompts, shares, size, generator):
        seen.update((int(one.mean()), said) for one, said in zip(x, prompts, strict=True))
        assert shares is None
        return torch.zeros(())

    monkeypatch.setattr(loop.Step, "_loss", count)
    with base.session() as session:
        step = step_of(session, [own], caption_dropout=0.25)
        assert set(step.every_prompt()) == {
            "a photo of <rex>",
            "<rex> asleep",
            "a drawing of <rex>",
        }
        for number in range(200):
            step._denoising(6, torch.Generator().manual_seed(number))
    # 1200 pictures: 400 +- 16 of each, a quarter (100 +- 9) of those with captions by the template
    assert set(seen) == {
        *((0, text) for text in ("<rex> asleep", "a photo of <rex>")),
        *((2, text) for text in ("a drawing of <rex>", "a photo of <rex>")),
        (1, "a photo of <rex>"),
    }
    assert abs(seen[0, "a photo of <rex>"] - 100) < 40
    assert abs(seen[2, "a drawing of <rex>"] - 300) < 60


def test_a_caption_and_a_mask_change_what_is_learned_and_no_caption_is_kept(base, tmp_path):
    folder = tmp_path / "rex"
    folder.mkdir()
    picture().save(folder / "a.png")
    settings = {"steps": 2, "caption_dropout": 0.0, "method": "lora", "options": {"rank": 2}}

    def learned(name: str, **more) -> torch.Tensor:
        learn(base, tmp_path / name, {"rex": folder}, **settings, **more)
        ((_, tensors),) = Bank.open(tmp_path / name).kept()
        return torch.cat([value.flatten() for _, value in sorted(tensors.items())])

    plain = learned("plain")
    (folder / "a.txt").write_text("a zebra crossing in the fog")
    captioned = learned("captioned")
    half().save(folder / "a-mask.png")
    masked = learned("masked")
    assert not torch.equal(plain, captioned) and not torch.equal(captioned, masked)
    assert torch.equal(learned("neither", captions=False, masks="none"), plain)
    files = [path for path in (tmp_path / "captioned").rglob("*") if path.is_file()]
    assert files and not any(b"zebra" in path.read_bytes() for path in files)


def test_a_bucket_has_no_more_pixels_and_each_picture_goes_to_the_nearest_shape(tmp_path):
    sizes = buckets((64, 64), 8)
    assert (64, 64) in sizes and (80, 48) in sizes and (48, 80) in sizes
    assert all(w * h <= 64 * 64 and w % 8 == h % 8 == 0 and 0.5 <= w / h <= 2 for w, h in sizes)
    for name, size in {"a": (200, 100), "b": (100, 100), "c": (160, 90), "d": (20, 60)}.items():
        picture(size=size).save(tmp_path / f"{name}.png")
    groups = read_buckets(tmp_path, sizes=sizes)
    assert {read.size: [file.stem for file in read.files] for read in groups} == {
        (80, 48): ["a", "c"],
        (64, 64): ["b"],
    }
    assert any("d.png is too small (48x80 wanted)" in sentence for sentence in groups[0].notes)
    for name in "abc":
        (tmp_path / f"{name}.png").unlink()
    with pytest.raises(PerdureError, match="None of the 1 pictures is large enough"):
        read_buckets(tmp_path, sizes=sizes)


def test_a_batch_of_several_shapes_is_the_mean_over_its_pictures(base, monkeypatch):
    wide = Latents(mean=torch.ones(1, 4, 4, 8), std=torch.zeros(1, 4, 4, 8), size=(64, 32))
    tall = Latents(mean=2 * torch.ones(2, 4, 8, 4), std=torch.zeros(2, 4, 8, 4), size=(32, 64))
    seen = Counter()

    def count(step, x, prompts, shares, size, generator):
        assert len(x) == len(prompts) and x.shape[-2:] == (size[1] // 8, size[0] // 8)
        seen[size] += len(x)
        return x.mean()

    monkeypatch.setattr(loop.Step, "_loss", count)
    with base.session() as session:
        step = step_of(session, [wide, tall])
        losses = [
            float(step._denoising(6, torch.Generator().manual_seed(number)))
            for number in range(100)
        ]
    # 600 pictures: 200 +- 12 of the wide one, 400 of the tall ones
    assert abs(seen[64, 32] - 200) < 50 and seen[32, 64] == 600 - seen[64, 32]
    assert np.mean(losses) == pytest.approx((seen[64, 32] + 2 * seen[32, 64]) / 600)


def test_pictures_of_two_shapes_are_learned_whole_and_resumed_to_the_same_bits(base, tmp_path):
    folder = tmp_path / "rex"
    folder.mkdir()
    picture(0, (80, 40)).save(folder / "a.png")
    picture(1, (40, 64)).save(folder / "b.png")
    half((40, 64)).save(folder / "b-mask.png")
    (folder / "a.txt").write_text("asleep")
    settings = {"steps": 3, "fit": "buckets", "method": "lora", "options": {"rank": 2}}
    learn(base, tmp_path / "whole", {"rex": folder}, **settings)

    def cut(progress):
        if progress.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(base, tmp_path / "cut", {"rex": folder}, report=cut, checkpoint_every=1, **settings)
    resume(base, tmp_path / "cut")
    ((_, one),), ((_, other),) = (Bank.open(tmp_path / name).kept() for name in ("whole", "cut"))
    assert all(torch.equal(one[key], other[key]) for key in one)
