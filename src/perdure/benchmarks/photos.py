"""Streams of photographs: published data sets, read where they lie on the user's disk.

Nothing is fetched and nothing copied. Where each layout was read:

- `cifc` (arXiv 2410.17594): repository JiahuaDong/CIFC. The order and the nouns are those of
  `datasets/data_cfgs/task10.json`; the folders, and which are styles, of `options/cidm/task_*.yml`.
- `celeba-hq`: the README.txt of CelebAMask-HQ names its files; the columns of its mapping, and of
  CelebA's `identity_CelebA.txt`, are as public programs read them. 307 of its people have 15
  pictures or more, says the README of a curated subset. That C-LoRA (arXiv 2304.06027) takes ten
  people with about 15 pictures each is from memory; which ten is not known here, so ours are
  chosen by the rule of `_ten`.
- `landmarks-v2`: the README of cvdfoundation/google-landmark. That C-LoRA takes waterfalls is from
  memory, and so is that their labels hold this word.
- `custom-concept-101`: `customconcept101/` of adobe-research/custom-diffusion; 3 to 15 pictures of
  a concept, says its README.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from perdure.bank_names import caseless, check_concept_name, composed
from perdure.benchmarks.streams import Photographed, Stream
from perdure.errors import PerdureError
from perdure.learning.photos import list_pictures
from perdure.untrusted import read_json

__all__ = ["LAYOUTS", "Layout", "photographed"]

FEWEST, MOST = 3, 15
"""Pictures of a concept: fewer are refused, and no more than the first ones are used."""
TEN = 10
NOUN = "subject"
"""What a concept is called where nobody said; `perdure evaluate` calls it so too."""

_CIFC = (  # in the order of its ten tasks: folder, class noun, how prompts speak of it
    ("dog", "dog", "{}"),
    ("duck_toy", "duck toy", "{}"),
    ("cat", "cat", "{}"),
    ("backpack", "backpack", "{}"),
    ("teddybear", "teddy bear", "{}"),
    ("painting", "painting", "a picture in {} style"),
    ("dog2", "dog", "{}"),
    ("drawing", "drawing", "a picture in {} style"),
    ("cat2", "cat", "{}"),
    ("ink_painting", "ink painting", "a picture in {} style"),
)


class Layout(NamedTuple):
    """A data set's layout on disk."""

    what: str
    """One line for `perdure bench --list`."""
    read: Callable[[Path], list[Photographed]]
    """The folder -> its concepts, in the stream's order."""


def photographed(name: str, folder: Path) -> Stream:
    """The stream of the pictures in ``folder``, which is laid out as ``name`` says (of `LAYOUTS`).

    A `folders` stream bears its folder's name too, so that the records of two do not mix.
    PerdureError for whatever is missing, cut short or named twice.
    """
    if name not in LAYOUTS:
        raise PerdureError(f"There is no layout {name!r}: choose from {', '.join(LAYOUTS)}.")
    folder = folder.expanduser()
    if not folder.is_dir():
        raise PerdureError(f"{folder} is no folder: give --photos the one that holds the pictures.")
    found = LAYOUTS[name].read(folder)
    concepts = [replace(one, name=composed(one.name)) for one in found]
    seen: dict[str, str] = {}
    for one in concepts:
        check_concept_name(one.name)
        if twin := seen.get(caseless(one.name)):
            raise PerdureError(
                f"{folder} has two concepts of one name, {twin} and {one.name} (capitals do not"
                " count): rename one, or take it out."
            )
        seen[caseless(one.name)] = one.name
    return Stream(
        name=f"{name}-{folder.resolve().name}" if name == "folders" else name,
        concepts=tuple(concepts),
        pictures=max(len(one.files) for one in concepts),
    )


def _folders(folder: Path) -> list[Photographed]:
    homes = sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    if not homes:
        raise PerdureError(f"{folder} has no folders in it: give each concept one of its own.")
    index = folder / "concepts.json"
    nouns = _json(index, dict) if index.exists() else {}
    for name, noun in nouns.items():
        if folder / name not in homes:
            raise PerdureError(
                f"{index} names {name}, which has no folder beside it: add the folder, or take"
                " the name out."
            )
        if not isinstance(noun, str) or not noun:
            raise PerdureError(
                f'{index} has no noun for {name}: write "{name}": "dog" or the like.'
            )
    return [_in_folder(home, nouns.get(home.name, NOUN)) for home in homes]


def _cifc(folder: Path) -> list[Photographed]:
    images = folder / "datasets" / "images"
    return [_in_folder(images / name, noun, phrase) for name, noun, phrase in _CIFC]


def _custom_concept_101(folder: Path) -> list[Photographed]:
    index = folder / "dataset.json"
    concepts = []
    for number, entry in enumerate(_json(index, list), 1):
        try:
            home, noun = _below(folder, entry["instance_data_dir"], index), entry["class_prompt"]
        except (KeyError, TypeError) as error:
            raise PerdureError(
                f"Entry {number} of {index} has no instance_data_dir and class_prompt: take the"
                " file as published."
            ) from error
        concepts.append(_in_folder(home, str(noun)))
    if not concepts:
        raise PerdureError(f"{index} lists no concepts: take the file as it was published.")
    return concepts


def _celeba_hq(folder: Path) -> list[Photographed]:
    index, mapping = folder / "identity_CelebA.txt", folder / "CelebA-HQ-to-CelebA-mapping.txt"
    people = dict(_rows(index, ("file", "identity"), spaces=True, headed=False))
    pictures = defaultdict(list)
    for number, original in _rows(mapping, ("idx", "orig_file"), spaces=True):
        if original not in people:
            raise PerdureError(
                f"{index} does not say who {original} shows, which {mapping.name} names: take both"
                " files whole."
            )
        pictures[people[original]].append(number)
    return [
        _indexed(
            f"person-{identity}",
            "person",
            [_below(folder / "CelebA-HQ-img", f"{number}.jpg", mapping) for number in numbers],
            mapping,
        )
        for identity, numbers in _ten(pictures, "people", mapping).items()
    ]


def _landmarks(folder: Path) -> list[Photographed]:
    kinds, index = folder / "train_label_to_hierarchical.csv", folder / "train.csv"
    waterfalls = {
        landmark
        for landmark, *labels in _rows(
            kinds, ("landmark_id", "hierarchical_label", "supercategory")
        )
        if "waterfall" in " ".join(labels).lower()
    }
    pictures = defaultdict(list)
    for picture, landmark in _rows(index, ("id", "landmark_id")):
        if landmark in waterfalls:
            pictures[landmark].append(picture)
    return [
        _indexed(
            f"waterfall-{landmark}",
            "waterfall",
            [
                _below(folder / "train", "/".join((*name[:3], f"{name}.jpg")), index)
                for name in names
            ],
            index,
        )
        for landmark, names in _ten(pictures, "waterfalls", index).items()
    ]


def _ten(pictures: Mapping[str, list[str]], kind: str, index: Path) -> dict[str, list[str]]:
    """The ten with the most pictures, of equals the lower number first; 15 pictures of each."""
    order = sorted(pictures, key=lambda one: (-len(pictures[one]), *_counted(one)))[:TEN]
    enough = [one for one in order if len(pictures[one]) >= MOST]
    if len(enough) < TEN:
        short = order[len(enough) : len(enough) + 1]
        told = "".join(f"; number {one} comes next with {len(pictures[one])}" for one in short)
        raise PerdureError(
            f"{index} has {len(enough)} {kind} with {MOST} pictures, and {TEN} are needed{told}:"
            " take the file whole."
        )
    return {one: sorted(pictures[one], key=_counted)[:MOST] for one in order}


def _counted(text: str) -> tuple[int, str]:
    """Sorts digits as the numbers that they spell, and names of one length as text."""
    return len(text), text


def _in_folder(home: Path, noun: str, phrase: str = "{}") -> Photographed:
    if not home.is_dir():
        raise PerdureError(
            f"The pictures of {home.name} are missing: put them into {home}, or give --photos the"
            " folder that the data set was unpacked in."
        )
    files, _ = list_pictures(home)
    if len(files) < FEWEST:
        raise PerdureError(
            f"{home} has {len(files)} picture{'s' * (len(files) > 1)}, and a concept of a stream"
            f" needs {FEWEST}: add some, or take the folder out."
        )
    return Photographed(
        name=home.name, noun=noun, phrase=phrase, files=tuple(map(str, files[:MOST]))
    )


def _indexed(name: str, noun: str, files: Sequence[Path], index: Path) -> Photographed:
    for file in files:
        if not file.is_file():
            raise PerdureError(
                f"{index} names a picture that is not there, {file}: unpack the rest of the data"
                " set, or take its line out."
            )
    return Photographed(name=name, noun=noun, files=tuple(map(str, files)))


def _below(folder: Path, name: Any, index: Path) -> Path:
    """A path that an index names; PerdureError where it leads out of the data set."""
    inside = isinstance(name, str) and "\0" not in name and not Path(name).is_absolute()
    if not inside or ".." in Path(name).parts:
        raise PerdureError(
            f"{index} names {name!r}, which is no path below {folder}: take the file as published."
        )
    return folder / name


def _json(path: Path, kind: type) -> Any:
    _check_there(path)
    try:
        found = read_json(path)
    except ValueError as error:
        raise PerdureError(f"{path} is not JSON ({error}): mend it or take it anew.") from error
    if not isinstance(found, kind):
        raise PerdureError(
            f"{path} holds no {'list' if kind is list else 'object of names and nouns'}: see the"
            " layout in docs/benchmarks.md."
        )
    return found


def _rows(
    path: Path, columns: Sequence[str], *, spaces: bool = False, headed: bool = True
) -> Iterator[list[str]]:
    """These columns of a table, row by row: the file may be far larger than what is kept of it."""
    _check_there(path)
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = (line.split() for line in file) if spaces else csv.reader(file)
        heading = next(rows, []) if headed else list(columns)
        if missing := [column for column in columns if column not in heading]:
            raise PerdureError(
                f"{path} has no column {missing[0]} in its first line: take the file as published."
            )
        places = [heading.index(column) for column in columns]
        for number, row in enumerate(rows, 1 + headed):
            if row and len(row) <= max(places):
                raise PerdureError(f"Line {number} of {path} is cut short: take the file anew.")
            if row:
                yield [row[place] for place in places]


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise PerdureError(
            f"{path} is missing: put it there, or give --photos the folder that holds it."
        )


LAYOUTS: dict[str, Layout] = {
    "folders": Layout("your own: a folder of pictures for each concept", _folders),
    "cifc": Layout("the ten concepts of CIFC, three of them styles", _cifc),
    "celeba-hq": Layout("ten people of CelebA-HQ, 15 pictures each", _celeba_hq),
    "landmarks-v2": Layout("ten waterfalls of Google Landmarks v2, 15 pictures each", _landmarks),
    "custom-concept-101": Layout("the 101 concepts of CustomConcept101", _custom_concept_101),
}
"""Every layout by the name of its stream."""
