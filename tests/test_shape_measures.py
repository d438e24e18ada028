"""Measures that can't be flattered: a discriminator, and what block-shuffled pictures keep."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch.nn.functional import normalize

from perdure.measuring.discriminator import discriminator_auc
from perdure.measuring.features import MetricEncoder
from perdure.measuring.shape import shuffled_in_blocks, shuffled_reach, spoiled_reach
from perdure.smallworld.failures import FAILURES
from perdure.smallworld.sees import seen
from perdure.smallworld.world import SPLITS, references


@pytest.fixture(scope="module")
def people():
    return np.stack(
        [[p for p, _ in references("person", k, 4)] for k in range(3_000_000, 3_000_006)]
    )


def test_shuffled_blocks_keep_their_pixels_and_lose_their_order(people):
    whole = people[0]
    mixed = shuffled_in_blocks(whole, 8, np.random.default_rng(0))
    assert not np.array_equal(mixed, whole)
    flat, again = (np.sort(x.reshape(len(whole), -1, 3), axis=1) for x in (whole, mixed))
    assert np.array_equal(flat, again)
    assert np.array_equal(shuffled_in_blocks(whole, 1, np.random.default_rng(0)), whole)


def test_mean_colours_keep_all_of_an_identity_and_a_feature_of_neighbours_loses_it():
    rng = np.random.default_rng(0)
    colour, texture = rng.uniform(50, 200, (6, 1, 1, 1, 3)), rng.normal(0, 20, (6, 1, 32, 32, 3))
    patterns = colour + texture + rng.normal(0, 5, (6, 4, 32, 32, 3))
    patterns = np.clip(patterns, 0, 255).astype(np.uint8)

    def colours(pictures):
        return pictures.float().mean((1, 2)) - 128

    def edges(pictures):
        grey = pictures.float().mean(-1)
        return (grey[:, :, 1:] - grey[:, :, :-1]).flatten(1)

    assert shuffled_reach(colours, patterns, 16, rng=rng) == pytest.approx(1.0, abs=1e-3)
    assert shuffled_reach(edges, patterns, 16, rng=rng) < 0.2
    with pytest.raises(ValueError, match="two identities"):
        shuffled_reach(colours, patterns[:1], 8, rng=rng)


def test_a_discriminator_finds_blur_and_does_not_find_what_is_not_there():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (200, 16, 16, 3), dtype=np.uint8)
    more = torch.from_numpy(rng.integers(0, 256, (200, 16, 16, 3), dtype=np.uint8))
    smooth = torch.from_numpy(((noise.astype(int) + np.roll(noise, 1, 1)) // 2).astype(np.uint8))
    assert discriminator_auc(smooth, more) > 0.95
    assert abs(discriminator_auc(torch.from_numpy(noise), more) - 0.5) < 0.12
    with pytest.raises(ValueError, match="as many of both"):
        discriminator_auc(more[:8], more[:9])


@pytest.mark.parametrize("way", FAILURES)
def test_a_spoiled_picture_is_another_one_of_the_same_kind(way, people):
    picture = people[0, 0]
    spoilt = FAILURES[way](picture, np.random.default_rng(1))
    assert spoilt.shape == picture.shape and spoilt.dtype == np.uint8
    assert np.abs(spoilt.astype(int) - picture).mean() > 4
    assert np.array_equal(spoilt, FAILURES[way](picture, np.random.default_rng(1)))


@pytest.mark.parametrize("domain", ["person", "object"])
def test_for_the_second_judge_what_fails_is_nobody_and_what_does_not_is_somebody(domain):
    """The bar: blocks of 8 keep less than half of an identity, blocks of 16 and heaps a third."""
    judge = MetricEncoder.open("smallworld-eyes")
    found = seen(judge.identities, domain, identities=4)
    assert found["blocks of 8"] < 1 / 2
    assert max(found["blocks of 16"], found["heap"]) < 1 / 3
    first = SPLITS["benchmark"].start
    pictures = [p for k in range(6) for p, _ in references(domain, first + k, 4)]
    who = judge.identities(torch.from_numpy(np.stack(pictures)))
    centres = normalize(who.view(6, 4, -1).sum(1)[:, None] - who.view(6, 4, -1), dim=-1)
    whole = normalize(who.view(6, 4, -1).sum(1), dim=-1)
    for k in range(6):
        for own, centre in zip(who.view(6, 4, -1)[k], centres[k], strict=True):
            others = torch.cat([whole[:k], whole[k + 1 :]])
            assert own @ centre > (others @ own).max()
    mild = spoiled_reach(judge.identities, np.stack(pictures).reshape(6, 4, 64, 64, 3), softened)
    assert mild > 0.9


def softened(pictures):
    """A little out of focus, as a good drawing may be."""
    filters = ImageFilter.GaussianBlur(0.5)
    return np.stack([np.asarray(Image.fromarray(p).filter(filters)) for p in pictures])
