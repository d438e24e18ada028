"""What a report is made of: raw matrices and pictures, as the caller hands them over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from torch import Tensor

from perdure.measuring.matrix import TaskMatrix
from perdure.measuring.scores import SCORES, Score

__all__ = [
    "Concept",
    "Definition",
    "Figure",
    "MethodResult",
    "Picture",
    "Report",
    "Shot",
    "Strip",
]

Picture = Image.Image | np.ndarray | Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Concept:
    """One learned concept. `ceiling` and `floor` bound the report's main score for it.

    `ceiling` is what the references themselves score (against other references, through the
    autoencoder), `floor` what other identities score. All but the name may be absent.
    """

    name: str
    title: str = ""
    references: Sequence[Picture] = ()
    ceiling: float | None = None
    floor: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Shot:
    """One picture with the words that asked for it, drawn at the end in another context."""

    caption: str
    picture: Picture


@dataclass(frozen=True, kw_only=True, eq=False)
class Strip:
    """What one method drew of a concept: `drawn[i]` after task i (from 0), same seeds each time."""

    concept: str
    drawn: Mapping[int, Sequence[Picture]] = field(default_factory=dict)
    contexts: Sequence[Shot] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class MethodResult:
    """One method on the report's concepts.

    `matrix` is the run that is pictured, `repeats` the same stream with other seeds (for the
    spread). `seconds` is the learning time of each task; `kept_bytes` what each task left on disk.
    """

    name: str
    title: str
    matrix: TaskMatrix
    summary: str = ""
    strips: Sequence[Strip] = ()
    repeats: Sequence[TaskMatrix] = ()
    seconds: Sequence[float] = ()
    kept_bytes: Sequence[int] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number in the page's head, already formatted, with what it is."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A word of the page and its meaning."""

    term: str
    text: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """Everything that the page shows. `score` is the main one; the others go into the table.

    `figures` are computed (one a method) where none are given. Scores without an entry in `SCORES`
    are described in `extra_scores`. `noun` and `nouns` name a concept in the page's sentences.
    `together` are pictures of several concepts by the last method.
    Raises ValueError where the methods' concepts and the report's differ.
    """

    title: str
    methods: Sequence[MethodResult]
    concepts: Sequence[Concept]
    subtitle: str = ""
    score: str = "identity"
    noun: str = "concept"
    nouns: str = "concepts"
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()
    definitions: Sequence[Definition] = ()
    together: Sequence[Shot] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    extra_scores: Mapping[str, Score] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [concept.name for concept in self.concepts]
        if not self.methods:
            raise ValueError("methods must hold at least one method")
        for method in self.methods:
            for matrix in (method.matrix, *method.repeats):
                if set(matrix.concepts) != set(names):
                    raise ValueError(
                        f"method {method.name!r} measured {list(matrix.concepts)}, the report's "
                        f"concepts are {names}"
                    )
                if self.score not in matrix.scores:
                    raise ValueError(
                        f"score {self.score!r} was not measured for method {method.name!r}; there "
                        f"are {', '.join(matrix.scores) or 'none'}"
                    )
            for strip in method.strips:
                if strip.concept not in names:
                    raise ValueError(f"strips of {method.name!r}: no concept {strip.concept!r}")

    def describe(self, score: str) -> Score:
        """What a score of the matrices means: from `extra_scores`, or else `SCORES`."""
        if score in self.extra_scores:
            return self.extra_scores[score]
        return SCORES.get(score) or Score(name=score, title=score, definition="")
