"""One picture of a whole stream: what was given, and what each method draws, then and now."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image, ImageDraw, ImageFont

from perdure.measuring.evaluate import Evaluation

__all__ = ["overview"]

_SIDE, _GAP, _LEFT, _TOP = 96, 6, 64, 54
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
