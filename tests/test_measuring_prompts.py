"""Prompts that are held out are held out, and what is scored in them."""

import itertools

import numpy as np
import pytest
from PIL import Image, ImageFilter

from perdure.hosts.diffusion.session import ORDINARY as CALIBRATING
from perdure.learning.composition import COMPANY as TAUGHT_COMPANY
from perdure.learning.moments import CAPTIONS, SUBJECTS, TEMPLATES
from perdure.learning.settings import LearnSettings
from perdure.measuring.prompts import COMPANY, CONTEXTS, HELD_OUT, ORDINARY, PLAIN
from perdure.measuring.sharpness import sharpness, sharpness_of
from perdure.smallworld import captions


def bare(text):
    """Without punctuation, which does not make another sentence."""
    return " ".join(text.replace(",", " ").split())


def test_no_method_learns_from_or_protects_a_held_out_prompt():
    taught = [PLAIN, *CONTEXTS, *LearnSettings.templates, *TEMPLATES, *ORDINARY, *CALIBRATING]
    taught += CAPTIONS
    for text, who in itertools.product(TAUGHT_COMPANY, SUBJECTS):
        taught += [text.format("{}", who), text.format(who, "{}")]
    for told, who in itertools.product(HELD_OUT, SUBJECTS):
        assert bare(told) not in {bare(text) for text in taught}
        assert bare(told.format(who)) not in {bare(text) for text in taught}


def test_there_are_twenty_and_more_each_once_in_words_of_the_drawn_world():
    assert len(HELD_OUT) == len(set(HELD_OUT)) >= 20
    assert set(COMPANY) < set(HELD_OUT)
    assert all(text.count("{}") == 1 for text in HELD_OUT)
    known = set(captions.words())
    for text in HELD_OUT:
        assert set(captions.tokens(text.format("this"))) <= known, text


def test_the_sharpness_of_a_chequered_board_is_that_of_its_laplacian():
    board = np.indices((8, 8)).sum(0) % 2 * 255
    picture = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    # each inner point differs from its four neighbours by 255: +-4 * 255, as often up as down
    assert sharpness_of(picture) == pytest.approx((4 * 255) ** 2)


def test_blur_takes_sharpness_noise_adds_to_it_and_flat_references_have_none():
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)) for _ in "abc"]
    soft = [one.filter(ImageFilter.GaussianBlur(1)) for one in pictures]
    assert sharpness(pictures, pictures) == 1
    assert sharpness(soft, pictures) < 0.2
    assert sharpness(pictures, soft) > 5
    assert np.isnan(sharpness(pictures, [Image.new("RGB", (32, 32))]))
