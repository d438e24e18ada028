"""Where a user's files go: folders that can be written, and names that nothing has yet."""

from __future__ import annotations

import os
import re
from pathlib import Path

from perdure.errors import PerdureError

__all__ = ["first_free_number", "output_folder"]


def output_folder(path: Path | str) -> Path:
    """The folder, made where it is missing; PerdureError where it cannot be or cannot be written.

    Called before the work whose results go there.
    """
    path = Path(path)
    for part in (path, *path.parents):
        if part.exists() and not part.is_dir():
            raise PerdureError(
                f"{path} cannot be a folder, for {part} is a file: choose another folder."
            )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PerdureError(
            f"The folder {path} cannot be made ({error.strerror}): choose another folder."
        ) from error
    if not os.access(path, os.W_OK):
        raise PerdureError(
            f"The folder {path} cannot be written: choose another, or change its permissions."
        )
    return path


def first_free_number(folder: Path) -> int:
    """One more than the greatest number that a name in the folder begins with; 0 in a new one."""
    numbers = (re.match(r"[0-9]+", path.name) for path in folder.iterdir())
    return 1 + max((int(number[0]) for number in numbers if number), default=-1)
