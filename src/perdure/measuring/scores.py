"""Scores: pure functions of feature arrays. Features are (n, d), one row a picture; float64 inside.

Every score has one entry in `SCORES` with its definition, its direction and how it is printed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

Features = Tensor | NDArray[np.floating] | Sequence[Sequence[float]]
Values = Tensor | NDArray[np.floating] | Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Score:
    """How one score is named, defined and printed (`value * scale`, with `digits` decimals)."""

    name: str
    title: str
    definition: str
    higher_is_better: bool = True
    scale: float = 1.0
    digits: int = 2


def _rows(features: Features, name: str, *, least: int = 1) -> Tensor:
    rows = torch.as_tensor(features).detach().to(device="cpu", dtype=torch.float64)
    if rows.ndim != 2 or rows.shape[0] < least or rows.shape[1] == 0:
        raise ValueError(
            f"{name} must be features (n, d) with n >= {least} and d >= 1, got {tuple(rows.shape)}"
        )
    return rows


def _pair(
    x: Features, y: Features, names: tuple[str, str], *, least: int = 1
) -> tuple[Tensor, ...]:
    a, b = _rows(x, names[0], least=least), _rows(y, names[1], least=least)
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{names[0]} and {names[1]} must have one width, got {a.shape[1]} and {b.shape[1]}"
        )
    return a, b


def _polynomial(x: Tensor, y: Tensor, degree: int) -> Tensor:
    """k(a, b) = (a.b / d + 1) ** degree."""
    return (x @ y.T / x.shape[1] + 1.0) ** degree


def mmd(x: Features, y: Features, degree: int = 2, *, unbiased: bool = False) -> float:
    """Squared maximum mean discrepancy of `x` (n, d) and `y` (m, d), unscaled.

    Reports print it x 1000. Kernel (x.y / d + 1) ** degree. The default is the biased V-statistic
    (Gretton et al. 2012): never negative, zero for two equal sets. `unbiased` leaves out each
    row's kernel with itself, may be negative, and needs n, m >= 2.
    """
    if degree < 1:
        raise ValueError(f"degree must be at least 1, got {degree}")
    a, b = _pair(x, y, ("x", "y"), least=2 if unbiased else 1)
    n, m = len(a), len(b)
    k_aa, k_bb, k_ab = (_polynomial(*pair, degree) for pair in ((a, a), (b, b), (a, b)))
    if unbiased:
        within = (k_aa.sum() - k_aa.trace()) / (n * (n - 1))
        within = within + (k_bb.sum() - k_bb.trace()) / (m * (m - 1))
        return float(within - 2.0 * k_ab.mean())
    return max(0.0, float(k_aa.mean() + k_bb.mean() - 2.0 * k_ab.mean()))


def kid(x: Features, y: Features) -> float:
    """Kernel distance of `x` (n, d) and `y` (m, d), unbiased cubic MMD^2 (Binkowski et al. 2018).

    On our metric encoder's features, not Inception's: compare within one encoder only.
    """
    return mmd(x, y, degree=3, unbiased=True)


def frechet(x: Features, y: Features) -> float:
    """|m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)), covariances over n - 1.

    Heusel et al. 2017. Needs two rows of each; biased upwards when n is not much larger than d,
    so compare equal n only.
    """
    a, b = _pair(x, y, ("x", "y"), least=2)
    shift = a.mean(0) - b.mean(0)
    a, b = (a - a.mean(0)) / (len(a) - 1) ** 0.5, (b - b.mean(0)) / (len(b) - 1) ** 0.5
    # C_x = a'a and C_y = b'b, so the nonzero eigenvalues of C_x C_y are the squared singular
    # values of a b', and the trace of the root is their sum: exact also for deficient ranks.
    root = torch.linalg.svdvals(a @ b.T).sum()
    return max(0.0, float(shift @ shift + (a * a).sum() + (b * b).sum() - 2.0 * root))


def image_alignment(drawn: Features, reference: Features, *, distinct: bool = False) -> float:
    """Mean cosine over all pairs of `drawn` (n, d) and `reference` (m, d), in [-1, 1].

    `distinct` leaves out pairs (i, i), for two views of one set of pictures (n = m >= 2): a ceiling
    is the references' reconstructions against the *other* references.
    """
    a, b = _pair(drawn, reference, ("drawn", "reference"), least=2 if distinct else 1)
    cosine = normalize(a, dim=1) @ normalize(b, dim=1).T
    if not distinct:
        return float(cosine.mean())
    if len(a) != len(b):
        raise ValueError(f"distinct pairs need equally many rows, got {len(a)} and {len(b)}")
    return float((cosine.sum() - cosine.trace()) / (len(a) * (len(a) - 1)))


def diversity(drawn: Features) -> float:
    """One minus the mean cosine of different rows of `drawn` (n, d), n >= 2; in [0, 2].

    0 where all are alike.
    """
    rows = _rows(drawn, "drawn", least=2)
    return 1.0 - image_alignment(rows, rows, distinct=True)


def _paired_cosine(images: Features, texts: Features) -> Tensor:
    a, b = _pair(images, texts, ("images", "texts"))
    if len(b) not in (1, len(a)):
        raise ValueError(f"texts must have one row, or one per image ({len(a)}), got {len(b)}")
    return (normalize(a, dim=1) * normalize(b, dim=1)).sum(1)


def text_alignment(images: Features, texts: Features) -> float:
    """Mean cosine of each image (n, d) with its own prompt (n, d), or with one prompt (1, d).

    The prompt's concept tokens are replaced by their class noun before it is encoded.
    """
    return float(_paired_cosine(images, texts).mean())


def clip_score_cifc(images: Features, texts: Features) -> float:
    """Mean of 2.5 * max(cosine, 0), image with prompt, as CIFC's public code reports it."""
    return float(2.5 * _paired_cosine(images, texts).clamp_min(0.0).mean())


def auc(positive: Values, negative: Values) -> float:
    """Probability that a positive value exceeds a negative, ties counted half (Mann-Whitney)."""
    p = torch.as_tensor(positive).flatten().double().contiguous()
    n = torch.as_tensor(negative).flatten().double().sort().values
    if not len(p) or not len(n):
        raise ValueError(f"auc needs values of both kinds, got {len(p)} and {len(n)}")
    below, up_to = torch.searchsorted(n, p), torch.searchsorted(n, p, right=True)
    return float((below + up_to).double().mean() / (2 * len(n)))


def reach(value: float, *, floor: float, ceiling: float) -> float:
    """(value - floor) / (ceiling - floor): 0 at the floor, 1 at the ceiling, not clipped."""
    if not ceiling > floor:
        raise ValueError(f"ceiling must be above floor, got {ceiling} and {floor}")
    return (value - floor) / (ceiling - floor)


_ALL = (
    Score(
        name="identity",
        title="Identity",
        definition="Mean cosine, over all pairs of a drawn and a reference picture of one concept, "
        "of their identity features: those of the metric encoder's identity head, or its image "
        "embeddings where it has none.",
    ),
    Score(
        name="image_alignment",
        title="Image alignment",
        definition="Mean cosine, over all pairs of a drawn and a reference picture of one concept, "
        "of their image embeddings.",
    ),
    Score(
        name="text_alignment",
        title="Text alignment",
        definition="Mean cosine of a drawn picture's image embedding and its prompt's text "
        "embedding, the concept's token replaced by its class noun.",
        digits=3,
    ),
    Score(
        name="identity_held_out",
        title="Identity, held-out prompts",
        definition="Identity of a concept drawn in prompts with accessories, styles, actions and "
        "at length, none of which a method learns from or protects; without those in which it has "
        "company.",
        digits=3,
    ),
    Score(
        name="text_held_out",
        title="Text alignment, held-out prompts",
        definition="Text alignment in the same prompts and in those with company.",
        digits=3,
    ),
    Score(
        name="faces_matched",
        title="Faces matched",
        definition="Share of drawings whose face is that of the reference pictures, by dlib's face "
        "descriptor (distance below 0.6); a drawing without a face counts as none. Where dlib is "
        "installed and half of the references show a face.",
    ),
    Score(
        name="diversity",
        title="Diversity",
        definition="One minus the mean cosine of the image embeddings of different drawings of one "
        "concept by one prompt: 0 where all are alike.",
        digits=3,
    ),
    Score(
        name="sharpness",
        title="Sharpness",
        definition="Median variance of the Laplacian of drawings of one concept over that of its "
        "reference pictures: 1 is as sharp as they are, below is soft, above is noisy.",
    ),
    Score(
        name="clip_score_cifc",
        title="Text alignment (CIFC)",
        definition="Mean of 2.5 x max(cosine, 0) of a drawn picture and its prompt, as the public "
        "code of CIFC reports it.",
        digits=3,
    ),
    Score(
        name="mmd",
        title="MMD × 1000",
        definition="Squared maximum mean discrepancy between the image embeddings of references "
        "and drawn pictures; kernel (x.y/d + 1)^2, biased V-statistic, times 1000. Its mean at the "
        "end is A_mmd.",
        higher_is_better=False,
        scale=1000.0,
    ),
    Score(
        name="mmd_change",
        title="MMD to right after × 1000",
        definition="The same distance between a concept's pictures drawn right after it was "
        "learned and those drawn later. Its mean at the end over all earlier concepts is F_mmd.",
        higher_is_better=False,
        scale=1000.0,
    ),
    Score(
        name="kid",
        title="KID × 1000",
        definition="Unbiased squared MMD between the image embeddings of references and drawn "
        "pictures with the kernel (x.y/d + 1)^3, times 1000; may be slightly negative.",
        higher_is_better=False,
        scale=1000.0,
    ),
    Score(
        name="likeness_kept",
        title="Likeness kept",
        definition="Mean cosine, seed by seed, of a concept's pictures drawn later with those "
        "drawn right after it was learned. Needs no reference picture.",
    ),
    Score(
        name="frechet",
        title="Fréchet distance",
        definition="|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of the image embeddings' means and "
        "covariances.",
        higher_is_better=False,
        digits=3,
    ),
    Score(
        name="base_drift",
        title="Base drift",
        definition="One minus the mean cosine, seed by seed, of pictures drawn from prompts "
        "without any concept before and after learning.",
        higher_is_better=False,
        digits=3,
    ),
)

SCORES: Mapping[str, Score] = MappingProxyType({score.name: score for score in _ALL})
