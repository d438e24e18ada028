"""One interruption: a child process that is killed, or whose disk fails; then what it left."""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import random
import select
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scenes import Scene

from perdure.errors import PerdureError

__all__ = ["FAILURES", "Failure", "Stage", "Trial"]

CREATE, WRITE, SYNC, RENAME, FOLDER, DELETE, LOCK = 1, 2, 4, 8, 16, 32, 64
EVERY = CREATE | WRITE | SYNC | RENAME | FOLDER | DELETE
ONCE, FROM_THEN_ON, SHORT, KILL = range(4)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """How operations fail."""

    number: int
    mode: int
    kinds: int = EVERY


FAILURES = {
    "no space left": Failure(number=errno.ENOSPC, mode=FROM_THEN_ON, kinds=CREATE | WRITE | FOLDER),
    "an I/O error": Failure(number=errno.EIO, mode=ONCE),
    "short writes": Failure(number=0, mode=SHORT),
    "a read-only folder": Failure(
        number=errno.EROFS, mode=FROM_THEN_ON, kinds=CREATE | RENAME | FOLDER | DELETE
    ),
    "a rename across devices": Failure(number=errno.EXDEV, mode=ONCE, kinds=RENAME),
    "SIGKILL before an operation": Failure(number=0, mode=KILL),
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of one interruption."""

    scene: str
    how: str
    ended: str
    """`killed`, `done`, `refused` or `raised`."""
    new: bool
    """Was it the new state already?"""
    fault: str = ""
    """What should not have been; empty where all was well."""


class Stage:
    """A scene, made ready once, and interrupted as often as one likes."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        self.scene, self.folder = scene, folder
        self._counts: dict[int, int] = {}
        self.start, self.here = folder / "start", folder / "here"
        scene.prepare(self.start)
        self.old = scene.state(self.start)
        shutil.copytree(self.start, self.here)
        began = time.monotonic()
        status, said = in_child(lambda: scene.act(self.here))
        if status != 0:
            raise RuntimeError(f"{scene.name} fails by itself: {said}")
        self.length = time.monotonic() - began
        self.new = scene.state(self.here)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def killed(self, rng: random.Random) -> Trial:
        """SIGKILL at a random instant of the act."""
        self._reset()
        share = rng.uniform(0, 1.05)
        delay = share * self.length
        status, _ = in_child(lambda: self.scene.act(self.here), killed_after=delay)
        ended = "killed" if status == -signal.SIGKILL else "done"
        return self._after(f"SIGKILL at any time at {delay:.3f} s of {self.length:.3f}", ended)

    def operations(self, kinds: int = EVERY) -> int:
        """How many of these the act does."""
        if kinds not in self._counts:
            self._reset()
            _, said = in_child(lambda: self._armed(-1, Failure(number=0, mode=ONCE, kinds=kinds)))
            self._counts[kinds] = int(said)
        return self._counts[kinds]

    def failed(self, k: int, name: str) -> Trial:
        """The k-th operation fails."""
        self._reset()
        status, said = in_child(lambda: self._armed(k, FAILURES[name]))
        how = (
            f"{name} at operation {k}"
            if name != "SIGKILL"
            else f"SIGKILL in an operation at operation {k}"
        )
        if status == -signal.SIGKILL:
            return self._after(how, "killed")
        if status == 0:
            return self._after(how, "done")
        if status == 2:
            fault = "" if "\n" not in said.strip() else f"more than a sentence: {said}"
            return self._after(how, "refused", fault)
        return self._after(how, "raised", said)

    def _armed(self, k: int, failure: Failure) -> int:
        library = ctypes.CDLL(os.environ["LD_PRELOAD"])
        library.fault_arm.argtypes = [ctypes.c_char_p, ctypes.c_long] + [ctypes.c_int] * 3
        folder = os.fsencode(self.here.resolve())
        library.fault_arm(folder, k, failure.number, failure.mode, failure.kinds)
        try:
            self.scene.act(self.here)
        finally:
            count = int(library.fault_disarm())
        return count

    def _reset(self) -> None:
        shutil.rmtree(self.here, ignore_errors=True)
        shutil.copytree(self.start, self.here)

    def _after(self, how: str, ended: str, fault: str = "") -> Trial:
        """The old state or the new one; then the user goes on, and it is the new one, and tidy."""
        new = False
        try:
            state = self.scene.state(self.here)
            new = state == self.new
            if state not in (self.old, self.new):
                fault = fault or "neither the old state nor the new one"
            self.scene.finish(self.here)
            if self.scene.state(self.here) != self.new:
                fault = fault or "what came of going on differs"
            if left := self.scene.tidy(self.here):
                fault = fault or f"left about: {left}"
        except Exception:
            fault = fault or traceback.format_exc()
        return Trial(scene=self.scene.name, how=how, ended=ended, new=new, fault=fault)


def in_child(act: Callable[[], object], *, killed_after: float | None = None) -> tuple[int, str]:
    """(exit status, what it said) of a forked process: 0, 2 for a PerdureError, 3 for another one,
    or minus the signal that ended it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status, said = 0, ""
        try:
            os.close(reading)
            said = str(act())
        except PerdureError as error:
            status, said = 2, str(error)
        except BaseException:
            status, said = 3, traceback.format_exc()
        os.write(writing, pickle.dumps(said[-6000:]))
        os._exit(status)
    os.close(writing)
    if killed_after is not None and not select.select([reading], [], [], killed_after)[0]:
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), pickle.loads(said) if said else ""
