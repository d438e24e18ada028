"""Files that outlive a power cut: written, and synced before anything refers to them."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from perdure.errors import PerdureError

__all__ = [
    "is_partial",
    "replace_file",
    "replacing",
    "sync_file",
    "sync_folder",
    "sync_tree",
    "whole_folder",
    "write_file",
    "writing",
]


@contextmanager
def writing(what: Path | str) -> Iterator[None]:
    """What goes wrong in writing a file, or below a folder, as PerdureErrors."""
    try:
        yield
    except BrokenPipeError:  # of what is said, not of what is written
        raise
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise PerdureError(
            f"{what} cannot be written ({why}): check the disk's free space and your permissions,"
            " and try again."
        ) from error


def replace_file(path: Path, data: bytes, *, staged: Path | None = None) -> None:
    """Write a file so that a crash leaves the old one or the new one, whole; see `replacing`."""
    with replacing(path, staged=staged) as partial:
        partial.write_bytes(data)


@contextmanager
def replacing(path: Path, *, staged: Path | None = None) -> Iterator[Path]:
    """A file to write; at the end of the block it is synced and takes the place of `path`.

    It lies in a folder of this process beside `path`, which the next writer sweeps away after a
    crash, or is `staged`, on the same file system; missing folders are made. After an error in the
    block `path` is what it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _beside(path) if staged is None else _staged(staged) as partial:
        yield partial
        sync_file(partial)
        os.replace(partial, path)
        sync_folder(path.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; at the end of the block it is synced and becomes `path`.

    `path` may be an empty folder; after a crash or an error it is what it was. Raises PerdureError
    where it has become another one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _beside(path) as partial:
        partial.mkdir()
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                sync_file(file)
        sync_tree(partial)
        try:
            os.replace(partial, path)  # an empty folder gives way
        except OSError as error:
            if path.is_dir() and any(path.iterdir()):
                raise PerdureError(f"{path} is no longer empty: choose another folder.") from error
            raise
        sync_folder(path.parent)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A path in a folder of this process, with nothing there yet."""
    _sweep(path)
    home = path.with_name(f".{path.name}.{os.getpid()}.partial")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    try:
        yield home / path.name
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _staged(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    yield path


def is_partial(path: Path) -> bool:
    """Is it what `replacing` makes, and a crash leaves?"""
    return path.name.startswith(".") and path.name.endswith(".partial")


def _sweep(path: Path) -> None:
    """Delete what processes left that were killed while they wrote this file."""
    if os.name == "nt":  # which cannot ask whether a process is there
        return
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with suppress(ValueError, PermissionError):
            try:
                os.kill(int(left.name.split(".")[-2]), 0)
            except ProcessLookupError:
                shutil.rmtree(left, ignore_errors=True)


def write_file(path: Path, data: bytes) -> None:
    """Write a file and sync it; missing folders are made, and not synced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    sync_file(path)


def sync_file(path: Path) -> None:
    """Make a file's contents last."""
    with path.open("r+b") as file:  # Windows syncs no file that is open for reading alone
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make the renames in a folder last; Windows cannot open folders."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(path: Path) -> None:
    """Make the names in a folder, and in all below it, last."""
    for child in sorted(path.rglob("*")):
        if child.is_dir():
            sync_folder(child)
    sync_folder(path)
