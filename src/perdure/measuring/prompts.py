"""The prompts behind the scores; `{}` stands for the concept."""

from __future__ import annotations

__all__ = ["COMPANY", "CONTEXTS", "HELD_OUT", "ORDINARY", "PLAIN"]

PLAIN = "a photo of {}"
"""The prompt behind every score of likeness."""

CONTEXTS = (
    "a photo of {}, at the beach",
    "a photo of {}, in the forest",
    "a photo of {}, in the snow",
    "a photo of {}, at night",
    "a photo of {}, in the city",
    "a photo of {} wearing a hat, in a meadow",
)
"""Prompts behind text alignment. Some methods learn from, or protect, sentences much like these."""

COMPANY = (
    "a photo of {} next to a dog, by the sea",
    "a cat and {}, in the desert",
    "a photo of a teapot beside {}, in space",
    "a watercolour of a castle and {}, in the desert",
)
"""Prompts in which something else stands beside the concept."""

HELD_OUT = (
    "a photo of {} wearing a crown, by the sea",
    "a photo of {} wearing a flower, in the desert",
    "a photo of {} wearing glasses, in space",
    "a photo of {} wearing a scarf, by the sea",
    "a photo of {} with balloons, in the desert",
    "a watercolour of {}, in the desert",
    "a watercolour of {} wearing a hat, by the sea",
    "pixel art of {}, in space",
    "pixel art of {} wearing a crown",
    "a sepia photo of {}, by the sea",
    "a sepia photo of {} wearing a scarf, in the city",
    "a night vision picture of {}, in the forest",
    "a photo of {}, smiling, in the desert",
    "a photo of {}, sad, by the sea",
    "a photo of {}, surprised, in space",
    "a portrait of {}, smiling, in the snow",
    "a watercolour of {} wearing a crown, smiling, in a room",
    "pixel art of {} wearing glasses and a scarf, surprised, in the snow",
    "a sepia photo of {} wearing a hat, sad, standing in front of a house, by the sea",
    "a drawing of {} wearing a flower, smiling, standing behind a tree, in space",
    *COMPANY,
)
"""Accessories, styles, actions, long ones and company: no sentence that a method learns from,
weighs its past by or protects is among them, nor is any of `CONTEXTS`; the tests compare."""

ORDINARY = (
    "a photo of a person, at the beach",
    "a photo of a cat, in the forest",
    "a photo of a dog, in a room",
    "a photo of a castle, in the snow",
    "a photo of a house, by the sea",
    "a photo of a teapot, in a room",
)
"""Prompts without any concept, behind base drift."""
