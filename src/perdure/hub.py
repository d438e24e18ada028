"""What `hf://user/name` is: a repository on the hub, read through the cache of `huggingface_hub`.

Nothing is contacted but for such a name, or by `perdure push`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub  # its parts are imported when they are first used

from perdure.errors import PerdureError

__all__ = ["HubName", "downloaded", "refusing", "spelt"]

_NAME = re.compile(r"hf:/{1,2}([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?/?")
"""A path keeps but one of the two slashes."""


@dataclass(frozen=True)
class HubName:
    """A repository, and which of its states."""

    repository: str
    """`user/name`."""
    revision: str | None = None
    """A branch, a tag or a commit; None is the newest state."""

    def __str__(self) -> str:
        return f"hf://{self.repository}" + (f"@{self.revision}" if self.revision else "")


def spelt(text: Path | str) -> HubName | None:
    """The repository that a text names; None where it is a path.

    >>> spelt("hf://ada/pets@v1")
    HubName(repository='ada/pets', revision='v1')

    Raises PerdureError for what begins as such a name and is none.
    """
    if not str(text).startswith(("hf:/", "hf:\\")):
        return None
    found = _NAME.fullmatch(str(text).replace("\\", "/"))
    if found is None:
        raise PerdureError(f"{text} is no name on the hub: write it as hf://user/name.")
    return HubName(*found.groups())


def downloaded(name: HubName, files: Sequence[str]) -> Path:
    """The folder in the cache with those of a repository's files that match the patterns; without a
    network what is in the cache already. PerdureError where it cannot be had."""
    with refusing(str(name)):
        return Path(
            huggingface_hub.snapshot_download(
                name.repository, revision=name.revision, allow_patterns=list(files)
            )
        )


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """What the hub says against something, in one sentence."""
    try:
        yield
    except (OSError, ValueError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PerdureError(
            f"{what} cannot be reached on the hub ({said}): check the name, your network, and "
            "`hf auth login` where it is private."
        ) from error
