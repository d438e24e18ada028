"""Joint learning: one task, one adapter, as many passes over each concept's pictures as alone."""

from pathlib import Path

import pytest
import torch

from perdure.bank import Bank
from perdure.benchmarks.records import numbers, read_records
from perdure.benchmarks.runner import finish
from perdure.benchmarks.runs import Run, run
from perdure.benchmarks.streams import Photographed, Stream
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.learning.learn import at_once, learn
from perdure.learning.request import interrupted
from perdure.methods import Kept, build

FAST = {"steps": 2, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def base(tiny: Path) -> Base:
    torch.set_num_threads(1)
    return Base.open(tiny, device="cpu")


def test_joint_refuses_a_second_task_with_one_sentence() -> None:
    method, shapes = build("joint", rank=1), {"k": (2, 3)}
    rows = {"rex": torch.ones(3), "ada": torch.ones(3)}
    learner = method.start(shapes, [], rows, torch.Generator())
    assert learner.concepts == ("rex", "ada")
    task = Kept(("rex", "ada"), method.keep(learner))
    with pytest.raises(ValueError, match="has had its task.*<rex>, <ada>.*in a new bank"):
        method.start(shapes, [task], {"bo": torch.ones(3)}, torch.Generator())


def test_a_bank_that_has_had_its_task_is_refused_and_stays_as_it_is(
    base: Base, drawings: Path, tmp_path: Path
) -> None:
    two = {name: drawings / name for name in ("ada", "bo")}
    learn(base, tmp_path / "bank", two, method="joint", options={"rank": 2}, **FAST)
    with pytest.raises(PerdureError, match="joint cannot start: .*<ada>, <bo>.*new bank"):
        learn(base, tmp_path / "bank", {"cy": drawings / "cy"}, **FAST)
    bank = Bank.open(tmp_path / "bank")
    assert bank.concepts == ("ada", "bo") and len(bank.tasks) == 1
    assert interrupted(bank) == ()


def test_a_stream_is_one_task_with_the_steps_of_all(
    tiny: Path, drawings: Path, tmp_path: Path
) -> None:
    stream = Stream(
        name="three",
        concepts=tuple(
            Photographed(
                name=name,
                noun="person",
                files=tuple(str(path) for path in sorted((drawings / name).iterdir())),
            )
            for name in ("ada", "bo", "cy")
        ),
    )
    cell = Run(
        record=tmp_path / "records" / "joint.json",
        work=tmp_path / "work",
        stream=stream,
        method="joint",
        options={"rank": 2},
        settings=FAST,
        base=str(tiny),
        pictures=2,
    )
    for _ in range(2):  # the second finds the task learned
        finish(cell, run)
        bank = Bank.open(cell.work / "bank")
        assert [task.concepts for task in bank.tasks] == [("ada", "bo", "cy")]
    (record,) = read_records(cell.record.parent)
    assert record.data["settings"]["steps"] == 6
    told = numbers(record)
    assert "forgetting" not in told and told["after"] == told["final"]
    assert told["seconds"] == pytest.approx(record.data["seconds"][0] / 3)


def test_the_name_of_the_method_or_the_bank_says_whether_all_is_learned_at_once(
    base: Base, drawings: Path, tmp_path: Path
) -> None:
    assert at_once(tmp_path / "bank", "joint") is True
    assert at_once(tmp_path / "bank", "lora") is False
    assert at_once(tmp_path / "bank") is False
    learn(base, tmp_path / "bank", {"ada": drawings / "ada"}, method="joint", **FAST)
    assert at_once(tmp_path / "bank") is True
