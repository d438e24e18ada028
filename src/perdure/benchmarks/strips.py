"""The pictures that lie beside the records, cut apart and put side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from perdure.benchmarks.records import Record
from perdure.benchmarks.results import MethodRuns
from perdure.benchmarks.runs import SHOWN
from perdure.benchmarks.together import ARRANGED
from perdure.errors import PerdureError
from perdure.measuring.inline import image
from perdure.untrusted import open_picture

__all__ = ["concept_rows", "pair_rows"]

_LARGEST = 160
_OF_A_PAIR = 2


def _cut(path: Path, columns: int, rows: int) -> list[list[Image.Image]]:
    """A sheet of pictures of one size, row by row; none where there is no sheet."""
    if not path.exists():
        return []
    try:
        with open_picture(path) as sheet:
            shown = sheet.convert("RGB")
    except ValueError as error:
        raise PerdureError(
            f"{path} cannot be read as a picture ({error}): take it away, and the report does"
            " without it."
        ) from error
    width, height = shown.width // columns, shown.height // rows
    return [
        [
            shown.crop((x * width, y * height, (x + 1) * width, (y + 1) * height))
            for x in range(columns)
        ]
        for y in range(rows)
    ]


def concept_rows(methods: Sequence[MethodRuns]) -> dict[str, Any] | None:
    """Real pictures, and each method's first run's right after learning and at the end.

    None where no run has pictures. A method without any is left out; a concept that a method's
    sheet does not show is None there.
    """
    sheets = []
    for method in methods:
        record = method.records[0]
        names = record.matrix.concepts[:SHOWN]
        if rows := _cut(record.path.with_suffix(".webp"), len(names), 3):
            tiles = [dict(zip(names, map(_tile, row), strict=True)) for row in rows]
            sheets.append((method.title, tiles))
    if not sheets:
        return None
    shown = list(sheets[0][1][0])
    return {
        "names": shown,
        "real": list(sheets[0][1][0].values()),
        "moments": [
            {
                "words": words,
                "rows": [
                    {"title": title, "images": [tiles[row].get(name) for name in shown]}
                    for title, tiles in sheets
                ],
            }
            for row, words in ((2, "At the end"), (1, "Right after learning"))
        ],
    }


def pair_rows(methods: Sequence[MethodRuns]) -> dict[str, Any] | None:
    """The first pictures of every pair, a row an arrangement; None without any."""
    found = []
    pairs: list[list[str]] = []
    for method in methods:
        record = method.records[0]
        told = record.data["together"]
        if not told or (pairs and told["pairs"] != pairs):
            continue
        each = told["plain"]["pictures"] // len(told["pairs"])
        arranged = [key for key in ARRANGED if key in told]
        rows = _cut(_together(record), told["plain"]["pictures"], len(arranged))
        if not rows:
            continue
        pairs = told["pairs"]
        found.append(
            {
                "title": method.title,
                "rows": [
                    {
                        "words": ARRANGED[key],
                        "both": told[key]["both"],
                        "images": [
                            [_tile(row[k * each + i]) for i in range(min(each, _OF_A_PAIR))]
                            for k in range(len(pairs))
                        ],
                    }
                    for key, row in zip(arranged, rows, strict=True)
                ],
            }
        )
    return {"pairs": pairs, "methods": found} if found else None


def _together(record: Record) -> Path:
    return record.path.with_name(record.path.stem + "-together.webp")


def _tile(picture: Image.Image) -> dict[str, Any]:
    return image(picture, _LARGEST)
