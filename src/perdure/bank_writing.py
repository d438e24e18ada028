"""One writer of a bank at a time, and sentences for what stops it."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from perdure.durable import of_the_system
from perdure.errors import PerdureError

try:
    import fcntl
except ImportError:  # Windows, whose file systems have locks
    fcntl = None  # type: ignore[assignment]

__all__ = ["MARKER", "WriterLock", "writing_errors"]

MARKER = ".lock.owner"
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}


class WriterLock:
    """The lock of the bank at `path`. Its file says, for the others' sentence, who holds it.

    Where the file system has no locks (some network mounts), a marker stands for it, which names
    its owner and is taken over where that process is dead.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file, self._marker = path / ".lock", path / MARKER
        self._lock: BaseFileLock | None = None

    @contextmanager
    def hold(self, wait: float, verb: str) -> Iterator[bool]:
        """Hold the lock, which may be held already; yields whether it was not. See `Bank.lock`."""
        if math.isnan(wait):
            raise PerdureError(
                "wait is nan, but must be seconds: a negative number waits for ever."
            )
        with writing_errors(self.path):
            lock = self._lock = self._lock or self._made()
            outermost = not lock.is_locked
            try:
                lock.acquire(timeout=wait)
            except Timeout:
                raise PerdureError(
                    f"The bank {self.path} is being written by {self._holder()}: wait until it is"
                    f" done, or stop it{self._otherwise()}."
                ) from None
        try:
            if outermost:
                since = datetime.now().astimezone().isoformat(timespec="seconds")
                self._sign(json.dumps({"pid": os.getpid(), "verb": verb, "since": since}))
            yield outermost
        finally:
            if outermost:
                self._sign("")
            lock.release()

    def _made(self) -> BaseFileLock:
        if fcntl is not None:
            file = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    return SoftFileLock(self._marker)
            finally:
                os.close(file)
        return FileLock(self._file)

    def _otherwise(self) -> str:
        soft = isinstance(self._lock, SoftFileLock)
        return f"; if there is none any more, delete {self._marker}" if soft else ""

    def _sign(self, text: str) -> None:
        """Write into the file who holds it; a courtesy, so a failure is no error."""
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
    except Exception as error:
        if isinstance(error, PerdureError) or not of_the_system(error):
            raise
        raise PerdureError(
            f"The bank {path} cannot be written ({error}); what it held is intact: check the disk's"
            " free space and your permissions, and try again."
        ) from error
