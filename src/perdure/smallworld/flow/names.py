"""Names: some thousands of training identities are known by made-up words, as a large model's are.

A large model draws who is known by name because captions told it so. Here the first identities of
each kind have a name of one or two words, which mean nothing else; the text encoders learn them
with every other word. No other identity has a name.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from perdure.smallworld import captions
from perdure.smallworld.identities import Identity
from perdure.smallworld.vocabulary import DOMAINS

__all__ = ["KNOWN", "name_of", "name_words"]

KNOWN = 1024
"""Identities of each kind that have a name: the seeds below this."""
_SINGLE = 512
"""Names of one word, which is nobody else's; the others join two of ``2 * _SHARED`` words."""
_SHARED = 128


@cache
def name_words() -> tuple[str, ...]:
    """The made-up words, two syllables each; none is a word of the world."""
    syllables = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]
    made = [first + second for first in syllables for second in syllables]
    made = sorted(set(made) - set(captions.words()))
    order = np.random.default_rng(11).permutation(len(made))
    return tuple(made[k] for k in order[: _SINGLE + 2 * _SHARED])


@cache
def _pairs() -> np.ndarray:
    """Which two shared words each name of two words joins; no two names join the same."""
    return np.random.default_rng(12).permutation(_SHARED * _SHARED)


def name_of(one: Identity) -> str | None:
    """The name of ``one``, or None: "zuke", or "mira toba" for seven in eight.

    >>> name_of(Identity("person", 5)) == name_of(Identity("person", 2_000_000))
    False
    """
    if one.seed >= KNOWN:
        return None
    number = DOMAINS.index(one.domain) * KNOWN + one.seed
    words = name_words()
    every = len(DOMAINS) * KNOWN // _SINGLE
    if number % every == 0:
        return words[number // every]
    first, second = divmod(int(_pairs()[number]), _SHARED)
    return f"{words[_SINGLE + first]} {words[_SINGLE + _SHARED + second]}"
