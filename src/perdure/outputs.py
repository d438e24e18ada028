"""Where a user's files go: folders that can be written, and names that nothing has yet."""

from __future__ import annotations

import os
import re
from pathlib import Path

from perdure.errors import PerdureError

__all__ = ["first_free_number", "output_folder", "possible_folder"]


def possible_folder(path: Path | str) -> Path:
    """The folder, not made yet; PerdureError where it cannot be or cannot be written.

    Called before the work whose results go there, so that a refused one leaves nothing behind.
    """
    path = Path(path)
    for part in (path, *path.parents):
        if part.exists() and not part.is_dir():
            raise PerdureError(
                f"{path} cannot be a folder, for {part} is a file: choose another folder."
            )
    there = next(part for part in (path, *path.absolute().parents) if part.exists())
    if not os.access(there, os.W_OK):
        raise PerdureError(
            f"The folder {there} cannot be written: choose another, or change its permissions."
        )
    return path


def output_folder(path: Path | str) -> Path:
    """The folder, made where it is missing; PerdureError as `possible_folder`."""
    path = possible_folder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PerdureError(
            f"The folder {path} cannot be made ({error.strerror}): choose another folder."
        ) from error
    return path


def first_free_number(folder: Path) -> int:
    """One more than the greatest number that a name in the folder begins with; 0 in a new one."""
    numbers = (re.match(r"[0-9]+", path.name) for path in folder.iterdir())
    return 1 + max((int(number[0]) for number in numbers if number), default=-1)
