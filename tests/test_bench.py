"""Streams, the grid of runs and its resume, records and what tables make of them."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from grid_cells import Sleep, count, peak_after
from PIL import Image
from typer.testing import CliRunner

from perdure.bank import Bank
from perdure.benchmarks import runs
from perdure.benchmarks.grid import cells_of, check_records
from perdure.benchmarks.records import grouped, numbers, read_records
from perdure.benchmarks.runner import finish, run_grid
from perdure.benchmarks.runs import Run, run
from perdure.benchmarks.streams import STREAMS, Drawn, Photographed, Stream, people, stream
from perdure.cli import app
from perdure.errors import PerdureError
from perdure.learning.request import interrupted
from perdure.measuring import evaluate
from perdure.measuring.pairs import Half, halves, recognise, score_pairs
from perdure.processes import pool_of
from perdure.smallworld.unnamed import in_style
from perdure.smallworld.world import SPLITS


def test_every_stream_keeps_to_one_split_and_has_its_number_of_concepts() -> None:
    for name, one in STREAMS.items():
        split = SPLITS["tuning" if name.endswith("-tuning") else "benchmark"]
        assert all(concept.seed in split for concept in one.concepts), name
        assert len(one.concepts) == int(name.removesuffix("-tuning").rpartition("-")[2])
        assert one.name == name


def test_mixed_10_has_the_composition_that_it_says() -> None:
    for name in ("mixed-10", "mixed-10-tuning"):
        one = stream(name)
        domains = [concept.domain for concept in one.concepts]
        assert {d: domains.count(d) for d in domains} == {
            "pet": 4,
            "object": 2,
            "person": 1,
            "place": 1,
            "style": 2,
        }
        assert [one.nouns[n] for n in ("rex", "rollo", "tom", "tilly")] == ["dog"] * 2 + ["cat"] * 2
        assert one.styles == ("etching", "print")


def test_an_order_is_a_permutation_that_its_number_decides() -> None:
    one = people(10)
    assert one.ordered(0) is one
    other = one.ordered(2)
    assert other.concepts != one.concepts and set(other.concepts) == set(one.concepts)
    assert other.concepts == one.ordered(2).concepts != one.ordered(1).concepts
    three = people(3)
    assert len({three.ordered(order).concepts for order in range(6)}) == 6
    with pytest.raises(PerdureError, match="3 concepts, so 6 orders"):
        three.ordered(6)


def test_a_style_is_the_same_mapping_for_every_picture() -> None:
    flat = np.full((64, 64, 3), 120, np.uint8)
    assert np.array_equal(in_style(flat, 5), in_style(flat, 5))
    assert not np.array_equal(in_style(flat, 5), in_style(flat, 6))
    grey = np.full((64, 64, 3), 200, np.uint8)
    assert len(np.unique(in_style(grey, 5).reshape(-1, 3), axis=0)) == 1  # light: no hatching


def test_a_style_is_spoken_of_by_its_phrase(tmp_path: Path) -> None:
    style = Drawn(name="etching", domain="style", seed=2_000_000)
    assert style.phrase.format("<etching>") == "a thing in <etching> style"
    assert len(style.write(tmp_path, 3)) == 3


def test_two_concepts_of_one_name_are_refused() -> None:
    twice = Drawn(name="ada", domain="person", seed=1)
    with pytest.raises(PerdureError, match="two concepts named ada"):
        Stream(name="odd", concepts=(twice, replace(twice, seed=2)))


def test_the_grid_has_a_cell_a_method_choice_order_and_seed(tmp_path: Path) -> None:
    cells = cells_of(
        people(3),
        method=["lora", "c-lora"],
        out=tmp_path,
        work=tmp_path / "work",
        seeds=2,
        orders=2,
        vary={"lr": [0.1, 0.2], "method.rank": [4]},
    )
    assert len(cells) == 2 * 2 * 2 * 2 == len({cell.record for cell in cells})
    assert cells[0].record.name == "lora-lr=0.1-method.rank=4-seed0.json"
    assert cells[-1].record.name == "c-lora-lr=0.2-method.rank=4-seed1-order1.json"
    assert cells[0].options == {"rank": 4} and cells[0].settings == {"lr": 0.1}
    with pytest.raises(PerdureError, match="no method 'clora'.*c-lora"):
        cells_of(people(3), method=["clora"], out=tmp_path, work=tmp_path)


def test_a_failed_cell_is_named_and_the_others_finish(tmp_path: Path) -> None:
    cells = [Sleep(record=tmp_path / f"{k}.json", fails=k == 1) for k in range(3)]
    said: list[str] = []
    with pytest.raises(PerdureError, match=r"1 of 3 runs failed: 1 \(The picture is broken"):
        run_grid(cells, count, processes=2, say=said.append)
    assert {path.name for path in tmp_path.glob("*.json")} == {"0.json", "2.json"}
    mended = [replace(cell, fails=False) for cell in cells]
    run_grid(mended, count, processes=1, say=said.append)
    assert "2 of 3 runs were done before" in said
    assert [len((tmp_path / f"{k}.ran").read_text()) for k in range(3)] == [1, 2, 1]


def test_two_cells_with_one_record_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PerdureError, match="one record"):
        run_grid([Sleep(record=tmp_path / "a.json")] * 2, count)


def test_a_killed_grid_goes_on_without_repeating_what_is_finished(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from grid_cells import Sleep, count\n"
        "from perdure.benchmarks.runner import run_grid\n"
        "if __name__ == '__main__':\n"
        "    out = Path(sys.argv[2])\n"
        "    run_grid([Sleep(record=out / f'{k}.json', seconds=k * 3) for k in range(2)], count)\n"
    )
    path = tmp_path / "grid.py"
    path.write_text(script)
    process = subprocess.Popen(
        [sys.executable, str(path), str(Path(__file__).parent), str(tmp_path)]
    )
    try:
        deadline = time.monotonic() + 240
        while not (tmp_path / "1.ran").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    time.sleep(4)  # the process that it left behind has ended itself, and so writes no record
    assert (tmp_path / "0.json").exists() and not (tmp_path / "1.json").exists()
    run_grid([Sleep(record=tmp_path / f"{k}.json") for k in range(2)], count)
    assert json.loads((tmp_path / "1.json").read_text()) == {"name": "1"}
    assert len((tmp_path / "0.ran").read_text()) == 1


@pytest.fixture(scope="module")
def cell(tiny: Path, drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("bench")
    concepts = tuple(
        Photographed(
            name=name,
            noun="person",
            files=tuple(str(path) for path in sorted((drawings / name).iterdir())),
        )
        for name in ("ada", "bo", "cy")
    )
    return Run(
        record=folder / "records" / "lora-seed0.json",
        work=folder / "work",
        stream=Stream(name="three", concepts=concepts),
        method="lora",
        options={"rank": 2},
        settings={"steps": 2, "checkpoint_every": 2},
        base=str(tiny),
        pictures=2,
        held_out=False,
        pairs=1,
    )


def bytes_of_tensors(bank: Path) -> int:
    """Whatever the files are called; a bank at rest holds no others."""
    return sum(path.stat().st_size for path in bank.rglob("*.safetensors"))


def test_a_run_writes_a_record_that_reads_back(cell: Run) -> None:
    torch.set_num_threads(1)
    finish(cell, run)
    (record,) = read_records(cell.record.parent)
    assert record.data["stream"]["name"] == "three" and record.order == record.seed == 0
    assert record.method == "lora, steps 2, checkpoint_every 2, method.rank 2"
    assert record.matrix.at("identity", 0, "bo") is None
    told = numbers(record)
    assert told["forgetting"] == pytest.approx(
        np.mean(
            [
                record.matrix.need("identity", j, name) - record.matrix.need("identity", 2, name)
                for j, name in enumerate(("ada", "bo"))
            ]
        )
    )
    assert told["stored"] * 3000 == pytest.approx(bytes_of_tensors(cell.work / "bank"))
    assert record.data["peak_memory"] > 1e8  # bytes
    assert len(record.data["norms"]) == 3 and all(norm > 0 for norm in record.data["norms"])
    assert grouped([record, record])[record.method]["after"] == [told["after"]] * 2
    with Image.open(cell.record.with_suffix(".webp")) as strip:
        assert strip.width // 3 == strip.height // 3  # three concepts, three rows
    assert set(record.data["together"]) == {"pairs", "plain", "boxes", "sentence", "company"}
    company = record.data["together"]["company"]
    assert set(company) == {"pairs", "triples", "alone"}
    assert company["pairs"]["groups"] == [["ada", "bo"]]
    assert company["triples"]["groups"] == [["ada", "bo", "cy"]]
    assert company["pairs"]["sentence"]["pictures"] == 4
    assert set(company["alone"]) == {"ada", "bo", "cy"}
    assert {"two", "three", "kept"} <= told.keys()
    with Image.open(cell.record.with_stem("lora-seed0-together").with_suffix(".webp")) as sheet:
        assert sheet.width // 4 == sheet.height // 3  # four pictures, three arrangements
    assert record.data["encoder"]["identity"] == "image embedding"
    assert {"perdure", "precision", "machine"} <= record.data["versions"].keys()


def test_a_record_of_a_run_with_something_else_is_not_taken_for_done(cell: Run) -> None:
    if not cell.record.exists():
        finish(cell, run)
    check_records([cell])
    for changed, word in (
        ({"pictures": 3}, "pictures 2, not 3"),
        ({"pairs": 0}, "pairs 1, not 0"),
        ({"held_out": True}, "held_out False, not True"),
        ({"encoder": "clip"}, "encoder None, not 'clip'"),
        ({"base": "smallworld"}, "base"),
        ({"stream": replace(cell.stream, pictures=2)}, "another stream"),
        ({"stream": replace(cell.stream, concepts=cell.stream.concepts[:2])}, "another stream"),
    ):
        with pytest.raises(PerdureError, match=f"is of a run with {word}"):
            check_records([replace(cell, **changed)])
    moved = tuple(
        replace(one, files=tuple(f"elsewhere/{Path(file).name}" for file in one.files))
        for one in cell.stream.concepts
    )
    check_records([replace(cell, stream=replace(cell.stream, concepts=moved))])


def test_a_run_that_is_cut_inside_a_task_ends_in_the_same_bits(
    cell: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    often = {"steps": 2, "checkpoint_every": 1}
    cut = replace(cell, record=tmp_path / "r.json", work=tmp_path / "work", pairs=0, settings=often)
    whole = run(replace(cut, record=tmp_path / "w.json", work=tmp_path / "whole"))
    steps, step = [], torch.optim.AdamW.step

    def pulled(self, *args, **kwargs):
        steps.append(1)
        if len(steps) == 4:  # the second step of the second concept
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.AdamW, "step", pulled)
        with pytest.raises(KeyboardInterrupt):
            run(cut)
    assert Bank.open(cut.work / "bank").concepts == ("ada",)
    assert interrupted(Bank.open(cut.work / "bank"))
    assert list((cut.work / "bank").rglob("checkpoint*"))
    again = run(cut)
    assert again["matrix"] == whole["matrix"]


def test_every_run_has_a_process_of_its_own() -> None:
    with pool_of(1) as pool:
        large, small = (pool.submit(peak_after, size).result() for size in (1 << 29, 1))
    assert large - small > 1 << 28


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each process begins anew")
def test_a_run_finds_imported_what_its_pool_was_asked_to_import() -> None:
    with pool_of(1, "colorsys") as pool:
        assert pool.submit(imported, "colorsys").result()


def imported(module: str) -> bool:
    return module in sys.modules


def test_a_long_stream_is_measured_whole_at_milestones_alone(
    cell: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [n for n in range(1, 201) if evaluate.is_milestone(n)] == [1, 2, 5, 10, 20, 50, 100, 200]
    monkeypatch.setattr(evaluate, "is_milestone", lambda count: count == 1)
    long = replace(
        cell, record=cell.record.with_name("long.json"), moments="milestones", pairs=0
    )  # the same bank: nothing is learned again
    facts = run(long)
    rows = facts["matrix"]["scores"]["identity"]
    measured = [[value is not None for value in row] for row in rows]
    assert measured == [[True], [False, True], [True, True, True]]


def test_the_step_for_the_whole_bank_counts_as_well(cell: Run, tmp_path: Path) -> None:
    both = {"rank": 2, "width": 8, "heads": 2, "together_steps": 2}
    record = run(
        replace(cell, record=tmp_path / "r.json", work=tmp_path, method="fl2t", options=both)
    )
    for task, seconds in zip(Bank.open(tmp_path / "bank").tasks, record["seconds"], strict=True):
        assert seconds > task.facts["composition"]["seconds"] > 0
    assert record["parameters"] == (
        task.facts["parameters"] + task.facts["composition"]["parameters"]
    )
    bank = tmp_path / "bank"
    (shared,) = bank.glob("*.safetensors")
    assert record["stored_bytes"] == bytes_of_tensors(bank)
    assert Bank.open(bank).stored()["composition"] == shared.stat().st_size


def test_a_file_that_is_no_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text("{}")
    with pytest.raises(PerdureError, match=r"odd\.json is no record of a run"):
        read_records(tmp_path)


def test_a_half_shows_the_subject_that_stands_there() -> None:
    array = np.zeros((64, 64, 3), np.uint8)
    array[32, 17], array[32, 47] = (255, 0, 0), (0, 255, 0)
    left, right = (np.asarray(half).astype(int) for half in halves(Image.fromarray(array)))
    for half, channel in ((left, 0), (right, 1)):
        y, x = np.unravel_index(half[..., channel].argmax(), (64, 64))
        assert abs(y - 32) <= 2 and abs(x - 32) <= 2  # in the middle, as alone


def test_a_pair_is_recognised_in_the_order_that_boxes_ask_for() -> None:
    likeness = torch.tensor([[0.1, 0.9, 0.2], [0.8, 0.3, 0.1]])
    assert recognise(likeness, (0, 1), ordered=False) == (True, pytest.approx(0.85))
    assert recognise(likeness, (0, 1), ordered=True) == (False, pytest.approx(0.2))
    assert recognise(likeness, (1, 0), ordered=True)[0]
    assert not recognise(likeness, (1, 2), ordered=False)[0]


class RedOnTheLeft:
    """Takes red for ada and all else for rex."""

    def identities(self, pictures):
        red = [float(np.asarray(picture)[32, 32, 0] > 128) for picture in pictures]
        return torch.tensor([[r, 1 - r] for r in red])


def test_pairs_are_told_half_by_half() -> None:
    array = np.zeros((64, 64, 3), np.uint8)
    array[:, :32] = (255, 0, 0)
    picture, references = Image.fromarray(array), {"ada": torch.eye(2)[:1], "rex": torch.eye(2)[1:]}
    drawn = [(("ada", "rex"), [picture] * 3), (("rex", "ada"), [picture] * 3)]
    for ordered in (False, True):
        score = score_pairs(RedOnTheLeft(), references, drawn, ordered=ordered)  # type: ignore[arg-type]
        assert score.pictures == 6
        # ada always stands on the left: of one pair in two the boxes say otherwise
        assert score.both == (0.5 if ordered else 1.0)
        assert score.halves[0] == (
            Half(nearest="ada", likeness=(1.0, 0.0)),
            Half(nearest="rex", likeness=(0.0, 1.0)),
        )
        assert score.halves[3] == (  # of the other pair, whose first is rex
            Half(nearest="ada", likeness=(0.0, 1.0)),
            Half(nearest="rex", likeness=(1.0, 0.0)),
        )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["people-7"], "no stream 'people-7'"),
        ([], "Which stream"),
        (["people-5", "--vary", "lr"], "has no values"),
        (["people-5", "--method", "clora"], "no method 'clora'"),
    ],
)
def test_bad_words_get_one_sentence(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", *arguments, "--out", str(tmp_path)])
    assert result.exit_code != 0
    assert isinstance(result.exception, PerdureError) and sentence in str(result.exception)


def test_the_streams_are_listed() -> None:
    result = CliRunner().invoke(app, ["bench", "--list"])
    assert result.exit_code == 0 and "people+places-50" in result.output


def test_every_seed_has_concepts_of_its_own_of_the_same_kinds() -> None:
    for name in ("people-5", "mixed-10", "people+places-50-tuning"):
        one = stream(name)
        split = SPLITS["tuning" if name.endswith("-tuning") else "benchmark"]
        assert one.anew(0) is one
        drawn = [one.anew(seed) for seed in range(3)]
        told = [{(c.domain, c.seed) for c in each.concepts} for each in drawn]
        assert len(set.union(*told)) == 3 * len(one.concepts), name
        for each in drawn:
            assert all(c.seed in split for c in each.concepts)
            for old, new in zip(one.concepts, each.concepts, strict=True):
                assert (old.name, old.domain) == (new.name, new.domain)
                assert old.domain != "pet" or old.noun == new.noun  # dogs stay dogs
    with pytest.raises(PerdureError, match="look-alike pets for 5 seeds"):
        stream("mixed-10").anew(5)


def test_the_grid_gives_each_seed_its_concepts_unless_they_are_to_be_the_same(
    tmp_path: Path,
) -> None:
    told = {}
    for concepts in ("fresh", "same"):
        cells = cells_of(
            people(3), method=["lora"], out=tmp_path, work=tmp_path, seeds=2, concepts=concepts
        )
        told[concepts] = [cell.stream.concepts[0].seed for cell in cells]
    start = SPLITS["benchmark"].start
    assert told == {"fresh": [start, start + 1000], "same": [start, start]}
    photographed = Stream(
        name="p", concepts=(Photographed(name="rex", noun="dog", files=("a.jpg",)),)
    )
    assert photographed.anew(3) is photographed


def test_a_module_of_all_tasks_is_drawn_as_it_was_at_every_moment(
    cell: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    both = {"rank": 2, "width": 8, "heads": 2, "together_steps": 2, "together_lr": 0.5}
    mixed = replace(
        cell, record=tmp_path / "r.json", work=tmp_path / "w", method="fl2t", options=both, pairs=0
    )
    then: dict[int, dict[str, torch.Tensor]] = {}
    learned = runs.learn

    def learn(base, path, *args, **kwargs):
        record = learned(base, path, *args, **kwargs)
        bank = Bank.open(path)
        then[len(bank.tasks)] = bank.composition()  # as it is before the next task replaces it
        return record

    monkeypatch.setattr(runs, "learn", learn)
    used: list[tuple[int, dict[str, torch.Tensor]]] = []
    painter = evaluate.Painter

    class Watched(painter):
        def draw(self, *args, **kwargs):
            used.append((self.tasks, dict(self.composition)))
            return super().draw(*args, **kwargs)

    monkeypatch.setattr(evaluate, "Painter", Watched)
    record = run(mixed)
    assert record["compositions"] == 3 and set(then) == {1, 2, 3}
    assert not torch.equal(then[1]["proxy/ada"], then[3]["proxy/ada"])
    assert {tasks for tasks, _ in used} == {0, 1, 2, 3}
    for tasks, composition in used:
        if tasks:
            assert composition.keys() == then[tasks].keys()
            assert all(torch.equal(composition[key], then[tasks][key]) for key in composition)


def test_a_record_says_what_masks_keep_layer_by_layer(cell: Run, tmp_path: Path) -> None:
    masked = {"rank": 2, "mask_rank": 2, "hidden": 4}
    finish(
        replace(cell, record=tmp_path / "r.json", work=tmp_path, method="stamina", options=masked),
        run,
    )
    (record,) = read_records(tmp_path)
    bank = Bank.open(tmp_path / "bank")
    assert len(record.data["masks"]) == 3
    ones, shares = 0, []
    for name, told in zip(bank.concepts, record.data["masks"], strict=True):
        tensors = bank.load(name)[0]
        for layer, (kept, of) in told.items():
            A, B = (tensors[f"{layer}/{factor}"] for factor in "AB")
            bits = np.unpackbits(tensors[f"{layer}/mask"].numpy(), bitorder="little")
            assert (kept, of) == (bits.sum(), len(A) * B.shape[1])
            ones, shares = ones + kept, [*shares, kept / of]
    found = numbers(record)
    entries = sum(of for task in record.data["masks"] for _, of in task.values())
    assert found["density"] == ones / entries
    assert (found["density_least"], found["density_most"]) == (min(shares), max(shares))
    assert 0 < found["density_least"] < found["density_most"] < 1
