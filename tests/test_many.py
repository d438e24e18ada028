"""Concepts learned one by one, in another order, at once, and after a kill: the same bank."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from perdure.bank import Bank
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.learning.learn import learn, resume
from perdure.learning.many import learn_many, resume_many
from perdure.learning.request import discard, interrupted
from perdure.methods import METHODS

NAMES = ("ada", "bo", "cy")
FAST: dict[str, Any] = {"steps": 3, "checkpoint_every": 1}
OPTIONS: dict[str, dict[str, Any]] = {
    "fl2t": {"rank": 2, "width": 8, "heads": 2, "together_steps": 2},
    "lora-independent": {"rank": 2},
}


@pytest.fixture(scope="module")
def opener(tiny: Path) -> Any:
    torch.set_num_threads(1)
    return functools.partial(Base.open, tiny, device="cpu")


def asked(method: str) -> dict[str, Any]:
    return {"method": method, "options": OPTIONS.get(method, {}), **FAST}


def contents(path: Path) -> dict[str, bytes]:
    """Every tensor of every task, by concept."""
    bank = Bank.open(path)
    tensors = {
        f"{names[0]}/{key}": tensor.numpy().tobytes()
        for names, kept in bank.kept()
        for key, tensor in kept.items()
    }
    tokens = bank.tokens().items()
    return tensors | {f"{name}/row": token.rows.numpy().tobytes() for name, token in tokens}


@pytest.mark.parametrize(
    "method",
    [
        pytest.param("custom-diffusion-merged", marks=pytest.mark.slow),
        "fl2t",
        pytest.param("textual-inversion", marks=pytest.mark.slow),
    ],
)
def test_one_by_one_in_another_order_and_at_once_give_the_same_tasks_to_the_bit(
    method: str, opener: Any, drawings: Path, tmp_path: Path
) -> None:
    base = opener()
    for name in NAMES:
        learn(base, tmp_path / "one", {name: drawings / name}, **asked(method))
    for name in NAMES[::-1]:
        learn(base, tmp_path / "other", {name: drawings / name}, **asked(method))
    order = {name: drawings / name for name in ("bo", "ada", "cy")}
    records = learn_many(opener, tmp_path / "many", order, processes=2, **asked(method))
    assert [record.concepts for record in records] == [("bo",), ("ada",), ("cy",)]
    assert Bank.open(tmp_path / "many").concepts == ("bo", "ada", "cy")
    assert contents(tmp_path / "one") == contents(tmp_path / "other") == contents(tmp_path / "many")
    assert not Bank.open(tmp_path / "many").workspace.exists()
    tokens = Bank.open(tmp_path / "one").tokens()
    assert not torch.equal(tokens["ada"].rows, tokens["bo"].rows)
    together = Bank.open(tmp_path / "many").composition()
    proxies = {key for key in together if key.startswith("proxy/")}
    assert proxies == ({f"proxy/{name}" for name in NAMES} if method == "fl2t" else set())


def test_a_kill_in_the_middle_keeps_what_is_committed_and_the_rest_is_learned_later(
    opener: Any, drawings: Path, tmp_path: Path
) -> None:
    pictures = {name: drawings / name for name in NAMES}
    settings = asked("lora-independent")
    for name in NAMES:
        learn(opener(), tmp_path / "whole", {name: drawings / name}, **settings)
    path = tmp_path / "cut"
    child = multiprocessing.get_context("fork").Process(
        target=learn_many,
        args=(opener, path, pictures),
        kwargs={"processes": 1, **settings, "steps": 3},
    )
    child.start()
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if (path / "bank.json").exists() and Bank.open(path).concepts:
            break
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)  # type: ignore[arg-type]
    child.join()
    kept = Bank.open(path).concepts
    assert kept in (("ada",), ("ada", "bo"))
    assert interrupted(Bank.open(path)) == NAMES
    with pytest.raises(PerdureError, match="interrupted.*--resume"):
        learn(opener(), path, {"zoe": drawings / "ada"}, **FAST)
    with pytest.raises(PerdureError, match="resume_many"):
        resume(opener(), path)
    time.sleep(2)  # the process that it left behind ends itself
    resume_many(opener, path, processes=1)
    assert Bank.open(path).concepts == NAMES
    assert contents(path) == contents(tmp_path / "whole")
    with pytest.raises(PerdureError, match="Nothing was interrupted"):
        resume_many(opener, path)


def test_a_concept_that_cannot_be_learned_leaves_the_ones_before_it(
    opener: Any, drawings: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.png").write_bytes(b"no picture")
    path = tmp_path / "bank"
    pictures = {"ada": drawings / "ada", "bad": broken}
    with pytest.raises(PerdureError, match=r"a\.png"):
        learn_many(opener, path, pictures, processes=1, **asked("textual-inversion"))
    assert Bank.open(path).concepts == ("ada",)
    discard(path)
    assert interrupted(Bank.open(path)) == ()


def test_a_method_whose_tasks_build_on_one_another_is_refused(
    opener: Any, drawings: Path, tmp_path: Path
) -> None:
    assert {name for name in METHODS if METHODS[name].independent} == {
        "custom-diffusion-merged",
        "fl2t",
        "gated",
        "lora-independent",
        "lora-merged",
        "textual-inversion",
    }
    with pytest.raises(PerdureError, match="c-lora learns every task on top"):
        learn_many(opener, tmp_path / "bank", {"ada": drawings / "ada"}, method="c-lora", **FAST)
    with pytest.raises(PerdureError, match="joint learns all concepts in one task"):
        learn_many(opener, tmp_path / "bank", {"ada": drawings / "ada"}, method="joint", **FAST)
    with pytest.raises(PerdureError, match="processes is 0"):
        learn_many(opener, tmp_path / "bank", {"ada": drawings / "ada"}, processes=0)


def test_without_ray_a_cluster_is_refused_in_a_sentence(
    opener: Any, drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    settings = asked("lora-independent")
    with pytest.raises(PerdureError, match=r"perdure\[ray\]"):
        learn_many(opener, tmp_path, {"ada": drawings / "ada"}, ray="auto", **settings)
