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


def test_seeds_run_once_and_end_in_a_table(tmp_path: Path) -> None:
    tree, out = write_tree(tmp_path / "tree"), tmp_path / "out"
    vit = save_backbone(tmp_path / "vit")
    given = [
        "folders",
        "--data",
        tree,
        "--backbone",
        vit,
        "--tasks",
        2,
        "--epochs",
        2,
        "--out",
        out,
    ]
    given += ["--method", "c-lora", "--option", "rank=2", "--batch-size", 8]

    def perdure(*more: object) -> str:
        arguments = ["classify", *map(str, (*given, *more))]
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    first = perdure("--seeds", 2)
    assert "| A_N % |" in first and "c-lora" in first and "\N{PLUS-MINUS SIGN}" in first
    record = json.loads((out / "folders-c-lora-2-tasks-seed1.json").read_text())
    assert record["seed"] == 1 and record["config"]["rank"] == 2
    assert sorted(sum(record["class_order"], [])) == ["class0", "class1", "class2", "class3"]
    rows = record["matrix"]["scores"]["accuracy"]
    assert rows[0][1] is None
    assert record["A_N"] == pytest.approx(sum(rows[1]) / 2)
    assert record["F_N"] == pytest.approx(rows[0][0] - rows[1][0]) == record["F_N_max"]
    again = perdure("--seeds", 2)
    assert "task 1, loss" in first and "task 1, loss" not in again
    with pytest.raises(PerdureError, match="is of a run with"):
        perdure("--epochs", 3)
    with pytest.raises(PerdureError, match="cannot be shared out among 3 tasks"):
        perdure("--tasks", 3)
    with pytest.raises(PerdureError, match="no method 'dora'"):
        perdure("--method", "dora")


def test_the_towers_recipe_goes_on_where_it_stopped_and_its_folder_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    monkeypatch.setattr(
        pretrain,
        "SIZES",
        {**small, "intermediate_size": 24, "image_size": 16, "patch_size": 8},
    )
    monkeypatch.setattr(pretrain, "BATCH", 8)
    tree = write_tree(tmp_path / "tree")
    pretrain.pretrain(tree, tmp_path / "work", steps=2)
    tower = pretrain.pretrain(tree, tmp_path / "work", steps=4)
    recipe = json.loads((tower / "recipe.json").read_text())
    assert recipe["steps"] == 4 and 0 <= recipe["test_accuracy"] <= 1
    backbone = Backbone.open(tower)
    assert backbone.width == 16 and backbone.preprocessing.size == 16
    stored = (tower / "model.safetensors").stat().st_size
    assert stored < 2.5 * recipe["parameters"] + 10_000


def test_the_tower_to_be_is_small() -> None:
    model = pretrain.Pretraining(100)
    assert 2 * sum(p.numel() for p in model.tower.parameters()) < 6e6
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 100)
