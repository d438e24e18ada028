"""The words of the small world: its domains, what a context may hold, and the colour names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

SIZE = 64
DOMAINS = ("person", "pet", "place", "object")

BACKGROUND_PHRASES = {
    "beach": "at the beach",
    "forest": "in the forest",
    "city": "in the city",
    "snow": "in the snow",
    "night": "at night",
    "desert": "in the desert",
    "room": "in a room",
    "meadow": "in a meadow",
    "sea": "by the sea",
    "space": "in space",
}
BACKGROUNDS = tuple(BACKGROUND_PHRASES)

ACCESSORIES = {
    "person": ("none", "hat", "glasses", "scarf", "crown", "headphones", "flower"),
    "pet": ("none", "hat", "glasses", "scarf", "crown", "flower", "collar", "bow"),
    "place": ("none", "flags", "fireworks", "balloons"),
    "object": ("none", "ribbon", "sticker", "flower", "crown", "hat"),
}
ACCESSORY_NOUNS = {
    "hat": "a hat",
    "glasses": "glasses",
    "scarf": "a scarf",
    "crown": "a crown",
    "headphones": "headphones",
    "flower": "a flower",
    "collar": "a collar",
    "bow": "a bow",
    "flags": "flags",
    "fireworks": "fireworks",
    "balloons": "balloons",
    "ribbon": "a ribbon",
    "sticker": "a sticker",
}
EXPRESSIONS = ("neutral", "smiling", "sad", "surprised")
STYLES = {
    "photo": "a photo of",
    "drawing": "a drawing of",
    "pixel art": "pixel art of",
    "night vision": "a night vision picture of",
    "sepia": "a sepia photo of",
    "watercolour": "a watercolour of",
}


def refuse(field: str, value: object, allowed: Iterable[str]) -> ValueError:
    """The error for a value outside a vocabulary: it names the field, the value and the mend."""
    return ValueError(f"{field}: {value!r} is unknown; choose one of {', '.join(allowed)}")


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a caption says about a picture besides its subjects.

    Raises ValueError, naming field and value, for a word outside the vocabulary.
    """

    background: str
    """One of ``BACKGROUNDS``."""
    accessory: str = "none"
    """A word of ``ACCESSORIES`` for the domain of the first subject, which alone wears it."""
    expression: str = "neutral"
    """One of ``EXPRESSIONS``; shared by every person in the picture."""
    style: str = "photo"
    """One of ``STYLES``."""

    def __post_init__(self) -> None:
        if self.background not in BACKGROUNDS:
            raise refuse("background", self.background, BACKGROUNDS)
        if self.accessory != "none" and self.accessory not in ACCESSORY_NOUNS:
            raise refuse("accessory", self.accessory, ["none", *ACCESSORY_NOUNS])
        if self.expression not in EXPRESSIONS:
            raise refuse("expression", self.expression, EXPRESSIONS)
        if self.style not in STYLES:
            raise refuse("style", self.style, STYLES)


COLOURS = {
    # name: (hue range, saturation range, value range); a hue above 1 wraps
    "red": ((0.975, 1.01), (0.75, 0.95), (0.65, 0.9)),
    "orange": ((0.06, 0.09), (0.8, 1.0), (0.85, 1.0)),
    "yellow": ((0.12, 0.16), (0.7, 0.95), (0.9, 1.0)),
    "green": ((0.27, 0.4), (0.55, 0.9), (0.4, 0.75)),
    "teal": ((0.46, 0.52), (0.6, 0.9), (0.5, 0.8)),
    "blue": ((0.57, 0.66), (0.6, 0.9), (0.5, 0.95)),
    "purple": ((0.73, 0.8), (0.45, 0.8), (0.45, 0.8)),
    "pink": ((0.88, 0.95), (0.35, 0.6), (0.88, 1.0)),
    "brown": ((0.05, 0.09), (0.5, 0.75), (0.3, 0.5)),
    "white": ((0.05, 0.15), (0.0, 0.08), (0.9, 0.98)),
    "grey": ((0.5, 0.7), (0.0, 0.1), (0.45, 0.65)),
    "black": ((0.5, 0.8), (0.0, 0.2), (0.1, 0.2)),
}
