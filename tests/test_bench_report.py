"""Tables and page of a stream: against numbers by hand, and what must be refused or left out."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image
from typer.testing import CliRunner

from perdure.benchmarks import class_words, words
from perdure.benchmarks.classes import CLASSIFICATION
from perdure.benchmarks.concepts import DRAWING
from perdure.benchmarks.kind import Kind
from perdure.benchmarks.paired import difference
from perdure.benchmarks.report import write_results
from perdure.benchmarks.results import read_results
from perdure.benchmarks.runs import FORMAT
from perdure.benchmarks.series import by_place, forgetting_by_length, mean_matrix
from perdure.benchmarks.words import commands
from perdure.cli import app
from perdure.errors import PerdureError
from perdure.measuring.latex import escape, latex_table
from perdure.measuring.matrix import TaskMatrix
from perdure.measuring.tables import Column, cells
from perdure.methods.c_lora import CLoRA

NAMES = ("ada", "ben", "cleo")
VOID = {"meta", "img", "line", "circle", "path", "rect"}


def rows(loss: float, shift: float = 0.0) -> list[list[float | None]]:
    """Every concept at 0.8, and `loss` less after every task that follows."""
    return [
        [round(0.8 + shift - loss * (i - j), 6) if i >= j else None for j in range(3)]
        for i in range(3)
    ]


def record(
    folder: Path,
    method: str = "lora",
    *,
    seed: int = 0,
    order: int = 0,
    loss: float = 0.1,
    **changed: object,
) -> Path:
    """A record of three concepts with its sheets of pictures; `changed` replaces what it says."""
    names = NAMES[order:] + NAMES[:order]
    scores = {
        "identity": rows(loss, 0.01 * seed),
        "image_alignment": rows(loss / 2),
        "text_alignment": rows(0.0),
        "base_drift": rows(0.0),
        "mmd": rows(-loss),
        "mmd_change": rows(-loss, -0.8),
    }
    if styles := changed.get("styles"):
        for row in scores["identity"]:
            row[names.index(styles[0])] = None
    matrix = TaskMatrix(
        tasks=[[name] for name in names],
        scores=scores,
        higher_is_better={score: "mmd" not in score for score in scores},
    )
    data = {
        "format": FORMAT,
        "kind": "drawing",
        "stream": {
            "name": "people-3",
            "concepts": [{"name": name} for name in names],
            "pictures": 8,
            "order": order,
        },
        "styles": [],
        "method": method,
        "config": {"rank": 8},
        "chosen": {},
        "seed": seed,
        "settings": {"steps": 200, "seed": seed, "templates": [f"a photo of {names[-1]}"]},
        "base": {"name": "smallworld", "hash": "0123456789abcdef"},
        "encoder": {"name": "smallworld", "identity": "identity head", "hash": "fedcba98"},
        "asked": {"base": "smallworld", "encoder": None, "pictures": 8, "pairs": 1},
        "versions": {"torch": "2.13.0", "machine": "x86_64"},
        "seconds": [10.0, 20.0, 30.0],
        "peak_memory": 2_000_000_000,
        "parameters": 76160,
        "parameters_of_denoiser": 7_616_000,
        "stored_bytes": 900_000,
        "bounds": {name: [0.9, 0.1] for name in names},
        "matrix": json.loads(matrix.to_json()),
        "pictures": 8,
        "moments": "all",
        "together": {
            "pairs": [["ada", "ben"]],
            "plain": {"both": 0.25, "likeness": 0.5, "pictures": 2},
            "boxes": {"both": 0.75, "likeness": 0.6, "pictures": 2},
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{method}-seed{seed}-order{order}.json"
    path.write_text(json.dumps(data | changed))
    Image.new("RGB", (24, 24), (seed, 90, 200)).save(path.with_suffix(".webp"))
    Image.new("RGB", (16, 16)).save(path.with_name(path.stem + "-together.webp"))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two methods, three seeds, and a second order of one of them."""
    for seed in range(3):
        record(tmp_path / "people-3", "lora", seed=seed, loss=0.1 + 0.01 * seed)
        record(tmp_path / "people-3", "c-lora", seed=seed, loss=0.02)
    record(tmp_path / "people-3", "c-lora", order=1, loss=0.03)
    return tmp_path / "people-3"


def test_the_tables_show_every_order_by_itself(folder: Path) -> None:
    write_results(folder)
    part = (folder / "results.md").read_text().partition("## Each order by itself")[2]
    rows = {line.split("|")[1].strip(): line.split("|")[2:] for line in part.splitlines()[4:]}
    assert list(rows) == ["C-LoRA, 0", "C-LoRA, 1"]  # lora has one order
    forgotten = [rows[name][2].strip() for name in rows]
    # a concept loses `loss` a task: (2 + 1) / 2 times 0.02, and 0.03
    assert forgotten == ["0.030", "0.045"]


def test_the_further_table_has_what_the_main_one_leaves_out(folder: Path) -> None:
    write_results(folder)
    part = (folder / "results.md").read_text().partition("## Further scores")[2]
    lines = [[cell.strip() for cell in line.split("|")] for line in part.splitlines() if line]
    found = dict(zip(lines[0][1:], lines[2][1:], strict=True))
    assert found["Method"] == "LoRA, sequential"
    # seeds lose 0.10, 0.11 and 0.12 a task: concepts stand 0, 1 and 2 tasks from their own
    front = (folder / "results.md").read_text().partition("A_mmd")[2].partition("A_mmd")[0]
    assert "910.00 ± 10.00" in front  # 0.8 + loss, on the front
    assert "A_mmd x 1000" not in found
    assert found["F_mmd x 1000"] == "165.00 ± 15.00"  # 1.5 tasks of loss
    lost = float(found["forgetting, image alignment"].split()[0])
    assert lost == pytest.approx(0.0825, abs=6e-4)  # 1.5 tasks of half the loss
    assert found["best - last, identity"] == "0.165 ± 0.015"
    assert found["F_N, identity"] == "0.110 ± 0.010"
    assert "1.00" in found["trained, % of the denoiser"] and "2.00" in found["GB at most"]
    header = (folder / "results.csv").read_text().splitlines()[0]
    assert header.endswith("share,memory") and ",mmd_change," in header


def test_kinds_of_concepts_have_rows_of_their_own(tmp_path: Path) -> None:
    kinds = dict(zip(NAMES, ("style", "pet", "pet"), strict=True))
    stream = {
        "name": "mixed",
        "concepts": [{"name": name, "domain": kind} for name, kind in kinds.items()],
        "pictures": 8,
        "order": 0,
    }
    bounds = {name: [0.9, 0.1] for name in NAMES[1:]}
    record(tmp_path, "lora", loss=0.1, stream=stream, styles=["ada"], bounds=bounds)
    write_results(tmp_path)
    part = (tmp_path / "results.md").read_text().partition("## By kind of concept")[2]
    rows = {line.split("|")[1].strip(): line.split("|")[2:] for line in part.splitlines()[4:]}
    cells = {name: [cell.strip() for cell in row] for name, row in rows.items()}
    # identity falls by 0.1 a task, alignment by half of it: ada stands two tasks back, ben one
    assert cells["LoRA, sequential, pet"][:3] == ["0.800", "0.750", "0.775"]
    assert cells["LoRA, sequential, style"][:3] == ["–", "–", "0.700"]

    record(tmp_path, "lora", seed=1, loss=0.1, stream=stream, styles=["ada"], bounds=bounds)
    write_results(tmp_path)
    part = (tmp_path / "results.md").read_text().partition("## By kind of concept")[2]
    assert "±" in part and "**" not in part  # kinds are not equally hard, so there is no best


def test_what_was_not_measured_is_left_out_and_nothing_breaks(tmp_path: Path) -> None:
    record(tmp_path, "c-lora", order=1, composition={}, bounds={})
    record(tmp_path, "c-lora", bounds={})
    record(tmp_path, "lora", bounds={name: [0.1, 0.1] for name in NAMES}, peak_memory=None)
    write_results(tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert "way from floor" not in text and "both recognised" in text
    (tmp_path / "odd.json").mkdir()
    with pytest.raises(PerdureError, match=r"odd\.json is no record of a run"):
        write_results(tmp_path)


def test_the_command_of_a_stream_of_photographs_names_its_layout(tmp_path: Path) -> None:
    stream = {
        "name": "folders-mine",
        "concepts": [{"name": name, "files": [f"{name}.jpg"]} for name in NAMES],
        "pictures": 8,
        "order": 0,
    }
    asked = {"base": "models/sd15", "encoder": "models/my clip", "pictures": 8, "pairs": 1}
    record(tmp_path, stream=stream, asked=asked)
    (command,) = commands(read_results(tmp_path))
    assert command.startswith("perdure bench folders --photos FOLDER --method lora")
    assert command.endswith("--base models/sd15 --encoder 'models/my clip' --no-held-out")


def test_a_long_stream_is_shown_part_by_part() -> None:
    names = [f"c{k}" for k in range(4)]
    scores = [[0.9, *[None] * 3], [None, 0.8, *[None] * 2], [*[None] * 2, 0.7, None]]
    matrix = TaskMatrix(
        tasks=[[name] for name in names], scores={"identity": [*scores, [0.5, 0.6, 0.7, 0.4]]}
    )
    assert by_place(matrix, "identity", 2) == {
        (1, 2): (pytest.approx(0.85), pytest.approx(0.55)),
        (3, 4): (pytest.approx(0.55), pytest.approx(0.55)),
    }
    assert list(by_place(matrix, "identity", 3)) == [(1, 1), (2, 3), (4, 4)]


class Page(HTMLParser):
    """Tags, attributes and words of a page in which every tag is closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data


def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_table_is_mean_and_spread_of_the_first_order(folder: Path) -> None:
    assert [path.name for path in write_results(folder)] == [
        "results.md",
        "results.tex",
        "results.csv",
        "report.html",
    ]
    heads, _, lora, c_lora = (folder / "results.md").read_text().splitlines()[2:6]
    names = [cell.strip() for cell in heads.split("|")[1:-1]]
    lora, c_lora = (
        dict(zip(names, (cell.strip() for cell in row.split("|")[1:-1]), strict=True))
        for row in (lora, c_lora)
    )
    assert (lora["Method"], c_lora["Method"]) == ("LoRA, sequential", "C-LoRA")
    # lora forgets (2 + 1) / 2 times its loss of 0.10, 0.11, 0.12; C-LoRA always 0.03
    assert lora["forgetting"] == "0.165 ± 0.015"
    assert c_lora["forgetting"] == "**0.030**"
    # lora: 0.8 + 0.01 seed, less (2 + 1 + 0) / 3 times its loss; C-LoRA: less 0.02
    assert lora["identity, at the end"] == "0.700"
    # concepts are 0, 0.09 and 0.18 apart: three draws of the first are 1 of 27, so it holds 0
    assert c_lora["identity, at the end"] == "0.790 ± 0.010"
    assert lora["identity, right after"] == c_lora["identity, right after"] == "0.810 ± 0.010"
    assert lora["s a concept"] == "20.0" and lora["trained"] == "76,160"  # all tie: none is best


def test_a_cell_is_mean_and_spread_and_bold_where_it_is_told_to_be() -> None:
    columns = [Column(key="a", title="a"), Column(key="b", title="b")]
    rows = {"one": {"a": [0.5, 0.6, 0.7], "b": [1.0, 1.0]}, "far": {"a": [0.1, 0.1]}}
    table = cells(rows, columns, {"a": {"one"}})
    assert table["one"] == [("0.60 ± 0.10", True), ("1.00", False)]
    assert table["far"] == [("0.10", False), ("–", False)]
    assert cells(rows, columns)["one"][0] == ("0.60 ± 0.10", False)


def test_the_csv_holds_every_run_unrounded(folder: Path) -> None:
    write_results(folder)
    found = list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))
    assert len(found) == 7
    lora = [row for row in found if row["method"] == "lora"]
    assert [row["seed"] for row in lora] == ["0", "1", "2"]
    assert [float(row["forgetting"]) for row in lora] == pytest.approx([0.15, 0.165, 0.18])
    assert [float(row["reach"]) for row in lora] == pytest.approx([0.875, 0.8875, 0.9])
    assert {row["base_hash"] for row in found} == {"0123456789abcdef"}
    assert [row["order"] for row in found if row["method"] == "c-lora"] == ["0", "0", "0", "1"]


def test_latex_escapes_and_balances() -> None:
    assert escape("50 % & a_b #1 {x} <y> ~ ^ \\") == (
        r"50 \% \& a\_b \#1 \{x\} \textless{}y\textgreater{} \textasciitilde{} "
        r"\textasciicircum{} \textbackslash{}"
    )
    text = latex_table(
        {"a_b & c": {"x": [-0.5, -0.7], "y": [76160.0]}, "d": {"x": [-0.1, -0.3]}},
        [Column(key="x", title="gain, %"), Column(key="y", title="trained", digits=0)],
        caption="100 %",
        label="tab:x",
        best={"x": {"d"}},
    )
    assert r"a\_b \& c & $-0.60 \pm 0.14$ & $76{,}160$ \\" in text
    assert r"d & $\mathbf{-0.20} \pm 0.14$ & -- \\" in text
    assert r"\caption{100 \%}" in text and r"gain, \%" in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_forgetting_by_length_is_forgetting_had_the_stream_ended_there() -> None:
    matrix = TaskMatrix(
        tasks=[["a"], ["b"], ["c"]],
        scores={"identity": [[0.9, None, None], [0.7, 0.8, None], [0.4, 0.7, 0.6]]},
    )
    assert forgetting_by_length(matrix, "identity") == pytest.approx({2: 0.2, 3: 0.3})
    gap = TaskMatrix(
        tasks=matrix.tasks, scores={"identity": [[0.9, None, None], [None] * 3, [0.4, 0.7, 0.6]]}
    )
    with pytest.raises(ValueError, match="not measured"):
        forgetting_by_length(gap, "identity")


def test_a_mean_matrix_has_the_mean_of_every_measured_cell() -> None:
    one, other = (
        TaskMatrix(tasks=[["a"], ["b"]], scores={"identity": [[first, None], [0.2, last]]})
        for first, last in ((0.4, 0.5), (0.6, None))
    )
    mean = mean_matrix([one, other], "identity")
    assert mean.scores["identity"] == ((0.5, None), (0.2, None))


def test_the_page_is_well_formed_complete_and_alone(folder: Path) -> None:
    write_results(folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    shown = page(folder)
    ids = [attributes["id"] for _, attributes in shown.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert ids == [
        "numbers",
        "paired",
        "scatter",
        "over-time-identity",
        "length",
        "orders",
        "pictures",
        "pairs",
        "method",
    ]
    for tag, attributes in shown.tags:
        for key in ("src", "href"):
            if key in attributes:
                assert tag == "img" and attributes[key].startswith("data:image/webp;base64,")
    assert "script" not in {tag for tag, _ in shown.tags}
    assert not re.search(r"https?://|@import|url\(", text)
    for title in ("LoRA, sequential", "C-LoRA"):
        assert shown.words.count(title) >= 6
    words = " ".join(shown.words.split())
    assert "perdure bench people-3 --method lora --seeds 3 --pictures 8 --pairs 1" in words
    assert "--method c-lora --seeds 3 --orders 2" in words
    assert "0123456789abcdef" in words and "torch" in words and "2.13.0" in words


def test_missing_pictures_are_left_out(folder: Path) -> None:
    for path in folder.glob("lora-*.webp"):
        path.unlink()
    write_results(folder)
    alts = [a["alt"] or "" for tag, a in page(folder).tags if tag == "img"]
    assert alts and not any("LoRA, sequential" in alt for alt in alts)
    for path in folder.glob("*.webp"):
        path.unlink()
    write_results(folder)
    ids = {a.get("id") for _, a in page(folder).tags}
    assert "scatter" in ids and not ids & {"pictures", "pairs"}


def test_at_milestones_forgetting_is_known_for_those_lengths() -> None:
    scores = [[0.9, *[None] * 3], [0.8, 0.8, *[None] * 2], [*[None] * 2, 0.7, None]]
    matrix = TaskMatrix(
        tasks=[["a"], ["b"], ["c"], ["d"]], scores={"identity": [*scores, [0.6, 0.7, 0.7, 0.4]]}
    )
    by_length = forgetting_by_length(matrix, "identity")
    assert by_length == {2: pytest.approx(0.1), 4: pytest.approx((0.3 + 0.1 + 0) / 3)}


def test_records_of_the_ends_alone_make_a_page_without_lengths(tmp_path: Path) -> None:
    path = record(tmp_path, loss=0.1, moments="ends")
    data = json.loads(path.read_text())
    for score in data["matrix"]["scores"].values():
        score[1][0] = None
    path.write_text(json.dumps(data))
    write_results(tmp_path)
    ids = {a.get("id") for _, a in page(tmp_path).tags}
    assert "over-time-identity" in ids and not ids & {"length", "orders"}
    assert "One run a method" in page(tmp_path).words


def test_styles_have_no_identity_and_say_so(tmp_path: Path) -> None:
    record(tmp_path, styles=["ada"], bounds={name: [0.9, 0.1] for name in NAMES[1:]})
    write_results(tmp_path)
    shown = page(tmp_path)
    assert "a style has no identity" in shown.words
    assert "over-time-image-alignment" in {a.get("id") for _, a in shown.tags}


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"base": {"name": "other", "hash": "ff"}}, "base"),
        (
            {"encoder": {"name": "clip", "identity": "image embedding", "hash": "0"}},
            "metric encoder",
        ),
        ({"pictures": 4}, "number of pictures"),
        ({"settings": {"steps": 9}}, "settings"),
    ],
)
def test_a_row_never_mixes_unlike_runs(tmp_path: Path, changed: dict, word: str) -> None:
    one = record(tmp_path, seed=0)
    other = record(tmp_path, seed=1, **changed)
    with pytest.raises(PerdureError, match=f"differ in their {word}") as told:
        write_results(tmp_path)
    assert one.name in str(told.value) and other.name in str(told.value)


def test_a_record_from_before_an_option_was_there_is_one_of_its_default(tmp_path: Path) -> None:
    penalty = CLoRA.Config().penalty
    record(tmp_path, "c-lora", seed=0, config={"rank": 8})
    record(tmp_path, "c-lora", seed=1, config={"rank": 8, "penalty": penalty})
    assert len(read_results(tmp_path).methods) == 1
    record(tmp_path, "c-lora", seed=2, config={"rank": 8, "penalty": 2 * penalty})
    with pytest.raises(PerdureError, match="differ in their configuration"):
        read_results(tmp_path)


def test_unlike_methods_are_told_of_at_the_top(tmp_path: Path) -> None:
    record(tmp_path, "lora")
    record(tmp_path, "c-lora", base={"name": "other", "hash": "ff00ff00ff"})
    write_results(tmp_path)
    sentence = "The methods differ in their base, so their numbers do not compare"
    assert sentence in page(tmp_path).words
    assert sentence in (tmp_path / "results.md").read_text()


def test_times_of_two_machines_have_no_mean(tmp_path: Path) -> None:
    own = {"seconds": [2.0, 4.0, 6.0], "versions": {"machine": "a CPU"}}
    other = {"seconds": [20.0, 40.0, 60.0], "versions": {"machine": "a GPU"}}
    for seed, where in enumerate((own, other, own)):
        record(tmp_path, "lora", seed=seed, **where)
    record(tmp_path, "c-lora", **other)
    write_results(tmp_path)
    text = (tmp_path / "results.md").read_text()
    titles, lora, c_lora = (
        [cell.strip() for cell in line.split("|")]
        for line in text.splitlines()
        if line.startswith(("| Method |", "| LoRA,", "| C-LoRA")) and line.count("|") > 10
    )
    place = titles.index("s a concept")
    assert lora[place] == "4.0" and c_lora[place] == "40.0"
    assert "its seconds and its memory are of those on its first run's machine" in text


def test_other_streams_and_the_same_run_twice_are_refused(tmp_path: Path) -> None:
    path = record(tmp_path / "twice")
    path.with_name("copy.json").write_text(path.read_text())
    with pytest.raises(PerdureError, match="are the same run"):
        write_results(tmp_path / "twice")
    stream = {"name": "pets-3", "concepts": [{"name": n} for n in NAMES], "pictures": 8, "order": 0}
    record(tmp_path / "two", "lora")
    record(tmp_path / "two", "c-lora", stream=stream)
    with pytest.raises(PerdureError, match="different streams"):
        write_results(tmp_path / "two")


def test_methods_come_in_a_stable_order_with_what_was_chosen(tmp_path: Path) -> None:
    record(tmp_path, "joint")
    record(tmp_path, "gated")
    record(tmp_path, "lora", chosen={"lr": 0.01, "method.rank": 4})
    titles = [method.title for method in read_results(tmp_path).methods]
    assert titles == ["LoRA, sequential (lr 0.01, rank 4)", "Gated", "Joint"]


def test_the_command_line_reports_on_records_and_on_none(folder: Path) -> None:
    asked = ["bench", "people-3", "--report", "--out"]
    result = CliRunner().invoke(app, [*asked, str(folder.parent)])
    assert result.exit_code == 0 and "report.html" in result.output.replace("\n", "")
    assert (folder / "results.csv").exists()
    result = CliRunner().invoke(app, [*asked, str(folder / "empty")])
    assert isinstance(result.exception, PerdureError)
    assert "There is no record of a run in" in str(result.exception)


def test_methods_are_set_against_each_other_over_seeds_and_concepts(tmp_path: Path) -> None:
    for seed in range(2):
        record(tmp_path, "lora", seed=seed, loss=0.1)
        record(tmp_path, "c-lora", seed=seed, loss=0.04 - 0.02 * seed)
    write_results(tmp_path)
    text = (tmp_path / "results.md").read_text()
    part = text.partition("## Less LoRA, sequential")[2].partition("\n## ")[0]
    heads, _, row = ([c.strip() for c in line.split("|")[1:-1]] for line in part.split("\n")[2:5])
    # ada stands two tasks back, ben one: C-LoRA loses 0.12 and 0.06 less with seed 0, 0.16 and 0.08
    # with seed 1. All draws at one end have 1 of 16, so the ends are those: 0.105 -+ 0.045 sqrt(2)
    # below, 0.16 - 0.105 = 0.055 above.
    forgotten = row[heads.index("forgetting")]
    assert forgotten == "**−0.105 [−0.183, −0.041]**"
    assert "Every seed teaches the same concepts." in text and "paired over seeds" in text

    assert "Less C-LoRA" in page(tmp_path).words and "it excludes zero" in page(tmp_path).words


def test_concepts_of_its_own_are_drawn_within_their_seed(tmp_path: Path) -> None:
    for seed in range(2):
        stream = {
            "name": "people-3",
            "concepts": [{"name": name, "seed": 100 * seed + k} for k, name in enumerate(NAMES)],
            "pictures": 8,
            "order": 0,
        }
        record(tmp_path, "lora", seed=seed, loss=0.1, stream=stream)
        record(tmp_path, "c-lora", seed=seed, loss=0.04 - 0.02 * seed, stream=stream)
    one, other = (method.first for method in read_results(tmp_path).methods)
    apart = difference(other, one, "forgetting")
    # Rows (-0.12, -0.06) and (-0.16, -0.08). Both runs are the second in 1/4, and all four of its
    # concepts are ada in 1/16 of these, 1.6 %; three of them, with -0.14, in 4/16 more: 7.8 %.
    assert apart and apart.seeds == 2
    assert apart.low == pytest.approx(-0.105 - (0.14 - 0.105) * 2**0.5)
    write_results(tmp_path)
    assert "Every seed teaches concepts of its own." in (tmp_path / "results.md").read_text()


def test_a_module_of_the_end_at_every_moment_is_told_of(tmp_path: Path) -> None:
    record(tmp_path, "fl2t", composition={})
    record(tmp_path, "lora")
    write_results(tmp_path)
    assert "FL2T is drawn at every moment with the module of the end" in page(tmp_path).words
    record(tmp_path, "fl2t", compositions=3)
    write_results(tmp_path)
    assert "module of the end" not in page(tmp_path).words


@pytest.mark.parametrize(("kind", "meanings"), [(DRAWING, words), (CLASSIFICATION, class_words)])
def test_every_column_says_what_it_means(kind: Kind, meanings: ModuleType) -> None:
    assert {one.key for one in (*kind.columns, *kind.further)} <= meanings.MEANINGS.keys()
