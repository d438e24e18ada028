"""Pictures as they are shown: enlarged, and several as one."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

__all__ = ["contact_sheet", "enlarged", "grid", "stacked"]

_LETTERS, _MARGIN = 12, 4
"""Height of letters and the space around them, in pixels."""


def enlarged(picture: Image.Image, scale: int) -> Image.Image:
    """So many times as wide and high, pixel by pixel."""
    size = (picture.width * scale, picture.height * scale)
    return picture.resize(size, resample=Image.Resampling.NEAREST)


def grid(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pictures of one size in rows, as one picture."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for k, picture in enumerate(pictures):
        sheet.paste(picture, (k % columns * width, k // columns * height))
    return sheet


def stacked(rows: Sequence[Image.Image]) -> Image.Image:
    """Pictures of any widths, one below the other, as one."""
    sheet = Image.new("RGB", (max(r.width for r in rows), sum(r.height for r in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def contact_sheet(
    pictures: Sequence[Image.Image], labels: Sequence[str], *, scale: int = 1
) -> Image.Image:
    """Pictures of one size, an equal number of them for each label, which stands above their row.

    A label is broken into as many lines as it needs; pictures are `enlarged`.
    """
    pictures = [enlarged(picture, scale) for picture in pictures]
    columns = len(pictures) // len(labels)
    width, height = pictures[0].size
    font = ImageFont.load_default(_LETTERS)
    lines = [_lines(label, columns * width - 2 * _MARGIN, font) for label in labels]
    line = _LETTERS + _MARGIN
    heights = [height + len(of) * line + 2 * _MARGIN for of in lines]
    sheet = Image.new("RGB", (columns * width, sum(heights)), "white")
    pen, top = ImageDraw.Draw(sheet), 0
    for row, of in enumerate(lines):
        for k, text in enumerate(of):
            pen.text((_MARGIN, top + _MARGIN + k * line), text, "black", font)
        below = top + heights[row] - height
        for k in range(columns):
            sheet.paste(pictures[row * columns + k], (k * width, below))
        top += heights[row]
    return sheet


def _lines(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """The text in lines no wider than so many pixels, but for words that are."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines or [""]
