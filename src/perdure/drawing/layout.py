"""Where the subjects of one plain sentence stand, and what each part of the picture reads.

`"a photo of <ada> next to <ben>"` speaks of two subjects. The picture as a whole reads the sentence
with class nouns in their places, which settles in the first steps how many there are and how they
stand; then each region reads the sentence of its own subject alone. Guidance is stronger than for
one subject. A style or a place is the whole picture's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from perdure.drawing.regions import Region
from perdure.errors import PerdureError

__all__ = ["PULL", "SINCE", "Layout", "NoNounError", "laid_out"]

SINCE = 0.24
"""The share of the noise that is gone when the subjects' own phrases begin to be read."""
PULL = 1.5
"""How many times as strong guidance is, where it steps away from a negative prompt."""

_TOKEN = re.compile(r"<([^<>\s]+)>")
_ARTICLE = r"(?:(?:an?|the|my|his|her|their) )?$"
_LIKE_STYLE, _STYLED = re.compile(r"\bstyle\b"), re.compile(r"^(?:'s)? style\b")
_AT = re.compile(
    r"(?<!looking )(?<!smiling )(?<!pointing )(?<!staring )(?<!waving )"
    rf"\b(?:at|in|inside|outside|within|into|through|across|on) {_ARTICLE}"
)
_HOLDING = r"\b(?:wearing|holding|carrying|riding|playing|using|eating|drinking)\b"
_HELD = re.compile(rf"{_HOLDING} {_ARTICLE}")
_LINK = re.compile(
    r"[\s,;]*(?:\b(?:standing|sitting|walking|is|are|just|to|on|at|the|and) )*"
    r"(?:[,;&]|\b(?:next to|besides?|near|by|alongside|along with|together with|with|and|left of|"
    r"right of|behind|in front of|above|over|on top of|below|under|underneath|beneath|between|"
    rf"opposite|facing)) ?{_ARTICLE}"
)
"""What stands between two subjects, at the end of what is said of the first."""
_OWN = re.compile(rf"^ (?:{_HOLDING}|with\b)[^,]*")
"""At the end of a sentence, what is said of the last subject alone."""
_SWAPPED = re.compile(r"\b(?:right of|below|under|underneath|beneath)\b")
_STACKED = re.compile(r"\b(?:above|over|on top of|below|under|underneath|beneath)\b")
_BEHIND, _BEFORE = re.compile(r"\bbehind\b"), re.compile(r"\bin front of\b")
_BETWEEN = re.compile(r"\bbetween\b")
_SIDE = re.compile(r"^[^<]*?\bon the (left|right)\b(?! of)")
_ANY_SIDE = re.compile(r" ?\bon the (?:left|right)\b(?! of)")
_PLACES = frozenset(
    {"beach", "bridge", "building", "castle", "church", "city", "forest", "garden", "harbour"}
    | {"house", "kitchen", "landscape", "mountain", "park", "place", "room", "street", "tower"}
    | {"town", "village"}
)
"""Nouns of what others stand in front of, and not beside."""
_BACK, _FRONT = (0.35, 0.0, 1.0, 0.85), (0.0, 0.1, 0.65, 1.0)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a picture reads as a whole, and in each region."""

    prompt: str
    """The sentence with class nouns in the places of its subjects."""
    subjects: tuple[tuple[str, ...], ...]
    """Of each region its concepts: a subject, and what it wears or holds."""
    regions: tuple[Region, ...]
    """One a group of subjects, in order of mention."""

    @property
    def abreast(self) -> int:
        """How many stand side by side."""
        return len({region.box for region in self.regions if region.box[1::2] == (0.0, 1.0)})

    def __str__(self) -> str:
        """One line: who stands where."""
        said = (
            f"{' with '.join(f'<{name}>' for name in names)} {_where(region.box)}"
            for names, region in zip(self.subjects, self.regions, strict=True)
        )
        return ", ".join(said)


class NoNounError(PerdureError):
    """A sentence of several subjects, of which one has no class noun."""


def laid_out(prompt: str, nouns: Mapping[str, str], styles: Collection[str] = ()) -> Layout | None:
    """Who stands where by what the sentence says; None where it speaks of fewer than two subjects.

    Raises NoNounError where one of them has no class noun, without which the picture as a whole
    cannot be settled.

    Args:
        prompt: of concepts as ``<name>``.
        nouns: concept -> class noun, as far as they are known.
        styles: concepts that are styles, however they are spoken of.

    Subjects stand side by side in the order of mention, unless it says `right of`, `between`, `on
    the right`, or of two of them `above`, `below`, `behind` or `in front of`. What stands at, in or
    on something is in a place; what is worn or held belongs to who does.
    """
    prompt = unicodedata.normalize("NFC", prompt)
    said = _read(prompt, nouns, styles)
    if len(said) < 2:
        return None
    for one in said:
        for name in one.names:
            if name not in nouns:
                raise NoNounError(
                    f"The bank does not know what <{name}> is, so where it stands is left to the "
                    "base: learn with --noun, such as --noun dog, or give a box for each subject."
                )
    boxes, depths = _boxes(said)
    rest = {name: nouns[name] for one in said for name in one.names}
    regions = [
        Region(phrase=_phrase(prompt, said, k), box=box, depth=depth, since=SINCE)
        for k, (box, depth) in enumerate(zip(boxes, depths, strict=True))
    ]
    return Layout(
        prompt=_with_nouns(prompt, rest),
        subjects=tuple(one.names for one in said),
        regions=tuple(regions),
    )


@dataclass(frozen=True, kw_only=True)
class _Said:
    """A subject as the sentence speaks of it."""

    names: tuple[str, ...]
    """Its own name, and those of what it wears or holds."""
    start: int
    end: int
    """Where the words that name it stand."""
    link: str = ""
    """What stands between the one before and it."""
    side: str = ""
    """`left` or `right` where that is said of it."""


def _read(prompt: str, nouns: Mapping[str, str], styles: Collection[str]) -> list[_Said]:
    """The subjects, in the order of their first mention."""
    said: list[_Said] = []
    known: set[str] = set()
    end = 0
    for token in _TOKEN.finditer(prompt):
        name, before = token[1], prompt[end : token.start()].lower()
        after, end = prompt[token.end() :].lower(), token.end()
        if name in known or _is_whole(name, before, after, nouns, styles):
            continue
        known.add(name)
        if said and _HELD.search(before):
            said[-1] = replace(said[-1], names=(*said[-1].names, name), end=end)
            continue
        side = _SIDE.match(after)
        said.append(
            _Said(
                names=(name,),
                start=token.start(),
                end=end,
                link=prompt[said[-1].end : token.start()].lower() if said else "",
                side=side[1] if side else "",
            )
        )
    return said


def _phrase(prompt: str, said: Sequence[_Said], k: int) -> str:
    """The sentence of one subject alone, with what is said of it and of the whole picture."""
    one = said[k]
    tail = prompt[said[-1].end :]
    if k + 1 < len(said):
        link = prompt[one.end : said[k + 1].start]
        found = _LINK.search(link.lower())
        tail = (link[: found.start()] if found else "") + _OWN.sub("", tail)
    alone = prompt[: said[0].start] + prompt[one.start : one.end] + tail
    others = {name for other in said if other is not one for name in other.names}
    if {*_TOKEN.findall(alone)} == {*_TOKEN.findall(prompt)} - others:
        return _ANY_SIDE.sub("", alone)
    own = one.names[0]  # what it would leave out speaks of the whole picture: it in all places
    return _TOKEN.sub(lambda token: f"<{own}>" if token[1] in others else token[0], prompt)


def _is_whole(
    name: str, before: str, after: str, nouns: Mapping[str, str], styles: Collection[str]
) -> bool:
    """Is it of the whole picture: a style, or a place that others are in?"""
    if name in styles or _LIKE_STYLE.search(before) or _STYLED.match(after):
        return True
    in_front = _BEFORE.search(before) and nouns.get(name) in _PLACES
    return bool(_AT.search(before) or in_front)


def _boxes(
    said: Sequence[_Said],
) -> tuple[list[tuple[float, float, float, float]], list[int]]:
    """Box and depth of each subject."""
    count = len(said)
    flat = [0] * count
    if count == 2:
        link = said[1].link
        if _BEHIND.search(link):
            return [_BACK, _FRONT], [1, 0]
        if _BEFORE.search(link):
            return [_FRONT, _BACK], [0, 1]
        if _STACKED.search(link):
            halves = [(0.0, 0.0, 1.0, 0.5), (0.0, 0.5, 1.0, 1.0)]
            return (halves[::-1] if _SWAPPED.search(link) else halves), flat
    order = [0]
    for k, one in enumerate(said[1:], 1):
        if k == 1 and count == 3 and _BETWEEN.search(one.link):
            order = [1, 0, 2]
            break
        order.insert(order.index(k - 1) if _SWAPPED.search(one.link) else len(order), k)
    place = {"left": 0, "": 1, "right": 2}
    order.sort(key=lambda k: place[said[k].side])
    edges = [k / count for k in range(count + 1)]
    row = [(left, 0.0, right, 1.0) for left, right in pairwise(edges)]
    return [row[order.index(k)] for k in range(count)], flat


def _with_nouns(prompt: str, nouns: Mapping[str, str]) -> str:
    """The prompt with nouns in the places of these concepts, with an article where none stands."""

    def noun(token: re.Match[str]) -> str:
        if (own := nouns.get(token[1])) is None:
            return token[0]
        before = prompt[: token.start()].rstrip().lower()
        if re.search(r"\b(?:an?|the|my|his|her|their|this|that|one)$", before):
            return own
        return f"{'an' if own[0] in 'aeiou' else 'a'} {own}"

    return _TOKEN.sub(noun, prompt)


def _where(box: tuple[float, float, float, float]) -> str:
    if box == _FRONT:
        return "in front"
    if box == _BACK:
        return "behind"
    left, top, right, bottom = box
    if bottom - top < 1:
        return "above" if top == 0 else "below"
    middle = (left + right) / 2
    if abs(middle - 0.5) < 1e-9:
        return "in the middle"
    return "on the left" if middle < 0.5 else "on the right"
