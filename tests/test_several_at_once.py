"""Processes and threads on one bank, banks that cannot be written, disks without locks."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from perdure.bank import Bank
from perdure.bank_checking import check_bank
from perdure.drawing.painter import Painter
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.learning.learn import learn
from perdure.learning.removal import remove


@pytest.fixture(scope="module")
def base(tiny: Path) -> Base:
    torch.set_num_threads(1)
    return Base.open(tiny, device="cpu")


@pytest.fixture(scope="module")
def taught(base: Base, drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank of <first> and <bo>; nothing may write into it."""
    path = tmp_path_factory.mktemp("taught") / "bank"
    for name, folder in (("first", "ada"), ("bo", "bo")):
        source = {name: drawings / folder}
        learn(base, path, source, method="gated", options={"rank": 2}, steps=2, lr=1e-2)
    return path


def copied(bank: Path, to: Path) -> Path:
    return shutil.copytree(bank, to)


def learner(base: Base, bank: Path, drawings: Path, *names: str) -> object:
    """Teach concepts one after another, waiting for whoever writes."""
    for name in names:
        learn(base, bank, {name: drawings / "ada"}, wait=60, steps=3, lr=1e-2)
    return names


def reader(base: Base, bank: Path, seconds: float) -> object:
    """Open, verify and draw again and again: how many pictures of one prompt, and what failed."""
    pictures, failed = set(), []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            (picture,) = Painter(base, bank).draw(["<first>"], seeds=[0], steps=1)
            pictures.add(picture.tobytes())
        except PerdureError as error:
            failed.append(str(error))
    return len(pictures), failed


def remover(bank: Path, name: str) -> object:
    """Forget a concept as soon as nobody writes."""
    while True:
        try:
            return remove(bank, name)
        except PerdureError as error:
            if "being written" not in str(error):
                return str(error)
            time.sleep(0.01)


def at_once(*calls: tuple[Any, ...]) -> list[object]:
    """What each call returns, in a forked process of its own."""
    fork = multiprocessing.get_context("fork")
    running = []
    for call, *arguments in calls:
        mine, theirs = fork.Pipe()
        process = fork.Process(target=lambda c, a, p: p.send(c(*a)), args=(call, arguments, theirs))
        process.start()
        running.append((process, mine))
    said = []
    for process, mine in running:
        said.append(mine.recv() if mine.poll(60) else None)
        process.join(10)
        assert process.exitcode == 0
    return said


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_learners_readers_and_a_remover_meet_and_each_sees_a_whole_bank(
    base: Base, taught: Path, drawings: Path, tmp_path: Path
) -> None:
    bank = copied(taught, tmp_path / "bank")
    *_, first, second, left = at_once(
        (learner, base, bank, drawings, "ann", "ben"),
        (learner, base, bank, drawings, "cyd", "dee"),
        (reader, base, bank, 2.0),
        (reader, base, bank, 2.0),
        (remover, bank, "bo"),
    )
    assert first == second == (1, [])
    assert "bo" not in left  # type: ignore[operator]
    assert sorted(Bank.open(bank).concepts) == ["ann", "ben", "cyd", "dee", "first"]
    assert check_bank(bank) == []


def test_a_removal_while_others_draw_leaves_them_their_pictures_or_a_sentence(
    base: Base, taught: Path, tmp_path: Path
) -> None:
    bank = copied(taught, tmp_path / "bank")
    (before,) = Painter(base, bank).draw(["<bo>"], seeds=[0], steps=1)
    early, late = Painter(base, bank), Painter(base, bank)
    early.draw(["<bo>"], seeds=[0], steps=1)  # it has read what it needs
    remove(bank, "bo")
    (after,) = early.draw(["<bo>"], seeds=[0], steps=1)
    assert after.tobytes() == before.tobytes()
    with pytest.raises(PerdureError, match=r"concept.safetensors is missing"):
        late.draw(["<bo>"], seeds=[0], steps=1)


def test_threads_with_a_painter_each_draw_what_one_draws_alone(base: Base, taught: Path) -> None:
    prompts = ["a photo of <first>", "<bo>", "a dog", "<first> and <bo>"]
    alone = {
        text: Painter(base, taught).draw([text], seeds=[3], steps=1)[0].tobytes()
        for text in prompts
    }
    shared = Painter(base, taught)

    def drawn(turn: int) -> tuple[str, bytes]:
        text = prompts[turn % len(prompts)]
        painter = shared if turn % 2 else Painter(base, taught)
        return text, painter.draw([text], seeds=[3], steps=1)[0].tobytes()

    with ThreadPoolExecutor(4) as pool:
        for text, picture in pool.map(drawn, range(16)):
            assert picture == alone[text], text


def test_a_bank_that_cannot_be_written_is_read_and_refuses_to_learn_in_a_sentence(
    base: Base, taught: Path, drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = copied(taught, tmp_path / "bank")
    (bank / ".lock").unlink(missing_ok=True)
    opening = os.open

    def read_only(path: object, flags: int, *rest: int, **more: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and str(bank) in str(path):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opening(path, flags, *rest, **more)  # type: ignore[arg-type]

    before = {path: path.stat().st_mtime_ns for path in bank.rglob("*")}
    monkeypatch.setattr(os, "open", read_only)
    for call in (
        lambda: learn(base, bank, {"cy": drawings / "cy"}, steps=1),
        lambda: remove(bank, "bo"),
    ):
        with pytest.raises(PerdureError, match="Read-only file system.*what it held is intact"):
            call()
    Painter(base, bank).draw(["<first> and <bo>"], seeds=[0], steps=1)
    assert check_bank(bank) == []
    assert {path: path.stat().st_mtime_ns for path in bank.rglob("*")} == before


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_still_has_one_writer_at_a_time(
    number: int,
    base: Base,
    taught: Path,
    drawings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_locks(*args: object) -> None:
        raise OSError(number, errno.errorcode[number])

    monkeypatch.setattr(fcntl, "flock", no_locks)
    bank = copied(taught, tmp_path / "bank")
    refused: list[str] = []

    def other(progress: object) -> None:
        with pytest.raises(PerdureError) as error:
            remove(bank, "bo")
        refused.append(str(error.value))

    learn(base, bank, {"cy": drawings / "cy"}, steps=1, report=other)
    assert f"is being written by process {os.getpid()} (learn" in refused[0]
    assert "delete" in refused[0] and str(bank / ".lock.owner") in refused[0]
    gone = subprocess.Popen(["true"])
    gone.wait()
    start = "1"
    (bank / ".lock.owner").write_text(f"{gone.pid}\n{socket.gethostname()}\n{start}\n")
    remove(bank, "bo")
    assert Bank.open(bank).concepts == ("first", "cy") and check_bank(bank) == []
