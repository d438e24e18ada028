"""The small world: pictures and captions that are pure functions of a few integers.

An identity (domain, seed) is who is in the picture; a context is what a caption says about it; a
render seed is the chance in between (place, scale, tilt, gaze, light, scenery). Pictures are uint8
arrays of shape (64, 64, 3), RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import skia

from perdure.smallworld.captions import NOUNS, caption, prompt, words
from perdure.smallworld.identities import Identity, check_seed, generator, identity
from perdure.smallworld.objects import draw_object
from perdure.smallworld.pen import Pen, pick, spread
from perdure.smallworld.people import draw_person
from perdure.smallworld.pets import draw_pet
from perdure.smallworld.places import draw_place
from perdure.smallworld.scenery import draw_background
from perdure.smallworld.styles import apply_style
from perdure.smallworld.vocabulary import (
    ACCESSORIES,
    BACKGROUNDS,
    DOMAINS,
    EXPRESSIONS,
    SIZE,
    STYLES,
    Context,
    refuse,
)

__all__ = [
    "ACCESSORIES",
    "BACKGROUNDS",
    "DOMAINS",
    "EXPRESSIONS",
    "NOUNS",
    "SIZE",
    "SPLITS",
    "STYLES",
    "Context",
    "Identity",
    "Scene",
    "caption",
    "identity",
    "prompt",
    "references",
    "render",
    "sample",
    "sample_context",
    "words",
]

SPLITS: dict[str, range] = {
    "training": range(0, 1_000_000),
    "tuning": range(1_000_000, 1_100_000),
    "benchmark": range(2_000_000, 2_100_000),
    "held-out": range(3_000_000, 3_100_000),
}

_DRAW = {"person": draw_person, "pet": draw_pet, "place": draw_place, "object": draw_object}
# x, y and scale of a subject that is alone, and y and scale of one of two
_ALONE = {
    "person": (32.0, 31.0, 1.0),
    "pet": (32.0, 29.0, 1.0),
    "place": (32.0, 58.0, 1.0),
    "object": (32.0, 39.0, 1.0),
}
_BESIDE = {
    "person": (32.0, 0.78),
    "pet": (38.0, 0.72),
    "place": (56.0, 0.66),
    "object": (46.0, 0.62),
}
_MIX = {"person": 0.5, "pet": 0.2, "place": 0.15, "object": 0.15}


def render(
    identities: Identity | Sequence[Identity],
    context: Context,
    render_seed: int,
    *,
    spots: Sequence[tuple[float, float, float]] | None = None,
) -> np.ndarray:
    """Draw one identity, or two (left, right): uint8 RGB of shape (64, 64, 3).

    ``spots`` puts any number of them elsewhere: of each the centre (x, y) of the square that it
    would fill alone, in pixels, and that square's side as a share of the picture's. The first
    identity wears the accessory; every person has the expression. Raises ValueError for no
    identities, for more than two without spots, an accessory that the first one cannot wear, an
    expression without a person, or a negative seed.
    """
    who = [identities] if isinstance(identities, Identity) else list(identities)
    if not 1 <= len(who) <= 2 and (spots is None or not who):
        raise ValueError(f"identities: {len(who)} given; give one or two")
    if spots is not None and len(spots) != len(who):
        raise ValueError(f"spots: {len(spots)} given for {len(who)} identities; give as many")
    if context.accessory not in ACCESSORIES[who[0].domain]:
        raise refuse("accessory", context.accessory, ACCESSORIES[who[0].domain])
    if context.expression != "neutral" and all(one.domain != "person" for one in who):
        raise ValueError(
            f"expression: {context.expression!r} needs a person; use 'neutral' without one"
        )
    check_seed("render_seed", render_seed)
    rng = generator(2, render_seed)
    pixels = np.zeros((SIZE, SIZE, 4), np.uint8)
    surface = skia.Surface(pixels, colorType=skia.kRGBA_8888_ColorType)
    pen = Pen(surface.getCanvas())
    draw_background(pen, context.background, rng)
    for place, one in enumerate(who):
        x, y, scale = _ALONE[one.domain]
        if len(who) == 2 and spots is None:
            x, (y, scale) = (17.0, 47.0)[place], _BESIDE[one.domain]
        if spots is not None:
            across, down, share = spots[place]
            x, y, scale = across, down + (_ALONE[one.domain][1] - SIZE / 2) * share, share
        jitter = rng.random(4)
        x += (jitter[0] - 0.5) * 6 * scale
        y += (jitter[1] - 0.5) * 4 * scale
        scale *= 0.93 + 0.14 * jitter[2]
        tilt = (jitter[3] - 0.5) * (6 if one.domain == "place" else 16)
        accessory = context.accessory if place == 0 else "none"
        with pen.placed(float(x), float(y), float(scale), float(tilt)):
            _DRAW[one.domain](pen, one.parameters, accessory, context.expression, rng)
    tint = 0.94 + 0.1 * rng.random(3) * np.array([1.0, 0.9, 1.0])
    image = np.minimum(pixels[..., :3] * tint.astype(np.float32) + 0.5, 255).astype(np.uint8)
    return apply_style(image, context.style)


def sample_context(domain: str, rng: np.random.Generator, plain: float = 0.5) -> Context:
    """A random context for a first subject of ``domain``.

    ``plain`` is the probability of no accessory and, drawn anew, of a neutral expression; another
    style than photo has the probability ``0.6 (1 - plain)``. Raises ValueError for an unknown
    domain.
    """
    if domain not in DOMAINS:
        raise refuse("domain", domain, DOMAINS)
    draws = rng.random(3)
    return Context(
        background=str(pick(rng, BACKGROUNDS)),
        accessory="none" if draws[0] < plain else str(pick(rng, ACCESSORIES[domain][1:])),
        expression="neutral"
        if draws[1] < plain or domain != "person"
        else str(pick(rng, EXPRESSIONS[1:])),
        style="photo" if draws[2] < 0.4 + 0.6 * plain else str(pick(rng, list(STYLES)[1:])),
    )


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One picture to be: who, in which context, with which chance."""

    identities: tuple[Identity, ...]
    context: Context
    render_seed: int

    def render(self) -> np.ndarray:
        """The picture: uint8 (64, 64, 3)."""
        return render(self.identities, self.context, self.render_seed)

    def caption(self, rng: np.random.Generator) -> str:
        """A coarse caption with random omissions."""
        return caption(self.identities, self.context, rng)


def _sample_identity(rng: np.random.Generator, split: str) -> Identity:
    domain = DOMAINS[int(np.searchsorted(np.cumsum(list(_MIX.values())), rng.random() * 0.999999))]
    return Identity(domain, int(rng.integers(SPLITS[split].start, SPLITS[split].stop)))


def sample(rng: np.random.Generator, split: str = "training", two: float = 0.15) -> Scene:
    """A random scene of ``split``; with probability ``two`` it has two subjects.

    About half the subjects are people. Raises ValueError for an unknown split.
    """
    if split not in SPLITS:
        raise refuse("split", split, list(SPLITS))
    who = [_sample_identity(rng, split)]
    if rng.random() < two:
        who.append(_sample_identity(rng, split))
    context = sample_context(who[0].domain, rng)
    if who[0].domain != "person" and who[-1].domain == "person" and rng.random() < 0.5:
        context = Context(
            background=context.background,
            accessory=context.accessory,
            expression=str(pick(rng, EXPRESSIONS[1:])),
            style=context.style,
        )
    return Scene(identities=tuple(who), context=context, render_seed=int(rng.integers(0, 2**62)))


def references(
    domain: str, identity_seed: int, count: int, seed: int = 0
) -> list[tuple[np.ndarray, Context]]:
    """``count`` pictures of one identity, such as its owner would have, each with its context.

    Photo style, backgrounds that differ while there are enough, an accessory in about one of six,
    and for a person every expression in turn. Raises ValueError like ``Identity``, and for a count
    below 1.
    """
    if count < 1:
        raise ValueError(f"count: {count} is below 1; ask for at least one picture")
    check_seed("seed", seed)
    who = identity(domain, identity_seed)
    rng = generator(3, DOMAINS.index(domain), identity_seed, seed)
    scenes = [BACKGROUNDS[i] for i in rng.permutation(len(BACKGROUNDS))]
    faces = [EXPRESSIONS[i] for i in rng.permutation(len(EXPRESSIONS))]
    pictures = []
    for i in range(count):
        worn = str(pick(rng, ACCESSORIES[domain][1:])) if spread(rng, 0, 1) < 1 / 6 else "none"
        context = Context(
            background=scenes[i % len(scenes)],
            accessory=worn,
            expression=faces[i % len(faces)] if domain == "person" else "neutral",
        )
        pictures.append((render(who, context, int(rng.integers(0, 2**62))), context))
    return pictures
