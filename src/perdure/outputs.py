"""Folders that a user names for what is written."""

from __future__ import annotations

import os
from pathlib import Path

from perdure.errors import PerdureError

__all__ = ["output_folder"]


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
