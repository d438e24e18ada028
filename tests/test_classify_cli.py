"""`perdure classify` and the recipe of the small tower, on tiny trees."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from classifying import save_backbone, write_tree
from typer.testing import CliRunner

from perdure.classification import Backbone, pretrain
from perdure.cli import app
from perdure.errors import PerdureError


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """A tiny tree and tower, and options that learn them in no time."""
    folder = tmp_path_factory.mktemp("given")
    tree, vit = write_tree(folder / "tree"), save_backbone(folder / "vit")
    words = ["folders", "--data", tree, "--backbone", vit, "--tasks", 2, "--epochs", 2]
    return [*words, "--batch-size", 8, "--processes", 1]


def perdure(out: Path, *words: object) -> str:
    """`perdure classify`'s words, its folders below ``out``."""
    folders = ["--out", out, "--work", out / "work"]
    arguments = ["classify", *map(str, (*words, *folders))]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_grid_runs_once_and_ends_in_tables_and_a_report(
    given: list[object], tmp_path: Path
) -> None:
    words = [*given, "--method", "c-lora", "--option", "rank=2", "--seeds", 2]
    first = perdure(tmp_path, *words)
    assert "| A_N % |" in first and "| C-LoRA |" in first and "\N{PLUS-MINUS SIGN}" in first
    assert "c-lora-seed1: done (2 of 2)" in first
    folder = tmp_path / "folders-2-tasks"
    assert {path.name for path in folder.iterdir()} == {
        *("c-lora-seed0.json", "c-lora-seed1.json"),
        *("results.md", "results.tex", "results.csv", "report.html"),
    }
    assert (tmp_path / "work" / "folders-2-tasks" / "c-lora-seed1" / "rows.json").exists()
    record = json.loads((folder / "c-lora-seed1.json").read_text())
    assert (record["format"], record["kind"]) == (2, "classification")
    assert record["seed"] == 1 and record["config"]["rank"] == 2 and record["chosen"] == {}
    assert record["peak_memory"] > 1e8  # bytes
    assert sorted(sum(record["class_order"], [])) == ["class0", "class1", "class2", "class3"]
    rows = record["matrix"]["scores"]["accuracy"]
    assert [len(row) for row in rows] == [1, 2]
    assert record["A_N"] == pytest.approx(sum(rows[1]) / 2)
    assert record["F_N"] == pytest.approx(rows[0][0] - rows[1][0]) == record["F_N_max"]

    whole = (folder / "c-lora-seed0.json").read_bytes()
    (folder / "c-lora-seed1.json").unlink()
    again = perdure(tmp_path, *words)
    assert "1 of 2 runs were done before" in again and "seed0: done" not in again
    assert (folder / "c-lora-seed0.json").read_bytes() == whole
    back = json.loads((folder / "c-lora-seed1.json").read_text())
    assert back["seconds"] == record["seconds"]  # nothing was learned again
    with pytest.raises(PerdureError, match="seed0.json is of a run with epochs 2, not 3"):
        perdure(tmp_path, *words, "--epochs", 3)
    with pytest.raises(PerdureError, match="is of a run with method.rank 2, not 3"):
        perdure(tmp_path, *words, "--option", "rank=3")


def test_several_methods_and_choices_are_rows_of_one_table(
    given: list[object], tmp_path: Path
) -> None:
    words = ["--method", "lora,joint", "--seeds", 1, "--vary", "lr=1e-3,5e-4"]
    output = perdure(tmp_path, *given, *words, "--vary", "method.rank=2")
    for title in ("LoRA, sequential", "Joint"):
        for rate in ("0.0005", "0.001"):
            assert f"| {title} (lr {rate}, rank 2) |" in output
    path = tmp_path / "folders-2-tasks" / "lora-lr=0.001-method.rank=2-seed0.json"
    record = json.loads(path.read_text())
    assert record["chosen"] == {"lr": 0.001, "method.rank": 2}
    assert record["settings"]["lr"] == 0.001 and record["config"] == {"rank": 2}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--method", "dora"], "no method 'dora': choose from c-lora"),
        (["--method", "ft", "--option", "rank=2"], "ft has no option 'rank'"),
        (["--vary", "rate=1"], "no fit option 'rate'"),
        (["--method", "probe", "--lr", "1e-3"], "lr has no effect: probe trains the head alone"),
        (["--vary", "epochs=2,3"], "epochs is varied, and given beside that"),
        (["--vary", "lr"], "has no values"),
        (["--data", "nowhere"], "There is no nowhere"),
        (["--tasks", "3"], "1 of 1 runs failed.*4 classes cannot be shared out among 3 tasks"),
    ],
)
def test_bad_words_get_one_sentence(
    given: list[object], words: list[object], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(PerdureError, match=sentence):
        perdure(tmp_path, *given, "--seeds", 1, *words)


def test_the_towers_recipe_goes_on_where_it_stopped_and_its_folder_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain, "BATCH", 8)
    tree = write_tree(tmp_path / "tree")
    pretrain.pretrain(tree, tmp_path / "work", steps=2)
    tower = pretrain.pretrain(tree, tmp_path / "work", steps=4)
    recipe = json.loads((tower / "recipe.json").read_text())
    assert recipe["steps"] == 4 and 0 <= recipe["test_accuracy"] <= 1
    backbone = Backbone.open(tower)
    assert backbone.width == 192 and backbone.preprocessing.size == 64
    assert backbone.hash != recipe["start"]["hash"] == Backbone.open("smallworld").hash
    stored = (tower / "model.safetensors").stat().st_size
    assert stored < 2.1 * recipe["parameters"] < 12e6  # bytes: fp16
