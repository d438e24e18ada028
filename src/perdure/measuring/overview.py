"""One picture of a whole stream: what was given, and what each method draws, then and now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from perdure.measuring.evaluate import Evaluation

__all__ = ["company", "overview"]

_SIDE, _GAP, _LEFT, _TOP = 96, 6, 64, 54
_LARGE = 2 * _SIDE + _GAP
_INK, _PAPER, _FAINT = (34, 34, 34), (255, 255, 255), (120, 120, 120)


def overview(evaluations: Mapping[str, Evaluation], *, given: int = 2) -> Image.Image:
    """Rows are concepts; columns the given pictures, then a pair a method: right after, at the end.

    Args:
        evaluations: the name to print -> the evaluation, all of the same concepts.
        given: how many of the reference pictures to show.
    """
    first = next(iter(evaluations.values()))
    names = first.matrix.concepts
    columns: list[tuple[str, str]] = [("given", "")] * given
    for title in evaluations:
        columns += [(title, "right after"), (title, "at the end")]
    width = _LEFT + sum(_SIDE + _GAP for _ in columns) + 2 * _GAP * len(evaluations) + _GAP
    sheet = Image.new("RGB", (width, _TOP + len(names) * (_SIDE + _GAP)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(15), ImageFont.load_default(12)
    x = _LEFT
    edges = []
    for index, (title, when) in enumerate(columns):
        if index >= given and (index - given) % 2 == 0:
            x += 2 * _GAP
        edges.append(x)
        if index == 0 or (index >= given and (index - given) % 2 == 0):
            draw.text((x, 8), title, _INK, large)
        draw.text((x, 30), when, _FAINT, small)
        x += _SIDE + _GAP
    for row, name in enumerate(names):
        y = _TOP + row * (_SIDE + _GAP)
        draw.text((8, y + _SIDE / 2 - 9), name, _INK, large)
        pictures = list(first.references.get(name, ()))[:given]
        for evaluation in evaluations.values():
            moments = evaluation.drawn[name]
            pictures += [moments[min(moments)][0], moments[max(moments)][0]]
        for left, picture in zip(edges, pictures, strict=True):
            sheet.paste(picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), (left, y))
    return sheet


def company(
    references: Mapping[str, Sequence[Image.Image]],
    pairs: Mapping[tuple[str, str], Sequence[Image.Image]],
) -> Image.Image:
    """A column a pair of concepts: a picture given of each, and below them both, together.

    ``pairs`` has as many pictures of each.
    """
    drawn = len(next(iter(pairs.values())))
    height = _TOP + _SIDE + 2 * _GAP + drawn * (_LARGE + _GAP)
    sheet = Image.new("RGB", (_LEFT + len(pairs) * (_LARGE + 3 * _GAP), height), _PAPER)
    pen, large = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for row, words in ((_TOP, "given"), (_TOP + _SIDE + 2 * _GAP, "drawn")):
        pen.text((8, row + _SIDE / 2 - 9), words, _INK, large)
    for column, (pair, pictures) in enumerate(pairs.items()):
        left = _LEFT + column * (_LARGE + 3 * _GAP)
        pen.text((left, 22), " next to ".join(f"<{name}>" for name in pair), _INK, large)
        for k, name in enumerate(pair):
            given = references[name][0].resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
            sheet.paste(given, (left + k * (_SIDE + _GAP), _TOP))
        for k, picture in enumerate(pictures):
            top = _TOP + _SIDE + 2 * _GAP + k * (_LARGE + _GAP)
            sheet.paste(picture.resize((_LARGE, _LARGE), Image.Resampling.LANCZOS), (left, top))
    return sheet
