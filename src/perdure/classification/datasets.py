"""Readers of published data: CIFAR-100, ImageNet-R, and any tree with a folder for each class."""

from __future__ import annotations

import random
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np

from perdure.classification.labelled import EncodedPictures, Split
from perdure.errors import PerdureError

__all__ = ["Read", "cifar_100", "folder_tree", "imagenet_r"]

Read = tuple[tuple[str, ...], Split, Split]
"""Names of the classes, pictures to train, pictures to test."""

_ENDINGS = (".jpeg", ".jpg", ".png", ".bmp", ".webp")
_TESTS = ("test", "val")
_SPLIT_SEED = 0
_MOST_UNPACKED = 20
"""Times a zip file's own size: pictures are compressed already."""
_RECORD = 2 + 3 * 32 * 32


def folder_tree(path: Path) -> Read:
    """`train/<class>/<picture>` and `test/` or `val/` alike, in a folder or in a zip file.

    Of a plain `<class>/<picture>`, every class's files are shuffled with a fixed seed, and the last
    fifth (at least one) tests. The bytes of a zip's pictures are held in memory, decoded when they
    are looked at.
    """
    sources = _zipped(path) if path.is_file() else _in_folder(path)
    trees: dict[str, dict[str, list[str]]] = {}
    plain: dict[str, list[str]] = {}
    for name in sorted(sources):
        parts = PurePosixPath(name).parts
        if len(parts) == 3:
            trees.setdefault(parts[0], {}).setdefault(parts[1], []).append(name)
        elif len(parts) == 2:
            plain.setdefault(parts[0], []).append(name)
    if plain and "train" not in trees:
        trees = _parted(path, plain)
    tests = [kind for kind in _TESTS if kind in trees]
    if "train" not in trees or not tests:
        raise PerdureError(
            f"{path} is no tree of classes: it needs train/<class>/ and test/<class>/ (or val/), "
            "or just <class>/, with picture files in them."
        )
    train, test = trees["train"], trees[tests[0]]
    if odd := sorted(set(train) ^ set(test)):
        has = "train" if odd[0] in train else tests[0]
        raise PerdureError(
            f"{path}: the class {odd[0]} is in {has} alone: every class needs pictures to train "
            "and pictures to test."
        )
    classes = tuple(sorted(train))
    return classes, _split(path, classes, train, sources), _split(path, classes, test, sources)


def cifar_100(path: Path) -> Read:
    """The binary version as published: `train.bin`, `test.bin`, `fine_label_names.txt`.

    A record is a coarse label, a fine label and 3 x 32 x 32 bytes; the fine labels are the classes.
    """
    inner = path / "cifar-100-binary"
    folder = inner if inner.is_dir() else path
    if not (folder / "train.bin").exists():
        if (folder / "train").is_file() or (path / "cifar-100-python").is_dir():
            raise PerdureError(
                f"{path} is CIFAR-100's Python version, whose pickles are not opened here: take "
                "the binary version (cifar-100-binary.tar.gz)."
            )
        raise PerdureError(f"{path} has no train.bin: give the folder cifar-100-binary.")
    try:
        text = (folder / "fine_label_names.txt").read_text(encoding="utf-8")
    except OSError as error:
        raise PerdureError(f"{folder} has no fine_label_names.txt: unpack it again.") from error
    classes = tuple(text.split())
    return classes, _records(folder / "train.bin"), _records(folder / "test.bin")


def imagenet_r(path: Path) -> Read:
    """`<wnid>/<picture>` as published, split into four fifths to train and one to test.

    CODA-Prompt's split is two lists in its repository (`dataloaders/splits/imagenet-r_train.yaml`
    and `..._test.yaml`): where they lie in the folder, they are followed, by the last two parts of
    each path. Otherwise all files, sorted by class and name, are shuffled with a fixed seed and the
    first 80 % train [ours]: same sizes, other pictures.
    """
    inner = path / "imagenet-r"
    folder = inner if inner.is_dir() else path
    sources = {
        f"{file.parent.name}/{file.name}": file
        for file in sorted(folder.glob("*/*"))
        if file.suffix.lower() in _ENDINGS
    }
    if not sources:
        raise PerdureError(f"{path} holds no <class>/<picture>: unpack imagenet-r.tar there.")
    lists = [folder / f"imagenet-r_{kind}.yaml" for kind in ("train", "test")]
    if all(one.exists() for one in lists):
        names = [_listed(one, sources) for one in lists]
    else:
        shuffled = sorted(sources)
        random.Random(_SPLIT_SEED).shuffle(shuffled)
        cut = int(0.8 * len(shuffled))
        names = [shuffled[:cut], shuffled[cut:]]
    classes = tuple(sorted({name.partition("/")[0] for name in sources}))
    number = {name: index for index, name in enumerate(classes)}
    train, test = (
        Split(
            pictures=EncodedPictures([sources[name] for name in some], some),
            labels=np.array([number[name.partition("/")[0]] for name in some]),
        )
        for some in names
    )
    return classes, train, test


def _parted(path: Path, classes: dict[str, list[str]]) -> dict[str, dict[str, list[str]]]:
    """Four fifths of every class to train, the rest to test."""
    trees: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for name, files in classes.items():
        if len(files) < 2:
            raise PerdureError(
                f"{path}: the class {name} has one picture: give two at least, one to test."
            )
        shuffled = list(files)
        random.Random(_SPLIT_SEED).shuffle(shuffled)
        cut = min(len(files) - 1, round(0.8 * len(files)))
        trees["train"][name], trees["test"][name] = sorted(shuffled[:cut]), sorted(shuffled[cut:])
    return trees


def _in_folder(path: Path) -> dict[str, bytes | Path]:
    return {
        file.relative_to(path).as_posix(): file
        for file in (*path.glob("*/*"), *path.glob("*/*/*"))
        if file.suffix.lower() in _ENDINGS
    }


def _zipped(path: Path) -> dict[str, bytes | Path]:
    try:
        with zipfile.ZipFile(path) as archive:
            parts = [p for p in archive.infolist() if p.filename.lower().endswith(_ENDINGS)]
            size, claimed = path.stat().st_size, sum(part.file_size for part in parts)
            if claimed > _MOST_UNPACKED * size:
                raise PerdureError(
                    f"{path} has {size} bytes and claims {claimed} of pictures, and is not"
                    " unpacked, for it may be a decompression bomb: give a folder instead."
                )
            return {part.filename: archive.read(part) for part in parts}
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, ValueError) as error:
        raise PerdureError(f"{path} is not a readable zip file ({error}).") from error


def _split(
    path: Path,
    classes: Iterable[str],
    files: dict[str, list[str]],
    sources: dict[str, bytes | Path],
) -> Split:
    names = [(number, name) for number, one in enumerate(classes) for name in files[one]]
    pictures = EncodedPictures(
        [sources[name] for _, name in names], [f"{path}: {name}" for _, name in names]
    )
    return Split(pictures=pictures, labels=np.array([number for number, _ in names]))


def _records(path: Path) -> Split:
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise PerdureError(f"{path} cannot be read ({error}): unpack it again.") from error
    if not len(data) or len(data) % _RECORD:
        raise PerdureError(
            f"{path} has {len(data)} bytes, which is no number of records of {_RECORD}: "
            "unpack it again."
        )
    records = data.reshape(-1, _RECORD)
    pixels = records[:, 2:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Split(pictures=list(np.ascontiguousarray(pixels)), labels=records[:, 1].astype(np.int64))


def _listed(path: Path, sources: dict[str, Path]) -> list[str]:
    """The paths under `data:` of one of CODA-Prompt's lists, as `<class>/<picture>`."""
    names = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("targets:"):
            break
        if line.startswith("- "):
            names.append("/".join(PurePosixPath(line[2:].strip()).parts[-2:]))
    for name in names:
        if name not in sources:
            raise PerdureError(f"{path} lists {name}, which is not in {path.parent}.")
    return names
