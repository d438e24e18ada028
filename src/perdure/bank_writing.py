"""One writer of a bank at a time, and sentences for what stops it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from perdure.errors import PerdureError

__all__ = ["WriterLock", "writing_errors"]


class WriterLock:
    """The lock of the bank at `path`. Its file says, for the others' sentence, who holds it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path / ".lock"
        self._lock = FileLock(self._file)

    @contextmanager
    def hold(self, wait: float, verb: str) -> Iterator[bool]:
        """Hold the lock, which may be held already; yields whether it was not. See `Bank.lock`."""
        outermost = not self._lock.is_locked
        with writing_errors(self.path):
            try:
                self._lock.acquire(timeout=wait)
            except Timeout:
                raise PerdureError(
                    f"The bank {self.path} is being written by {self._holder()}: wait until it is"
                    " done, or stop it."
                ) from None
        try:
            if outermost:
                since = datetime.now().astimezone().isoformat(timespec="seconds")
                self._sign(json.dumps({"pid": os.getpid(), "verb": verb, "since": since}))
            yield outermost
        finally:
            if outermost:
                self._sign("")
            self._lock.release()

    def _sign(self, text: str) -> None:
        """Write into the file who holds it; a courtesy, so a failure is no error."""
        if not isinstance(self._lock, FileLock):
            return  # a file system without flock: filelock fell back to a marker that is not ours
        with suppress(OSError):
            self._file.write_text(text)

    def _holder(self) -> str:
        try:
            holder = json.loads(self._file.read_text())
            return f"process {holder['pid']} ({holder['verb']}, since {holder['since']})"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"


@contextmanager
def writing_errors(path: Path) -> Iterator[None]:
    """OSErrors of writing the bank at `path` as PerdureErrors."""
    try:
        yield
    except BrokenPipeError:  # of what is said, not of what is written
        raise
    except OSError as error:
        raise PerdureError(
            f"The bank {path} cannot be written ({error}); what it held is intact: check the disk's"
            " free space and your permissions, and try again."
        ) from error
