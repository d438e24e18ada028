"""Faces: which drawings count as the same person, and that the package's models are found."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perdure.measuring.faces import SAME, faces_installed, faces_matched, faces_of


def face(at: float) -> np.ndarray:
    row = np.zeros(128)
    row[0] = at
    return row


NONE = np.full(128, np.nan)


def test_a_face_matches_that_is_near_the_references_in_the_mean():
    references = np.stack([face(0.0), face(0.2), NONE])
    # mean distances: 0.1, 0.5 (to 0 and 0.2: 0.6 and 0.4), 0.9
    drawn = np.stack([face(0.1), face(0.6), face(1.0), NONE])
    assert SAME == 0.6
    assert faces_matched(drawn, references) == 0.5


def test_faces_are_not_scored_where_the_references_show_none():
    assert faces_matched(np.stack([face(0)]), np.stack([NONE, NONE])) is None
    assert faces_matched(np.stack([face(0)]), np.stack([face(0), NONE, NONE])) is None


@pytest.mark.skipif(not faces_installed(), reason="needs perdure[faces]")
def test_one_persons_pictures_match_and_a_picture_without_a_face_does_not():
    found = find_spec("skimage")
    if found is None or found.origin is None:
        pytest.skip("a portrait comes with scikit-image")
    portrait = Image.open(Path(found.origin).parent / "data" / "astronaut.png")
    others = [portrait.transpose(Image.Transpose.FLIP_LEFT_RIGHT), portrait.rotate(8)]
    blank = Image.new("RGB", (256, 256), "grey")
    found = faces_of([portrait, *others, blank])
    assert np.isnan(found[-1]).all() and not np.isnan(found[:-1]).any()
    assert faces_matched(found[1:], found[:1]) == pytest.approx(2 / 3)
