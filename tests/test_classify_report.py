"""Tables and page of a stream of classes: against numbers by hand, and what must be refused."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from test_bench_report import page
from test_bench_report import record as drawing_record
from typer.testing import CliRunner

from perdure.benchmarks.report import write_results
from perdure.benchmarks.results import read_results
from perdure.classification import FitSettings
from perdure.classification.run import FORMAT, derived
from perdure.cli import app
from perdure.errors import PerdureError
from perdure.measuring.matrix import TaskMatrix

TASKS = ("task 1", "task 2", "task 3")
CLASSES = [["a", "b"], ["c", "d"], ["e", "f"]]


def matrix(rows: list[list[float]]) -> TaskMatrix:
    """Rows as they were measured: of three tasks, or the one of a method that learns at once."""
    return TaskMatrix(
        tasks=[[name] for name in TASKS] if len(rows) > 1 else [TASKS],
        scores={"accuracy": [[*row, *[None] * (3 - len(row))] for row in rows]},
        higher_is_better={"accuracy": True},
    )


def write(
    folder: Path, method: str, rows: list[list[float]], *, seed: int = 0, **changed: object
) -> Path:
    """A record of six classes in three tasks; `changed` replaces what it says."""
    told = matrix(rows)
    data = {
        "format": FORMAT,
        "kind": "classification",
        "method": method,
        "options": {},
        "chosen": {},
        "asked": {
            "data": None,
            "backbone": "smallworld",
            "preprocessing": "backbone",
            "device": "cpu",
        },
        "config": {"rank": 16},
        "settings": FitSettings(epochs=5, seed=seed).to_json(),
        "seed": seed,
        "backbone": {"name": "smallworld", "hash": "0123456789abcdef"},
        "preprocessing": {"size": 64},
        "stream": {"name": "six", "classes": 6, "train": 60, "test": 30},
        "class_order": CLASSES[seed:] + CLASSES[:seed],
        "matrix": json.loads(told.to_json()),
        **derived(told),
        "seconds": [10.0, 20.0, 30.0] if len(rows) > 1 else [60.0],
        "losses": [0.1],
        "norms": [1.0],
        "trained": 1000,
        "stored": 3000,
        "rehearsal_free": method != "replay",
        "peak_memory": 1_500_000_000,
        "versions": {"torch": "2.13.0"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{method}-seed{seed}.json"
    path.write_text(json.dumps(data | changed))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four methods of two seeds each; a seed more has 0.02 more everywhere."""
    out = tmp_path / "six-3-tasks"
    for seed, up in enumerate((0.0, 0.02)):
        falls = [[0.9 + up], [0.3 + up, 0.8 + up], [0.4 + up, 0.1 + up, 0.7 + up]]
        write(out, "lora", falls, seed=seed)
        write(out, "c-lora", [[0.9 + up], [0.7 + up, 0.8 + up], [0.6 + up] * 3], seed=seed)
        write(out, "replay", [[0.9 + up], [0.8 + up] * 2, [0.61 + up] * 3], seed=seed)
        write(out, "joint", [[0.8 + up, 0.7 + up, 0.75 + up]], seed=seed)
    return out


def test_the_table_is_the_mean_and_spread_of_what_a_hand_computes(folder: Path) -> None:
    assert [path.name for path in write_results(folder)] == [
        "results.md",
        "results.tex",
        "results.csv",
        "report.html",
    ]
    text = (folder / "results.md").read_text()
    heads, _, *rows = (
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.partition("\n## ")[0].splitlines()
        if line.startswith("|")
    )
    table = {row[0]: dict(zip(heads, row, strict=True)) for row in rows}
    assert list(table) == ["LoRA, sequential", "C-LoRA", "Replay (not rehearsal-free)", "Joint"]
    lora, c_lora, replay, joint = table.values()
    # the last row's mean: 40, 10, 70 and 42, 12, 72
    assert lora["A_N %"] == "41.00 ± 1.41"
    assert c_lora["A_N %"] == "61.00 ± 1.41" and replay["A_N %"] == "62.00 ± 1.41"
    # ((90) + (30 + 80) / 2 + (40 + 10 + 70) / 3) / 3 = (90 + 55 + 40) / 3, and 2 more
    assert lora["A_mean %"] == "62.67 ± 1.41"
    # CODA-Prompt: ((90 - 30) / 1 + ((30 - 40) + (80 - 10)) / 2) / 2 = (60 + 30) / 2
    assert lora["F_N %"] == "45.00"
    # C-LoRA: ((90 - 70) + ((70 - 60) + (80 - 60)) / 2) / 2 = (20 + 15) / 2
    assert c_lora["F_N %"] == "17.50" and replay["F_N %"] == "**14.50**"
    # best of the past, less the end: ((90 - 40) + (80 - 10)) / 2 and ((90 - 60) + (80 - 60)) / 2
    assert lora["best - last %"] == "60.00" and c_lora["best - last %"] == "25.00"
    assert joint["A_N %"] == "**76.00 ± 1.41**" and joint["F_N %"] == "–"
    assert joint["s a task"] == "20.0" and lora["stored"] == "3,000"
    assert "Replay keeps pictures of earlier classes: it is not rehearsal-free" in text
    assert "Joint learns all classes at once and is the upper bound" in text


def test_differences_are_taken_within_a_seed(tmp_path: Path) -> None:
    for seed, up in enumerate((0.0, 0.2)):
        write(tmp_path, "c-lora", [[0.7], [0.7, 0.7], [0.60 + up] * 3], seed=seed)
        better = 0.64 + 0.02 * seed + up
        write(tmp_path, "stamina", [[0.7], [0.7, 0.7], [better] * 3], seed=seed)
        write(tmp_path, "joint", [[0.9, 0.9, 0.9]], seed=seed)
    write(tmp_path, "lora", [[0.7], [0.7, 0.7], [0.1] * 3], seed=7)  # no seed of both
    write_results(tmp_path)
    part = (tmp_path / "results.md").read_text().partition("## Less C-LoRA")[2]
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in part.splitlines() if line]
    assert [row[0] for row in rows] == ["Method", "---", "STAMINA", "Joint"]
    assert rows[0][1] == "A_N %" and rows[2][1] == "**5.00 [3.59, 6.41]**"  # 4 and 6: 5 -+ sqrt(2)
    assert rows[3][1] == "**20.00 [5.86, 34.14]**"  # 30 and 10: 20 -+ 10 sqrt(2)
    assert rows[3][3] == "–"  # forgets nothing


def test_a_steady_difference_is_told_however_far_the_seeds_lie_apart(tmp_path: Path) -> None:
    for seed, up in enumerate((0.0, 0.02)):
        write(tmp_path, "c-lora", [[0.9], [0.7, 0.8], [0.60 + up] * 3], seed=seed)
        write(tmp_path, "stamina", [[0.9], [0.7, 0.8], [0.61 + up] * 3], seed=seed)
    write_results(tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert "| 61.00 ± 1.41 |" in text and "**62.00 ± 1.41**" in text


def test_the_csv_holds_every_run_unrounded(folder: Path) -> None:
    write_results(folder)
    found = list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))
    lora = [row for row in found if row["method"] == "lora"]
    assert len(found) == 8 and [row["seed"] for row in lora] == ["0", "1"]
    assert [float(row["A_N"]) for row in lora] == pytest.approx([0.40, 0.42])
    assert [float(row["F_N"]) for row in lora] == pytest.approx([0.45, 0.45])
    assert {row["F_N"] for row in found if row["method"] == "joint"} == {""}
    assert {row["backbone_hash"] for row in found} == {"0123456789abcdef"}


def test_the_page_is_well_formed_complete_and_alone(folder: Path) -> None:
    write_results(folder)
    shown = page(folder)
    ids = [attributes["id"] for _, attributes in shown.tags if "id" in attributes]
    assert ids == ["numbers", "paired", "scatter", "so-far", "maps", "method"]
    assert not {"script", "img", "link"} & {tag for tag, _ in shown.tags}
    words = " ".join(shown.words.split())
    assert "6 classes in 3 tasks" in words and "six in 3 tasks" in words
    assert "perdure classify six --method lora,c-lora,replay,joint --tasks 3 --seeds 2" in words
    assert "--epochs 5" in words and "0123456789abcdef" in words
    assert "epochs5batch size128lrthe method's ownhead lrthe method's ownschedulecosine" in words
    assert "not rehearsal-free" in words and "upper bound" in words
    assert "Less C-LoRA" in words
    # 41 - 61, (90 + 55 + 40) / 3 - (90 + 75 + 60) / 3, 45 - 17.5, 60 - 25
    assert "LoRA, sequential−20.00 [−20.00, −20.00]−13.33 [−13.33, −13.33]27.50" in words
    # the map of LoRA, sequential, mean over seeds, in per cent: a row a task
    assert "after task 123 task 1task 2task 3 913141811171 " in words


def test_one_method_alone_and_one_that_learns_at_once_alone_make_a_page(tmp_path: Path) -> None:
    write(tmp_path / "one", "lora", [[0.0], [0.0, 0.0], [0.0] * 3])
    write(tmp_path / "joint", "joint", [[0.5, 0.5, 0.5]])
    for name in ("one", "joint"):
        write_results(tmp_path / name)
    assert "One run a method" in page(tmp_path / "one").words
    assert "scatter" not in {a.get("id") for _, a in page(tmp_path / "joint").tags}


def test_the_command_tells_what_was_asked_for(tmp_path: Path) -> None:
    asked = {
        "data": "my tree",
        "backbone": "smallworld",
        "preprocessing": "coda-prompt",
        "device": "cuda",
    }
    for rate in (0.001, 0.0005):
        path = write(
            tmp_path,
            "c-lora",
            [[0.9], [0.7, 0.8], [0.6] * 3],
            asked=asked,
            options={"rank": 4, "penalty": 10},
            chosen={"lr": rate, "method.penalty": 10},
            settings=FitSettings(lr=rate, flip=False, batch_size=8).to_json(),
        )
        path.rename(path.with_name(f"{rate}.json"))
    write_results(tmp_path)
    words = " ".join(page(tmp_path).words.split())
    assert (
        "perdure classify six --method c-lora --tasks 3 --seeds 1 --data 'my tree' --preprocessing "
        "coda-prompt --device cuda --batch-size 8 --no-flip --option rank=4 --vary lr=0.0005,0.001 "
        "--vary method.penalty=10"
    ) in words
    titles = [method.title for method in read_results(tmp_path).methods]
    assert titles == ["C-LoRA (lr 0.0005, penalty 10)", "C-LoRA (lr 0.001, penalty 10)"]


def test_records_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    rows = [[0.9], [0.7, 0.8], [0.6] * 3]
    one = write(tmp_path / "kinds", "c-lora", rows)
    other = drawing_record(tmp_path / "kinds", "lora")
    with pytest.raises(PerdureError, match="of different kinds") as told:
        write_results(tmp_path / "kinds")
    assert one.name in str(told.value) and other.name in str(told.value)
    write(tmp_path / "settings", "c-lora", rows)
    write(tmp_path / "settings", "c-lora", rows, seed=1)
    write(tmp_path / "settings", "c-lora", rows, seed=2, settings=FitSettings(epochs=6).to_json())
    with pytest.raises(PerdureError, match="differ in their settings"):
        write_results(tmp_path / "settings")
    write(tmp_path / "tasks", "c-lora", rows)
    write(tmp_path / "tasks", "lora", rows, class_order=[["a", "b", "c"], ["d", "e", "f"]])
    with pytest.raises(PerdureError, match="different streams"):
        write_results(tmp_path / "tasks")
    write(tmp_path / "old", "c-lora", rows, kind="weather")
    with pytest.raises(PerdureError, match=r"no record of a run \(its kind is 'weather'"):
        write_results(tmp_path / "old")


def test_unlike_backbones_are_told_of(tmp_path: Path) -> None:
    rows = [[0.9], [0.7, 0.8], [0.6] * 3]
    write(tmp_path, "c-lora", rows)
    write(tmp_path, "lora", rows, backbone={"name": "vit", "hash": "ff00ff00ff"})
    write_results(tmp_path)
    assert "The methods differ in their backbone" in page(tmp_path).words


def test_report_alone_runs_nothing(folder: Path) -> None:
    asked = ["classify", "six", "--tasks", "3", "--report", "--out"]
    result = CliRunner().invoke(app, [*asked, str(folder.parent)])
    assert result.exit_code == 0 and "| C-LoRA |" in result.output
    assert (folder / "report.html").exists()
    result = CliRunner().invoke(app, [*asked, str(folder)])
    assert "There is no record of a run in" in str(result.exception)
