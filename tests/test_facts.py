"""Pictures know how they were drawn, and are drawn again to the same bits."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import perdure
from perdure.drawing.again import draw_like
from perdure.drawing.facts import Facts, facts_of, read_facts, save_picture, with_facts
from perdure.errors import PerdureError
from perdure.sheet import contact_sheet

PROMPT = "a photo of <ada>, at night"


@pytest.fixture(scope="module")
def base(tiny: Path) -> perdure.Base:
    return perdure.Base.open(tiny, device="cpu")


@pytest.fixture(scope="module")
def bank(base: perdure.Base, drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("banks") / "bank"
    perdure.learn(base, path, {"ada": drawings / "ada"}, steps=1)
    return path


def pixels(picture: Image.Image) -> bytes:
    return picture.convert("RGB").tobytes()


def test_a_png_says_how_it_was_drawn_and_is_drawn_again_to_the_same_bits(
    base: perdure.Base, bank: Path, tmp_path: Path
) -> None:
    drawn = perdure.draw(
        base, bank, ["a dog", PROMPT], count=2, seed=7, negative="a hat: red", guidance=2.5
    )
    path = tmp_path / "picture.png"
    perdure.save_picture(drawn[3], path, scale=2)
    facts = perdure.read_facts(path)
    assert (facts.prompt, facts.seed, facts.negative) == (PROMPT, 8, "a hat: red")
    assert (facts.size, facts.scale, facts.steps, facts.guidance) == ((32, 32), 2, 2, 2.5)
    assert (facts.base_hash, facts.method, facts.tasks) == (base.identity.hash, "gated", 1)
    with Image.open(path) as picture:
        assert picture.size == (64, 64)
        assert picture.info["parameters"].splitlines() == [
            PROMPT,
            "Negative prompt: a hat: red",
            f"Steps: 2, Sampler: DDIMScheduler, CFG scale: 2.5, Seed: 8, Size: 32x32, Model hash: "
            f"{base.identity.hash[:10]}, Model: tiny, Bank: gated {facts.bank[:10]}, "
            f"Version: perdure {facts.version}",
        ]
    (again,) = draw_like(base, bank, path)
    assert pixels(again) == pixels(drawn[3])
    (other,) = draw_like(base, bank, path, seed=7)
    assert pixels(other) == pixels(drawn[2])
    (dog,) = draw_like(base, bank, facts, "a dog")
    assert pixels(dog) == pixels(drawn[1])


def test_no_path_is_in_a_picture(base: perdure.Base, bank: Path, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    init = tmp_path / "init.png"
    Image.new("RGB", (40, 32), "red").save(init)
    save_picture(perdure.draw(base, bank, PROMPT, init=init, strength=0.5)[0], path)
    assert os.fsencode(tmp_path.parts[1]) + b"/" not in path.read_bytes()
    for part in (str(bank), str(tmp_path), base.encoder):
        assert part.encode() not in path.read_bytes()


def test_a_bank_that_learned_on_draws_an_old_picture_as_it_was(
    base: perdure.Base, drawings: Path, tmp_path: Path
) -> None:
    bank = tmp_path / "bank"
    perdure.learn(base, bank, {"ada": drawings / "ada"}, steps=1, method="lora")
    (before,) = perdure.draw(base, bank, PROMPT)
    perdure.learn(base, bank, {"bo": drawings / "bo"}, steps=1, lr=0.1)
    assert pixels(perdure.draw(base, bank, PROMPT)[0]) != pixels(before)
    facts = facts_of(before)
    assert facts is not None
    assert pixels(draw_like(base, bank, facts)[0]) == pixels(before)
    (after,) = perdure.draw(base, bank, PROMPT)
    perdure.remove(bank, "bo")
    known = facts_of(after)
    assert known is not None
    with pytest.raises(PerdureError, match="another bank than .*, which has 1 tasks, not 2"):
        draw_like(base, bank, known)


def test_another_base_or_bank_is_refused_by_name(
    base: perdure.Base, bank: Path, tiny_v: Path, drawings: Path, tmp_path: Path
) -> None:
    facts = facts_of(perdure.draw(base, bank, PROMPT)[0])
    assert facts is not None
    other = perdure.Base.open(tiny_v, device="cpu")
    with pytest.raises(PerdureError, match="on the base tiny .* in use is tiny-v .* --base"):
        draw_like(other, bank, facts)
    perdure.learn(base, tmp_path / "bank", {"ada": drawings / "ada"}, steps=1, seed=1)
    with pytest.raises(PerdureError, match="another bank than .*has other concepts.* --bank"):
        draw_like(base, tmp_path / "bank", facts)


def test_a_picture_that_rounding_may_change_is_drawn_again_with_a_note(
    base: perdure.Base, bank: Path
) -> None:
    notes: list[str] = []
    drawn = perdure.draw(base, bank, PROMPT, count=2, batch_size=2)
    facts = facts_of(drawn[0])
    assert facts is not None and facts.at_once == 2
    draw_like(base, bank, facts, note=notes.append)
    assert notes == ["It was drawn in one pass with 1 more: rounding may differ."]
    elsewhere = Facts(**{**facts.to_json(), "at_once": 1, "environment": "torch 1.0"})
    draw_like(base, bank, elsewhere, note=notes.append)
    assert notes[1].startswith("It was drawn with torch 1.0, float32, and now with torch ")
    draw_like(base, bank, elsewhere, note=notes.append, seed=3)  # another one was asked for
    assert len(notes) == 2


def test_the_picture_that_another_began_with_is_needed_again_and_known(
    base: perdure.Base, bank: Path
) -> None:
    init, other = Image.new("RGB", (32, 32), "red"), Image.new("RGB", (32, 32), "blue")
    (drawn,) = perdure.draw(base, bank, PROMPT, init=init, strength=0.5, seed=3)
    facts = facts_of(drawn)
    assert facts is not None and facts.strength == 0.5
    with pytest.raises(PerdureError, match="--init"):
        draw_like(base, bank, facts)
    notes: list[str] = []
    assert pixels(draw_like(base, bank, facts, init=init, note=notes.append)[0]) == pixels(drawn)
    assert notes == []
    changed = draw_like(base, bank, facts, init=other, note=notes.append)[0]
    assert pixels(changed) != pixels(drawn) and "another than" in notes[0]


def test_a_picture_is_the_same_whatever_is_drawn_beside_it(base: perdure.Base, bank: Path) -> None:
    together = perdure.draw(base, bank, ["a dog", PROMPT, "a house in the snow"], count=2)
    (alone,) = perdure.draw(base, bank, PROMPT, seed=1)
    assert pixels(together[3]) == pixels(alone)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "does not say how it was drawn"),
        ("{", "cannot be read"),
        ("[]", "another version"),
        ('{"format": 2}', "another version"),
        ('{"format": 1, "prompt": "a"}', "is missing"),
        ('{"format": 1, "prompt": "a", "seed": -1, "base_hash": "a", "bank": "b"}', "cannot be"),
    ],
)
def test_facts_that_are_missing_or_broken_are_one_sentence(
    tmp_path: Path, text: str | None, why: str
) -> None:
    path, texts = tmp_path / "picture.png", PngInfo()
    if text is not None:
        texts.add_text("perdure", text)
    Image.new("RGB", (4, 4)).save(path, pnginfo=texts)
    with pytest.raises(PerdureError, match=f"picture.png.*{why}"):
        read_facts(path)


def test_what_is_no_png_is_one_sentence_and_nothing_is_overwritten(tmp_path: Path) -> None:
    with pytest.raises(PerdureError, match="There is no picture .*nowhere.png"):
        read_facts(tmp_path / "nowhere.png")
    with pytest.raises(PerdureError, match="There is no picture"):
        read_facts(tmp_path)
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    with pytest.raises(PerdureError, match="no PNG that can be read"):
        read_facts(path)
    with pytest.raises(PerdureError, match="there already"):
        save_picture(Image.new("RGB", (4, 4)), path)
    assert path.read_bytes().endswith(b"cut short")


def test_a_sheet_has_a_row_a_label_as_high_as_its_lines() -> None:
    red, blue = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (40, 30), "blue")
    sheet = contact_sheet([red, red, blue, blue], ["a", "a label of several words here"], scale=2)
    assert sheet.width == 160
    shown = np.asarray(sheet)
    rows = [y for y in range(sheet.height) if tuple(shown[y, 80]) in ((255, 0, 0), (0, 0, 255))]
    assert len(rows) == 2 * 60  # both rows of pictures, whole
    first = rows[0]
    assert sheet.height - 120 - first > first  # the second label has more lines
    assert (shown[:first] < 128).any()  # letters


def test_prompts_of_any_script_are_written_and_read(
    base: perdure.Base, bank: Path, tmp_path: Path
) -> None:
    for k, prompt in enumerate(("a dog at \u591c", "a dog \udcff")):  # the second from a bad argv
        facts = facts_of(perdure.draw(base, bank, "a dog")[0])
        assert facts is not None
        picture = with_facts(Image.new("RGB", (4, 4)), replace(facts, prompt=prompt))
        save_picture(picture, tmp_path / f"{k}.png")
        assert read_facts(tmp_path / f"{k}.png").prompt == prompt
    with Image.open(tmp_path / "0.png") as shown:
        assert shown.info["parameters"].startswith("a dog at \u591c\nSteps")
