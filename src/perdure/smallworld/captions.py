"""Words for pictures: coarse captions for training, full prompts for evaluation, the vocabulary."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from perdure.smallworld import hair, objects, people, pets, places
from perdure.smallworld.identities import Identity, phrase
from perdure.smallworld.pen import pick
from perdure.smallworld.vocabulary import (
    ACCESSORY_NOUNS,
    BACKGROUND_PHRASES,
    COLOURS,
    EXPRESSIONS,
    STYLES,
    Context,
)

NOUNS = {"person": "person", "pet": "pet", "place": "building", "object": "object"}
_NOT_WORN = ("flags", "fireworks", "balloons", "ribbon", "sticker")
_EXTRA = """a an the of in on at by with and next to near beside under over from for is are two
three one photo portrait picture image painting painted drawn close up person people man woman child
face head pet cat dog animal place building object thing toy left right wearing hair eyes nose mouth
beard big small old young happy angry standing sitting full front side behind style art background
dark bright sunny sun moon stars sky water sand tree trees mountain grass flowers road window door
wall roof tower my this that his her their its very same another who has no without , . < >"""


def tokens(text: str) -> list[str]:
    """The lower-case words and the punctuation of ``text``; ``<rex>`` is one token."""
    return re.findall(r"<[^<>\s]+>|[a-z0-9]+|[^\sa-z0-9]", text.lower())


def _coarse_phrase(identity: Identity, rng: np.random.Generator) -> str:
    """The coarse words of ``identity``, each attribute with probability 0.6."""
    noun, adjectives, features = identity.coarse
    return phrase(
        noun,
        [word for word in adjectives if rng.random() < 0.6],
        [word for word in features if rng.random() < 0.6],
    )


def _worn(accessory: str) -> str:
    if accessory == "none":
        return ""
    verb = "with" if accessory in _NOT_WORN else "wearing"
    return f" {verb} {ACCESSORY_NOUNS[accessory]}"


def prompt(subject_words: str, context: Context) -> str:
    """The full prompt for a subject, with every word of ``context``.

    >>> prompt("<a>", Context(background="beach", accessory="hat", expression="smiling"))
    'a photo of <a> wearing a hat, smiling, at the beach'
    """
    parts = [f"{STYLES[context.style]} {subject_words}{_worn(context.accessory)}"]
    if context.expression != "neutral":
        parts.append(context.expression)
    parts.append(BACKGROUND_PHRASES[context.background])
    return ", ".join(parts)


def caption(
    identities: Identity | Sequence[Identity],
    context: Context,
    rng: np.random.Generator,
    coarse: bool = True,
    names: Sequence[str] = (),
) -> str:
    """A lower-case caption with a random template and random omissions.

    ``coarse=False`` names the subjects by noun alone ("a person next to a dog"), ``names`` by what
    it gives for each. The accessory is said of the first subject, who wears it.
    """
    who = [identities] if isinstance(identities, Identity) else list(identities)
    generic = rng.random() < 0.08  # "a pet", "a building"
    phrases = []
    for number, one in enumerate(who):
        if names:
            phrases.append(names[number])
        elif coarse and not generic:
            phrases.append(_coarse_phrase(one, rng))
        else:
            phrases.append(phrase(NOUNS[one.domain] if generic else one.noun, [], []))
    phrases[0] += _worn(context.accessory) if rng.random() < 0.96 else ""
    subject = phrases[0]
    if len(phrases) == 2:
        subject += str(pick(rng, (" next to ", " and ", " beside "))) + phrases[1]
    expression = context.expression
    if expression == "neutral" or rng.random() < 0.05:
        expression = ""
    place = BACKGROUND_PHRASES[context.background] if rng.random() < 0.95 else ""
    opening = STYLES[context.style]
    form = rng.random()
    if context.style == "photo" and form < 0.25:
        opening = str(pick(rng, ("a picture of", "a portrait of", "")))
        if opening == "a portrait of" and who[0].domain not in ("person", "pet"):
            opening = "a picture of"
    start = f"{opening} {subject}" if opening else subject
    if rng.random() < 0.2 and place and not expression:
        return f"{start} {place}"
    return ", ".join(part for part in (start, expression, place) if part)


def words() -> list[str]:
    """Every token that captions and prompts may use, sorted, each once."""
    texts = [_EXTRA, *EXPRESSIONS, *STYLES.values(), *BACKGROUND_PHRASES, *ACCESSORY_NOUNS]
    texts += [*BACKGROUND_PHRASES.values(), *ACCESSORY_NOUNS.values(), *COLOURS, *NOUNS.values()]
    texts += [text.replace("{}", "") for text in hair.HAIR_STYLES.values()]
    texts += [*hair.HAIR_COLOURS, *people.BEARDS.values(), "freckles", "shirt", "and with beside"]
    texts += [*pets.FUR_WORDS, "cat dog striped spotted", *places.KINDS, *places.WALL_WORDS, "roof"]
    texts += [*objects.KINDS, *objects.DECORATION_WORDS]
    return sorted({token for text in texts for token in tokens(text)})
