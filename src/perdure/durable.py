"""Files that outlive a power cut: written, and synced before anything refers to them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from perdure.errors import PerdureError

__all__ = [
    "is_partial",
    "of_the_system",
    "replace_file",
    "replacing",
    "replacing_from_folder",
    "sync_file",
    "sync_folder",
    "sync_tree",
    "whole_folder",
    "write_file",
    "writing",
]

_PARTIAL = ".perdure-partial"


def of_the_system(error: Exception) -> bool:
    """Is it a file operation that failed, in Python or in a library of Rust's? Those raise errors
    of their own, and of no kind at all, that end so."""
    broken_pipe = isinstance(error, BrokenPipeError)  # of what is said, not of what is written
    return (isinstance(error, OSError) and not broken_pipe) or "(os error " in str(error)


@contextmanager
def writing(what: Path | str) -> Iterator[None]:
    """What goes wrong in writing a file, or below a folder, as PerdureErrors."""
    try:
        yield
    except Exception as error:
        if isinstance(error, PerdureError) or not of_the_system(error):
            raise
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

    It lies beside `path`, under a name of this process's own, or is `staged`, on the same file
    system; missing folders are made. After an error in the block `path` is what it was; what a
    crash leaves, the next writer in that folder sweeps away.
    """
    for file in (path, staged or path):
        file.parent.mkdir(parents=True, exist_ok=True)
    with _beside(path) if staged is None else nullcontext(staged) as partial:
        yield partial
        sync_file(partial)
        os.replace(partial, path)
    sync_folder(path.parent)


@contextmanager
def replacing_from_folder(path: Path) -> Iterator[Path]:
    """As `replacing`, for a writer that makes files of its own beside the one that it writes: they
    are in a folder together."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _beside(path) as home:
        home.mkdir()
        yield home / path.name
        sync_file(home / path.name)
        os.replace(home / path.name, path)
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
    """A path of this process's own, with nothing there before and nothing left there after."""
    _sweep(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")
    _delete(partial)
    try:
        yield partial
    finally:
        _delete(partial)


def is_partial(path: Path) -> bool:
    """Is it what a crash leaves of a file or folder that was being written here?"""
    return path.name.startswith(".") and path.name.endswith(_PARTIAL)


def _sweep(folder: Path) -> None:
    """Delete what processes left that were killed while they wrote in this folder."""
    if os.name == "nt":  # which cannot ask whether a process is there
        return
    for left in folder.glob(f".*{_PARTIAL}"):
        with suppress(ValueError, PermissionError):
            try:
                os.kill(int(left.name.removesuffix(_PARTIAL).rpartition(".")[2]), 0)
            except ProcessLookupError:
                _delete(left)


def _delete(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


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
