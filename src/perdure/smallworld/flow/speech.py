"""What captions smallworld-flow reads, and how they become token ids of the encoders' length."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from transformers import CLIPTokenizer

from perdure.smallworld import captions, identities
from perdure.smallworld.flow.names import name_of, name_words
from perdure.smallworld.pen import pick
from perdure.smallworld.train.vocabulary import CONTEXT, make_tokenizer
from perdure.smallworld.vocabulary import BACKGROUND_PHRASES, STYLES
from perdure.smallworld.world import Scene

__all__ = ["VARIANTS", "empty_ids", "ids_of", "said", "tokenizer"]

VARIANTS = ("full", "full", "short", "named")
"""Captions of a scene, in this order; ``named`` is a full one where nobody in it has a name."""
_TRIES = 20


@cache
def tokenizer() -> CLIPTokenizer:
    """The world's words and those of names, each one token."""
    return make_tokenizer(name_words())


@cache
def _vocabulary() -> dict[str, int]:
    return tokenizer().get_vocab()


def empty_ids() -> list[int]:
    """The token ids of no caption, for guidance."""
    return [tokenizer().bos_token_id] + [tokenizer().eos_token_id] * (CONTEXT - 1)


def _short(scene: Scene, rng: np.random.Generator) -> str:
    """ "a photo of a robot", at times with one adjective or the background."""
    subjects = []
    more = rng.random()
    for one in scene.identities:
        noun, adjectives, _ = one.coarse
        told = [str(pick(rng, adjectives))] if adjectives and more < 0.25 else []
        subjects.append(identities.phrase(noun, told, []))
    words = f"{STYLES[scene.context.style]} {' and '.join(subjects)}"
    if 0.25 <= more < 0.5:
        words += f" {BACKGROUND_PHRASES[scene.context.background]}"
    return words


def _named(scene: Scene, rng: np.random.Generator) -> str:
    names = [name_of(one) for one in scene.identities]
    if any(name is None for name in names):
        return scene.caption(rng)
    return captions.caption(scene.identities, scene.context, rng, names=[str(n) for n in names])


def ids_of(say: Callable[[], str], short: Callable[[], str]) -> tuple[list[int], int]:
    """Token ids (CONTEXT of them) of what ``say`` says, and how often it said too much.

    A caption that is longer than the encoders' positions is said anew, with other omissions, and
    never cut; after twenty that are too long ``short`` speaks. Raises ValueError where that is too
    long as well.
    """
    for tries in range(_TRIES + 1):
        text = say() if tries < _TRIES else short()
        words = captions.tokens(text)
        if len(words) <= CONTEXT - 2:
            ids = empty_ids()
            ids[1 : 1 + len(words)] = [_vocabulary()[f"{word}</w>"] for word in words]
            return ids, tries
    raise ValueError(f"caption: {text!r} has {len(words)} words; at most {CONTEXT - 2} fit")


def said(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """int16 (4, CONTEXT), the captions of ``VARIANTS``, and how many were too long at first."""
    says = {
        "full": lambda: scene.caption(rng),
        "short": lambda: _short(scene, rng),
        "named": lambda: _named(scene, rng),
    }
    rows, again = zip(*(ids_of(says[variant], says["short"]) for variant in VARIANTS), strict=True)
    return np.array(rows, np.int16), sum(count > 0 for count in again)
