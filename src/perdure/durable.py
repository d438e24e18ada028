"""Files that outlive a power cut: written, and synced before anything refers to them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replace_file", "replacing", "sync_file", "sync_folder", "sync_tree", "write_file"]


def replace_file(path: Path, data: bytes, *, staged: Path | None = None) -> None:
    """Write a file so that a crash leaves the old one or the new one, whole; see `replacing`."""
    with replacing(path, staged=staged) as partial:
        partial.write_bytes(data)


@contextmanager
def replacing(path: Path, *, staged: Path | None = None) -> Iterator[Path]:
    """A file to write; at the end of the block it is synced and takes the place of `path`.

    It lies beside `path`, or is `staged`, on the same file system; missing folders are made. After
    an error in the block `path` is what it was.
    """
    partial = staged or path.with_name(f"{path.name}.partial")
    for file in (path, partial):
        file.parent.mkdir(parents=True, exist_ok=True)
    yield partial
    sync_file(partial)
    os.replace(partial, path)
    sync_folder(path.parent)


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
