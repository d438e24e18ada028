"""The small world is a pure function of its seeds, and its captions stay inside its vocabulary."""

import hashlib
from itertools import combinations

import numpy as np
import pytest

from perdure.smallworld import world
from perdure.smallworld.captions import tokens


def digest(picture: np.ndarray) -> str:
    assert picture.shape == (world.SIZE, world.SIZE, 3) and picture.dtype == np.uint8
    return hashlib.sha256(picture.tobytes()).hexdigest()


def contexts(domain: str) -> list[world.Context]:
    """Every word of the vocabulary that fits ``domain``, once or more."""
    found = [world.Context(background=name) for name in world.BACKGROUNDS]
    found += [world.Context(background="room", accessory=a) for a in world.ACCESSORIES[domain]]
    found += [world.Context(background="snow", style=style) for style in world.STYLES]
    if domain == "person":
        found += [world.Context(background="sea", expression=e) for e in world.EXPRESSIONS]
    return found


@pytest.mark.parametrize("domain", world.DOMAINS)
def test_identical_inputs_give_identical_bytes(domain):
    for context in contexts(domain):
        first = world.render(world.identity(domain, 3), context, 11)
        assert digest(first) == digest(world.render(world.identity(domain, 3), context, 11))


@pytest.mark.parametrize("domain", world.DOMAINS)
def test_every_word_of_a_context_changes_the_picture(domain):
    who = world.identity(domain, 5)
    plain = [world.Context(background=b) for b in ("room", "snow", "sea")]
    seen = {digest(world.render(who, context, 4)) for context in [*plain, *contexts(domain)]}
    assert len(seen) == len(set(contexts(domain)))


@pytest.mark.parametrize("domain", world.DOMAINS)
def test_different_identities_differ_clearly_and_render_seeds_differ(domain):
    context = world.Context(background="meadow")
    pictures = [world.render(world.identity(domain, seed), context, 1) for seed in range(12)]
    for one, other in combinations(pictures, 2):
        assert np.abs(one.astype(float) - other).mean() > 2.0
    who = world.identity(domain, 0)
    assert len({digest(world.render(who, context, seed)) for seed in range(8)}) == 8


def test_an_identity_has_many_parameters_and_depends_on_domain_and_seed_alone():
    for domain in world.DOMAINS:
        one = world.identity(domain, 7)
        assert one.parameters == world.identity(domain, 7).parameters
        assert one.parameters != world.identity(domain, 8).parameters
        assert len(one.parameters) >= 15
        assert one.description.startswith(("a ", "an "))


def test_a_picture_does_not_change_with_what_was_drawn_before():
    context = world.Context(background="city", accessory="hat")
    before = digest(world.render(world.identity("pet", 1), context, 1))
    world.render(world.identity("person", 9), world.Context(background="space"), 2)
    assert digest(world.render(world.identity("pet", 1), context, 1)) == before


def test_splits_do_not_overlap():
    for one, other in combinations(world.SPLITS.values(), 2):
        assert max(one.start, other.start) >= min(one.stop, other.stop)


@pytest.mark.parametrize("split", world.SPLITS)
def test_a_sampled_scene_keeps_to_its_split_and_repeats(split):
    scenes = [world.sample(np.random.default_rng(5), split=split, two=0.5) for _ in range(2)]
    assert scenes[0] == scenes[1]
    rng = np.random.default_rng(6)
    for _ in range(50):
        scene = world.sample(rng, split=split, two=0.5)
        assert all(who.seed in world.SPLITS[split] for who in scene.identities)
        digest(scene.render())


def test_captions_never_leave_the_vocabulary_and_are_lower_case():
    known = set(world.words())
    rng = np.random.default_rng(0)
    for _ in range(3000):
        scene = world.sample(rng, two=0.3)
        texts = [scene.caption(rng), world.caption(scene.identities, scene.context, rng, False)]
        texts += [who.description for who in scene.identities]
        texts += [world.prompt(scene.identities[0].noun, scene.context)]
        for text in texts:
            assert text == text.lower()
            assert set(tokens(text)) <= known, text


def test_a_caption_varies_and_repeats_with_its_generator():
    who, context = world.identity("person", 2), world.Context(background="beach")
    said = [world.caption(who, context, np.random.default_rng(i % 20)) for i in range(40)]
    assert said[:20] == said[20:] and len(set(said)) > 5


def test_a_prompt_holds_every_word_of_its_context():
    context = world.Context(background="beach", accessory="hat", expression="smiling")
    assert world.prompt("<a>", context) == "a photo of <a> wearing a hat, smiling, at the beach"
    context = world.Context(background="space", accessory="flags", style="night vision")
    assert world.prompt("a tower", context) == (
        "a night vision picture of a tower with flags, in space"
    )


def test_references_are_plain_photographs_of_one_identity():
    pictures = world.references("person", 2_000_003, 12)
    again = world.references("person", 2_000_003, 12)
    assert [digest(p) for p, _ in pictures] == [digest(p) for p, _ in again]
    assert len({digest(p) for p, _ in pictures}) == 12
    assert {c.style for _, c in pictures} == {"photo"}
    assert {c.background for _, c in pictures} == set(world.BACKGROUNDS)
    assert {c.expression for _, c in pictures} == set(world.EXPRESSIONS)
    other = world.references("person", 2_000_003, 12, seed=1)
    assert {digest(p) for p, _ in other}.isdisjoint(digest(p) for p, _ in pictures)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: world.identity("plant", 1), "domain: 'plant'"),
        (lambda: world.identity("pet", -1), "seed: -1"),
        (lambda: world.Context(background="moon"), "background: 'moon'"),
        (lambda: world.Context(background="sea", accessory="sword"), "accessory: 'sword'"),
        (lambda: world.Context(background="sea", expression="angry"), "expression: 'angry'"),
        (lambda: world.Context(background="sea", style="cubist"), "style: 'cubist'"),
        (lambda: world.sample(np.random.default_rng(0), split="test"), "split: 'test'"),
        (lambda: world.sample_context("plant", np.random.default_rng(0)), "domain: 'plant'"),
        (lambda: world.references("pet", 1, 0), "count: 0"),
        (lambda: world.render([], world.Context(background="sea"), 0), "identities: 0"),
        (
            lambda: world.render(
                world.identity("place", 1), world.Context(background="sea", accessory="hat"), 0
            ),
            "accessory: 'hat'",
        ),
        (
            lambda: world.render(
                world.identity("pet", 1), world.Context(background="sea", expression="sad"), 0
            ),
            "expression: 'sad'",
        ),
        (
            lambda: world.render(world.identity("pet", 1), world.Context(background="sea"), -2),
            "render_seed: -2",
        ),
    ],
)
def test_a_wrong_word_is_refused_by_field_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_subjects_stand_where_spots_say() -> None:
    one, plain = (
        world.identity("person", 7),
        world.Context(background="snow", accessory="none", expression="neutral", style="photo"),
    )
    left, right = (world.render(one, plain, 5, spots=[(x, 32, 0.4)]).astype(int) for x in (16, 48))
    changed = (left != right).any(axis=(0, 2))
    assert changed[8:24].any() and changed[40:56].any() and not changed[31:33].any()
    three = [world.identity("person", k) for k in (7, 8, 9)]
    assert world.render(three, plain, 5, spots=[(x, 32, 0.4) for x in (11, 32, 53)]).shape == (
        64,
        64,
        3,
    )
    with pytest.raises(ValueError, match="spots: 1 given for 3 identities"):
        world.render(three, plain, 5, spots=[(32, 32, 0.4)])
    with pytest.raises(ValueError, match="3 given; give one or two"):
        world.render(three, plain, 5)
