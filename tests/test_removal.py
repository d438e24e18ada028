"""After a removal nothing of the concept is left: a search for its name and its bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import make_drawings

from perdure.bank import Bank
from perdure.bank_checking import check_bank
from perdure.drawing.painter import Painter
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.learning.learn import learn
from perdure.learning.removal import remove
from perdure.measuring.cost import what_it_cost
from perdure.measuring.evaluate import evaluate
from perdure.measuring.features import MetricEncoder
from perdure.measuring.report import write_report
from perdure.measuring.summary import bank_report

GONE = "qzvwxyk"
"""A name that stands nowhere by chance."""
FAST = {"steps": 2, "lr": 0.1}
SMALL = {
    "fl2t": {"rank": 2, "width": 8, "heads": 2, "together_steps": 2},
    "custom-diffusion-merged": {},
}


@pytest.fixture(scope="module")
def base(tiny: Path) -> Base:
    torch.set_num_threads(1)
    return Base.open(tiny, device="cpu")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_drawings(tmp_path_factory.mktemp("removal"))
    (folder / "bo").rename(folder / GONE)
    return folder


def traces(bank: Path, marks: dict[str, bytes]) -> list[str]:
    """Where a mark is found, in a file's name or in its bytes."""
    found = []
    for path in bank.rglob("*"):
        inside = path.read_bytes() if path.is_file() else b""
        name = path.relative_to(bank).as_posix().encode()
        found += [f"{what} in {path}" for what, mark in marks.items() if mark in name + inside]
    return found


def marks_of(bank: Bank) -> dict[str, bytes]:
    """Its name, and some numbers in a row of each of its tensors and previews."""
    tensors, tokens = bank.read(GONE)
    parts = {**tensors, **tokens[GONE].parts} if len(tokens) == 1 else tokens[GONE].parts
    rows = {key: tensor.contiguous().view(torch.uint8).flatten() for key, tensor in parts.items()}
    marks = {key: row[: min(64, len(row))].numpy().tobytes() for key, row in rows.items()}
    for preview in bank.task_folder(GONE).glob(f"previews/{GONE}-*.png"):
        marks[preview.name] = preview.read_bytes()[45:90]
    return {
        "its name": GONE.encode(),
        **{key: mark for key, mark in marks.items() if len(set(mark)) > 8},
    }


SLOW = ("gated", "lora", "feature-space", "cidm", "stamina", "custom-diffusion-merged")


@pytest.mark.parametrize(
    "method",
    ["c-lora", "fl2t", *(pytest.param(method, marks=pytest.mark.slow) for method in SLOW)],
)
def test_nothing_of_a_removed_concept_is_left_and_the_others_stay(
    method: str, base: Base, pictures: Path, tmp_path: Path
) -> None:
    path, encoder = tmp_path / "bank", MetricEncoder.of(base)
    names = ("ada", GONE, "cy") if method != "lora" else ("ada", "cy", GONE)
    for name in names:
        learn(
            base,
            path,
            {name: pictures / name},
            method=method,
            options=SMALL.get(method, {"rank": 2}),
            nouns={name: "person"},
            **FAST,
        )
        what_it_cost(base, path, encoder)
    bank = Bank.open(path)
    first = Painter(base, bank).draw(["a photo of <ada>"], seeds=[0])[0].tobytes()
    result = evaluate(base, bank, encoder, pictures=2, contexts=("a {}",), references=pictures)
    result.matrix.save(path / "evaluation" / "matrix.json")
    write_report(path / "evaluation" / "report.html", bank_report(bank, result))
    bank.workspace.mkdir(exist_ok=True)
    (bank.workspace / "checkpoint.safetensors").write_bytes(bank.concept_file(GONE).read_bytes())
    marks = marks_of(bank)
    assert len(marks) > 4 and len(traces(path, marks)) > len(marks)
    kept = {name: bank.concept_file(name).read_bytes() for name in ("ada", "cy")}

    assert remove(path, GONE) == ("ada", "cy")
    assert traces(path, marks) == []
    assert {name: Bank.open(path).concept_file(name).read_bytes() for name in kept} == kept
    assert check_bank(path) == []
    if method == "gated":
        now = Painter(base, path).draw(["a photo of <ada>"], seeds=[0])[0].tobytes()
        assert now == first


@pytest.mark.parametrize("place", [0, 1, 2])
def test_of_a_task_of_several_the_others_are_written_anew_without_its_name(
    place: int, base: Base, pictures: Path, tmp_path: Path
) -> None:
    names = ["ada", "cy"]
    names.insert(place, GONE)
    learn(
        base,
        tmp_path,
        {name: pictures / name for name in names},
        method="textual-inversion",
        nouns=dict.fromkeys(names, "person"),
        steps=2,
    )
    what_it_cost(base, tmp_path, MetricEncoder.of(base))
    bank = Bank.open(tmp_path)
    marks, tokens = marks_of(bank), bank.read("ada")[1]
    assert any(key.endswith(".png") for key in marks)
    remove(tmp_path, GONE)
    assert traces(tmp_path, marks) == []
    bank = Bank.open(tmp_path)
    assert [task.folder for task in bank.tasks] == ["01-ada+1"] and check_bank(tmp_path) == []
    for name, token in bank.read("ada")[1].items():
        assert torch.equal(token.rows, tokens[name].rows)
    assert len(list(bank.task_folder("ada").glob("previews/*.png"))) == 8
    assert (bank.task_folder("ada") / "log.jsonl").exists()


def test_nothing_is_removed_while_a_learn_that_may_build_on_it_is_unfinished(
    base: Base, pictures: Path, tmp_path: Path
) -> None:
    learn(base, tmp_path, {"ada": pictures / "ada"}, method="lora", **FAST)

    def pull(progress: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(base, tmp_path, {"cy": pictures / "cy"}, report=pull, **FAST)
    with pytest.raises(PerdureError, match=r"<cy> was interrupted.*--resume.*--discard"):
        remove(tmp_path, "ada")
    assert Bank.open(tmp_path).concepts == ("ada",)
