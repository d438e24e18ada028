"""The one step loop: a run that was cut short ends in the bits of one that was not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from perdure.checkpoint import checkpoint_facts
from perdure.errors import PerdureError
from perdure.hosts.training import Progress, run_steps
from perdure.randomness import generator_of

STEPS = 7


class PlugPulled(Exception):
    pass


class Run:
    """A vector and a gain that learn a noisy target; the gain is in no optimiser's group."""

    def __init__(self, folder: Path, *, size: int = 3) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.vector = nn.Parameter(torch.zeros(size))
        self.gain = nn.Parameter(torch.ones(()), requires_grad=False)
        self.optimizer = torch.optim.AdamW([self.vector], lr=0.1)
        self.rates: list[float] = []
        self.made: list[Progress] = []

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        return {"vector": self.vector, "gain": self.gain}

    def gradients(self, number: int) -> tuple[float, float]:
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        noise = torch.randn(self.vector.shape, generator=generator_of(3, number))
        loss = (self.vector * self.gain - 1 - noise).square().sum()
        penalty = 0.5 * self.vector.square().sum()
        (loss + penalty).backward()
        with torch.no_grad():
            self.gain += 0.25
        return float(loss.detach()), float(penalty.detach())

    def __call__(
        self,
        *,
        stop: int = STEPS + 1,
        gradients: Callable[[int], tuple[float, float]] | None = None,
        **arguments: Any,
    ) -> dict[str, float]:
        def report(progress: Progress) -> None:
            self.made.append(progress)
            if progress.step == stop:
                raise PlugPulled

        given: dict[str, Any] = {
            "steps": STEPS,
            "checkpoint": self.folder / "checkpoint.safetensors",
            "checkpoint_every": 2,
            "log": self.folder / "log.jsonl",
        }
        return run_steps(
            gradients or self.gradients,
            parameters=self.parameters,
            optimizer=self.optimizer,
            share_of_rate=lambda step: 1 / (1 + step),
            norm=lambda: float(self.vector.detach().norm()),
            report=report,
            **{**given, **arguments},
        )

    @property
    def log(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.folder / "log.jsonl").read_text().splitlines()]


def without_time(facts: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in facts.items() if name != "seconds"}


@pytest.fixture
def whole(tmp_path: Path) -> Run:
    run = Run(tmp_path / "whole")
    run()
    return run


@pytest.mark.parametrize("stop", range(1, STEPS + 1))
def test_a_run_that_was_cut_at_any_step_ends_in_the_same_bits(
    stop: int, whole: Run, tmp_path: Path
) -> None:
    cut = Run(tmp_path / "cut")
    with pytest.raises(PlugPulled):
        cut(stop=stop)
    again = Run(tmp_path / "cut")
    facts = again()
    assert torch.equal(again.vector, whole.vector) and torch.equal(again.gain, whole.gain)
    assert without_time(facts) == without_time(Run(tmp_path / "whole")())
    assert again.log == whole.log
    checkpoint = (stop - 1) // 2 * 2  # a step is told before its checkpoint is written
    assert [progress.step for progress in again.made] == list(range(checkpoint + 1, STEPS + 1))


def test_a_finished_run_makes_no_step_and_says_what_its_last_one_said(whole: Run) -> None:
    again = Run(whole.folder)
    facts = again()
    assert not again.made
    last = {name: value for name, value in whole.log[-1].items() if name != "step"}
    assert without_time(facts) == last
    assert torch.equal(again.vector, whole.vector)


def test_seconds_go_on_where_a_run_does(tmp_path: Path) -> None:
    cut = Run(tmp_path / "run")
    with pytest.raises(PlugPulled):
        cut(stop=5)
    path = tmp_path / "run" / "checkpoint.safetensors"
    spent = float(str(checkpoint_facts(path)["seconds"]))
    assert Run(tmp_path / "run")()["seconds"] >= spent > 0


def test_rates_are_the_groups_own_times_the_share_also_after_a_resume(tmp_path: Path) -> None:
    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    whole()
    assert whole.rates == [0.1 * (1 / (1 + step)) for step in range(STEPS)]
    with pytest.raises(PlugPulled):
        cut(stop=3)
    again = Run(tmp_path / "cut")
    again()
    assert again.rates == whole.rates[2:]


@pytest.mark.parametrize("bad", [(float("nan"), 0.0), (0.0, float("inf"))])
def test_a_number_that_is_not_finite_ends_the_run_and_leaves_the_checkpoint_before_it(
    bad: tuple[float, float], tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")

    def gradients(number: int) -> tuple[float, float]:
        return run.gradients(number) if number < 4 else bad

    with pytest.raises(PerdureError, match=r"diverged at step 5 .*: lower lr"):
        run(gradients=gradients)
    before = run.vector.detach().clone()
    assert checkpoint_facts(run.folder / "checkpoint.safetensors")["step"] == 4
    assert [line["step"] for line in run.log] == [1, 2, 3, 4]
    again = Run(tmp_path / "run")
    again(steps=4)
    assert torch.equal(again.vector, before)


def test_a_checkpoint_of_other_facts_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(PlugPulled):
        Run(tmp_path / "run")(stop=4, asked={"lr": 1})
    path = tmp_path / "run" / "checkpoint.safetensors"
    before = path.read_bytes()
    other = Run(tmp_path / "run")
    with pytest.raises(PerdureError, match="is of another task or of other settings"):
        other(asked={"lr": 2})
    assert path.read_bytes() == before
    assert not other.vector.any()
    Run(tmp_path / "run")(asked={"lr": 1})


@pytest.mark.parametrize("asked", [None, {"lr": 1}])
@pytest.mark.parametrize("fault", ["empty", "torn", "text", "folder", "other shape", "no facts"])
def test_a_checkpoint_that_cannot_be_read_is_one_sentence_with_the_mend(
    fault: str, asked: dict[str, int] | None, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run", size=4 if fault == "other shape" else 3)
    with pytest.raises(PlugPulled):
        run(stop=5, asked=asked)
    path = tmp_path / "run" / "checkpoint.safetensors"
    whole = path.read_bytes()
    path.unlink()
    if fault == "folder":
        path.mkdir()
    elif fault == "no facts":
        save_file({"parameter/vector": torch.ones(3)}, path)
    else:
        texts = {"empty": b"", "torn": whole[:-7], "text": b"no tensors at all"}
        path.write_bytes(texts.get(fault, whole))
    log = (tmp_path / "run" / "log.jsonl").read_bytes()
    again = Run(tmp_path / "run")
    with pytest.raises(PerdureError, match="cannot be read: remove it to start anew"):
        again(asked=asked)
    assert not again.made and not again.vector.any()
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == log


def test_lines_after_the_checkpoint_are_cut_by_the_step_that_they_tell(
    whole: Run, tmp_path: Path
) -> None:
    cut = Run(tmp_path / "cut")
    with pytest.raises(PlugPulled):
        cut(stop=5)
    log = tmp_path / "cut" / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[1:]) + '{"step": 6, "lo')  # the first line lost, the last torn
    Run(tmp_path / "cut")()
    assert Run(tmp_path / "cut").log == whole.log[1:]


def test_a_log_that_was_lost_goes_on_with_the_next_step_and_has_none_twice(
    whole: Run, tmp_path: Path
) -> None:
    cut = Run(tmp_path / "cut")
    with pytest.raises(PlugPulled):
        cut(stop=3)
    (tmp_path / "cut" / "log.jsonl").unlink()
    with pytest.raises(PlugPulled):
        Run(tmp_path / "cut")(stop=4)  # steps 3 and 4; step 4's checkpoint was not made
    Run(tmp_path / "cut")()
    assert Run(tmp_path / "cut").log == whole.log[2:]


def test_a_log_without_its_checkpoint_starts_anew(whole: Run) -> None:
    before = whole.log
    (whole.folder / "checkpoint.safetensors").unlink()
    Run(whole.folder)()
    assert whole.log == before


def test_without_files_nothing_is_written(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run(checkpoint=None, log=None)
    assert not list((tmp_path / "run").iterdir())
    assert [progress.step for progress in run.made] == list(range(1, STEPS + 1))
    assert run.made[-1].left == 0
