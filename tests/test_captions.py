"""Captions beside pictures: where the concept stands in them, and what can be wrong with them."""

import pytest

from perdure.errors import PerdureError
from perdure.learning.captions import (
    MAX_WORDS,
    caption_of,
    check_captions,
    named_throughout,
    read_captions,
)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{} in the snow", "{} in the snow"),
        ("[trigger], asleep\non  a sofa", "{}, asleep on a sofa"),
        ("a drawing of <rex>", "a drawing of {}"),
        ("in the snow", "a photo of {}, in the snow"),
        ("<bo> and <rex>; <rex> runs", "bo and {}; it runs"),
        ("{red} {} {0}", "red {} 0"),
        ("{a} hat", "a photo of {}, a hat"),
    ],
)
def test_a_caption_speaks_of_the_concept_once(text, wanted):
    told = caption_of(text, "rex")
    assert told == wanted
    assert told.format("<rex>").count("<rex>") == 1


def test_a_caption_without_a_place_follows_the_template():
    assert caption_of("a cat", "ink", "a drawing by {}") == "a drawing by {}, a cat"


def pictures(folder, *names):
    for name in names:
        (folder / name).write_bytes(b"a picture")
    return [folder / name for name in names]


def test_captions_are_read_by_the_pictures_names(tmp_path):
    files = pictures(tmp_path, "a.jpg", "b.PNG", "c.webp")
    (tmp_path / "a.txt").write_text("\ufeff{} asleep\n", encoding="utf-8")
    (tmp_path / "c.txt").write_text("auf dem Sofa, müde")
    assert read_captions(files, "rex") == ("{} asleep", None, "a photo of {}, auf dem Sofa, müde")
    # of a picture that is there and was left out it may stay
    assert read_captions(files[:2], "rex") == ("{} asleep", None)


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.txt", b"  \n", "holds no caption"),
        ("a.txt", b"a\0b", "holds no caption"),
        ("a.txt", b"\xff\xfe\x00", "no text in UTF-8"),
        ("a.txt", b"word " * (MAX_WORDS + 1), "more than 400 words"),
    ],
)
def test_a_caption_that_cannot_be_meant_is_one_sentence(tmp_path, name, content, word):
    files = pictures(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PerdureError, match=word) as raised:
        read_captions(files, "rex")
    assert "\n" not in str(raised.value)


def test_a_caption_without_its_picture_is_named(tmp_path):
    pictures(tmp_path, "a.jpg", "b.gif")
    for name in ("a.txt", "b.txt"):  # a picture that is not read has its caption, too
        (tmp_path / name).write_text("asleep")
    check_captions(tmp_path)
    (tmp_path / "z.txt").write_text("asleep")
    with pytest.raises(PerdureError, match="z.txt has no picture of that name"):
        check_captions(tmp_path)


def test_one_caption_of_two_pictures_is_refused(tmp_path):
    files = pictures(tmp_path, "a.jpg", "a.png")
    assert read_captions(files, "rex") == (None, None)
    (tmp_path / "a.txt").write_text("asleep")
    with pytest.raises(PerdureError, match="of a.jpg or of a.png"):
        read_captions(files, "rex")


def test_words_that_all_captions_name_are_told():
    captions = ["{} with curly fur, asleep", "curly fur: {} at night", "a photo of {}, curly fur"]
    assert named_throughout(captions) == ("curly", "fur")
    assert named_throughout([*captions, None]) == ()
    assert named_throughout(captions[:2]) == ()
    assert named_throughout(["a photo of {}"] * 3) == ()
