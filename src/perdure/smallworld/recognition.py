"""What the metric encoder recognises in a picture by comparing it with prompts, untrained."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perdure.measuring.features import MetricEncoder
from perdure.smallworld.identities import phrase
from perdure.smallworld.world import (
    ACCESSORIES,
    BACKGROUNDS,
    DOMAINS,
    EXPRESSIONS,
    NOUNS,
    STYLES,
    Scene,
    prompt,
)

__all__ = [
    "ATTRIBUTES",
    "Recognition",
    "candidates",
    "measure_recognition",
    "recognised",
    "scene_prompt",
]

ATTRIBUTES = ("domain", "background", "accessory", "style", "expression")


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """One attribute, recognised without training by the metric encoder: shares in [0, 1]."""

    drawn: float
    """Share recognised in drawn pictures."""
    renders: float
    """The same in real renders of the same scenes."""
    chance: float
    """Share that blind guessing would get."""
    count: int
    """Pictures of each kind."""

    @property
    def ratio(self) -> float:
        """``drawn / renders``; 0 where nothing is recognised in the renders."""
        return self.drawn / self.renders if self.renders else 0.0

    @property
    def readable(self) -> bool:
        """Whether the encoder reads this in renders at all, and so the ratio says anything.

        True where ``renders`` is above ``chance`` by more than three standard errors of guessing.
        """
        error = math.sqrt(self.chance * (1 - self.chance) / self.count)
        return self.renders > self.chance + 3 * error


def scene_prompt(scene: Scene) -> str:
    """The full prompt: all coarse words of the first identity and every word of the context."""
    return prompt(scene.identities[0].description, scene.context)


def candidates(scene: Scene, attribute: str) -> tuple[list[str], int] | None:
    """Prompts of ``scene`` that differ in ``attribute`` alone, and the index of the true one.

    The prompts for the domain name the subject by its general noun and leave out accessory and
    expression, which not every domain can have. None where the attribute does not apply (an
    expression without a person). Raises ValueError for an attribute outside ``ATTRIBUTES``.
    """
    who, context = scene.identities[0], scene.context
    if attribute == "domain":
        bare = dataclasses.replace(context, accessory="none", expression="neutral")
        texts = [prompt(phrase(NOUNS[domain], [], []), bare) for domain in DOMAINS]
        return texts, DOMAINS.index(who.domain)
    choices: Mapping[str, Sequence[str]] = {
        "background": BACKGROUNDS,
        "accessory": ACCESSORIES[who.domain],
        "style": tuple(STYLES),
        "expression": EXPRESSIONS,
    }
    if attribute not in choices:
        raise ValueError(
            f"attribute: {attribute!r} is unknown; choose one of {', '.join(ATTRIBUTES)}"
        )
    if attribute == "expression" and who.domain != "person":
        return None
    texts = [
        prompt(who.description, dataclasses.replace(context, **{attribute: value}))
        for value in choices[attribute]
    ]
    return texts, choices[attribute].index(getattr(context, attribute))


def recognised(images: Tensor, texts: Sequence[Tensor], truth: Sequence[int]) -> Tensor:
    """Whether each image (N, d) is nearest to its true text, of its own ``texts[n]`` (k_n, d).

    Rows are unit vectors, so the product is the cosine. Returns bool (N,).
    """
    found = [
        int((own @ image).argmax()) == true
        for image, own, true in zip(images, texts, truth, strict=True)
    ]
    return torch.tensor(found, dtype=torch.bool)


def measure_recognition(
    encoder: MetricEncoder, scenes: Sequence[Scene], drawn: Tensor, renders: Tensor
) -> dict[str, Recognition]:
    """``drawn`` and ``renders`` are image embeddings (N, d) of ``scenes``."""
    asked = {
        attribute: [
            (i, *found) for i, scene in enumerate(scenes) if (found := candidates(scene, attribute))
        ]
        for attribute in ATTRIBUTES
    }
    unique = list(dict.fromkeys(t for own in asked.values() for _, texts, _ in own for t in texts))
    at = {text: i for i, text in enumerate(unique)}
    features = encoder.texts(unique)
    shares = {}
    for attribute, own in asked.items():
        index = [i for i, _, _ in own]
        texts = [features[[at[text] for text in group]] for _, group, _ in own]
        truth = [true for _, _, true in own]
        shares[attribute] = Recognition(
            drawn=recognised(drawn[index], texts, truth).double().mean().item(),
            renders=recognised(renders[index], texts, truth).double().mean().item(),
            chance=math.fsum(1 / len(group) for _, group, _ in own) / len(own),
            count=len(own),
        )
    return shares
