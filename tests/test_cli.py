"""The command line: what works, and one sentence without a traceback for what does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from perdure import cli
from perdure.methods import METHODS


@pytest.fixture
def perdure(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path):
    """Runs a command in a fresh folder; returns exit status, standard output and error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["perdure", *map(str, arguments)])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        out, error = capfd.readouterr()
        return status, out, error

    return run


def taught(perdure, tiny: Path, drawings: Path, *more: str) -> None:
    folders = drawings / "ada", drawings / "bo"
    short = "--steps", 2, "--option=rank=2"
    status, out, error = perdure("learn", *folders, "--base", tiny, *short, *more)
    assert status == 0, error
    assert "learned <ada>" in out
    assert "learned <bo>" in out
    assert "likeness kept" in out


def test_learn_list_show_generate_evaluate_export_and_remove_work_in_turn(
    perdure, tiny: Path, drawings: Path, tmp_path: Path
) -> None:
    taught(perdure, tiny, drawings, "--method=c-lora")
    status, out, _ = perdure("list")
    assert status == 0
    assert "<ada>" in out
    assert "2 concepts" in out
    status, out, _ = perdure("show", "bo")
    assert json.loads(out)["concept"] == "bo"
    status, out, error = perdure(
        "generate", "a photo of <ada> and <bo>", "--base", tiny, "--count", 2, "--scale", 2
    )
    assert status == 0, error
    assert Image.open(tmp_path / "pictures" / "00-1.png").size == (64, 64)
    status, out, error = perdure(
        "evaluate", "--base", tiny, "--references", drawings, "--pictures", 2
    )
    assert status == 0, error
    page = (tmp_path / "bank" / "evaluation" / "report.html").read_text()
    assert "ada" in page
    matrix = json.loads((tmp_path / "bank" / "evaluation" / "matrix.json").read_text())
    assert "identity" in matrix["scores"]
    status, out, error = perdure("export", "folded", "--base", tiny)
    assert status == 0, error
    assert "largest difference" in out
    assert (tmp_path / "folded" / "model_index.json").exists()
    (tmp_path / "bank" / "concepts" / "ada" / "concept.safetensors").write_bytes(b"damaged")
    status, out, error = perdure("generate", "a photo of <ada>", "--base", tiny)
    assert status == 2 and "`perdure remove ada`" in error
    status, out, _ = perdure("remove", "ada")
    assert status == 0
    assert "1 concepts remain" in out
    cost = json.loads((tmp_path / "bank" / "tasks" / "02-bo" / "cost.json").read_text())
    assert cost["costs"] == []  # nothing of <ada> is left


def test_what_the_user_can_mend_is_one_sentence_and_status_two(
    perdure, tiny: Path, drawings: Path, tmp_path: Path
) -> None:
    taught(perdure, tiny, drawings, "--method=c-lora")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n not a picture")
    (tmp_path / "empty").mkdir()
    cases = [
        (("learn",), "Which pictures"),
        (("learn", "nowhere", "--base", tiny), "There is no nowhere"),
        (("learn", broken, "--base", tiny), "a.png"),
        (("learn", tmp_path / "empty", "--base", tiny), "empty"),
        (("learn", drawings / "ada", "--base", tiny), "ada"),
        (("learn", drawings / "cy", "--base", tiny, "--method", "magic"), "magic"),
        (("learn", drawings / "cy", "--base", tiny, "--option", "depth=2"), "depth"),
        (("learn", drawings / "cy", "--base", tiny, "--lr", "-1"), "lr is -1"),
        (("learn", drawings / "cy", "--base", tmp_path / "empty"), "model_index.json"),
        (("learn", drawings / "cy", "--base", "no-such-base"), "There is no base"),
        (("learn", "--resume", "--base", tiny), "Nothing was interrupted"),
        (("learn", "--resume", "--base", tiny, "--steps", 3), "options that the learn began with"),
        (("learn", drawings / "cy", "--base", tiny, "--prior-weight", 2), "without prior"),
        (("export", "folded", "--base", tiny, "--concept", "ada"), "leave --concept out"),
        (("export", "folded", "--base", tiny, "--concept", "zoe"), "<zoe>"),
        (("generate", "a photo of <zoe>", "--base", tiny), "<zoe>"),
        (("generate", "a photo", "--bank", "nowhere", "--base", tiny), "nowhere"),
        (("remove", "zoe"), "zoe"),
        (("evaluate", "--base", tiny, "--references", tmp_path / "empty"), "ada"),
        (("smallworld", "out", "--domain", "dragon"), "dragon"),
    ]
    for arguments, word in cases:
        status, out, error = perdure(*arguments)
        assert status == 2, (arguments, out, error)
        assert word in error, (arguments, error)
        assert "Traceback" not in out + error
        assert len(error.strip().splitlines()) == 1, error
    assert perdure("list")[1].count("<") == 2


def test_several_folders_are_learned_at_once_where_the_method_allows_it(
    perdure, tiny: Path, drawings: Path
) -> None:
    asked = ("learn", drawings / "bo", drawings / "ada", "--base", tiny, "--steps", 2)
    status, _, error = perdure(*asked, "--processes", 2, "--method", "c-lora")
    assert status == 2
    assert "c-lora learns every task on top" in error
    assert not Path("bank").exists()
    status, out, error = perdure(
        *asked, "--processes", 2, "--method", "textual-inversion", "--bank", "words"
    )
    assert status == 0, error
    assert out.index("learned <bo>") < out.index("learned <ada>")
    assert "2 concepts" in perdure("list", "--bank", "words")[1]


def test_smallworld_writes_pictures_that_learn_reads(perdure, tmp_path: Path) -> None:
    status, out, _ = perdure("smallworld", "photos", "--identity", 2000001, "--count", 3)
    assert status == 0
    assert len(list((tmp_path / "photos").glob("*.png"))) == 3


def test_methods_are_listed_with_a_line_their_paper_and_their_options(perdure) -> None:
    status, out, _ = perdure("methods")
    assert status == 0
    for name, method in METHODS.items():
        assert f"\n{name}\n  {method.title}\n  {method.paper}\n" in f"\n{out}"
        assert len(method.title) < 100 and ": " in method.title
    assert "replay=8" in out and "penalty=1000000.0" in out


def test_joint_learns_all_folders_in_one_task_and_no_more(
    perdure, tiny: Path, drawings: Path, tmp_path: Path
) -> None:
    common = ("--base", tiny, "--steps", 2)
    folders = (drawings / "ada", drawings / "bo")
    status, out, error = perdure("learn", *folders, "--method", "joint", *common)
    assert status == 0, error
    assert "learned <ada>, <bo>" in out
    cases = [
        (("learn", drawings / "cy", *common), "joint cannot start"),
        (("remove", "ada"), "cannot be removed alone"),
        (("learn", *folders, *common, "--name=x", "--name=x", "--bank=b"), "named x"),
        (
            ("learn", drawings / "cy", *common, "--bank=c", "--method=ewc", "--option=penalty=x"),
            "ewc: penalty is 'x'",
        ),
    ]
    for arguments, word in cases:
        status, out, error = perdure(*arguments)
        assert status == 2, (arguments, out, error)
        assert word in error and len(error.strip().splitlines()) == 1, error


def test_methods_and_help_need_no_torch() -> None:
    code = "import sys; import perdure.cli; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_an_output_folder_that_cannot_be_one_is_refused_before_the_work(
    perdure, tiny: Path, drawings: Path, tmp_path: Path
) -> None:
    learn = "learn", drawings / "ada", "--base", tiny, "--steps", 1, "--method=lora"
    assert perdure(*learn)[0] == 0
    (tmp_path / "file").write_text("mine")
    classes = "smallworld-classes-100"
    for place in ("file", "file/below"):
        cases = [
            ("generate", "<ada>", "--base", tiny, "--out", place),
            ("export", place, "--base", tiny),
            ("evaluate", "--base", tiny, "--out", place),
            ("smallworld", place),
            ("demo", "--out", place),
            ("bench", "people-5", "--out", place),
            ("bench", "people-5", "--work", place),
            ("classify", classes, "--out", place),
            ("classify", classes, "--work", place),
            ("doctor", "--measure", "--out", place),
        ]
        for arguments in cases:
            status, out, error = perdure(*arguments)
            assert status == 2, (arguments, out, error)
            assert "file is a file: choose another folder" in error, (arguments, error)
            assert len(error.strip().splitlines()) == 1, error
    assert (tmp_path / "file").read_text() == "mine"


def test_a_picture_is_shown_and_drawn_again_and_what_is_given_beside_it_changes_it(
    perdure, tiny: Path, drawings: Path, tmp_path: Path
) -> None:
    learn = "learn", drawings / "ada", "--base", tiny, "--steps", 1, "--option=rank=2"
    assert perdure(*learn, "--no-check")[0] == 0
    draw = "generate", "--base", tiny
    status, out, error = perdure(*draw, "<ada>", "a dog", "--count", 2, "--scale", 2, "--grid")
    assert status == 0, error
    names = ["00-0.png", "00-1.png", "01-0.png", "01-1.png", "02-grid.png"]
    assert [Path(line).name for line in out.splitlines()] == names
    assert Image.open("pictures/02-grid.png").width == 128
    status, out, error = perdure("show", "pictures/00-1.png")
    assert status == 0 and out.startswith("<ada>\nSteps: 2, "), error
    assert json.loads(out[out.index("{") :])["seed"] == 1

    status, out, error = perdure(*draw, "--like", "pictures/00-1.png")
    assert status == 0 and out.split() == ["pictures/03-1.png"], error
    assert Path("pictures/03-1.png").read_bytes() == Path("pictures/00-1.png").read_bytes()
    more = "--like", "pictures/00-1.png", "--seed", 0, "--scale", 1
    status, out, error = perdure(*draw, "a dog", *more)
    assert status == 0 and out.split() == ["pictures/04-0.png"], error
    dog = Image.open("pictures/01-0.png").resize((32, 32), 0)
    assert Image.open("pictures/04-0.png").tobytes() == dog.tobytes()
    begun = "--init", "pictures/00-0.png", "--strength", 0.5
    status, out, error = perdure(*draw, "a dog", "--count", 1, *begun)
    assert status == 0 and out.split() == ["pictures/05-0.png"], error

    for arguments, why in (
        (draw, "Give a prompt"),
        (("show", "pictures/02-grid.png"), "does not say how it was drawn"),
        (("show", "nowhere.png"), "There is no picture nowhere.png"),
        (("show", "a b"), "neither a concept's name nor a picture"),
        (("show", "nobody"), "'nobody'; its concepts: ada"),
        ((*draw, "--like", "nowhere.png"), "no picture nowhere.png"),
        ((*draw, "--like", "pictures/05-0.png"), "--init"),
        ((*draw, "<ada>", "--count", "x"), "count is 'x'"),
    ):
        status, out, error = perdure(*arguments)
        assert status == 2 and why in error and len(error.strip().splitlines()) == 1, error


def test_a_refused_command_leaves_no_empty_folder(
    perdure, tiny: Path, drawings: Path, tmp_path: Path
) -> None:
    assert perdure("learn", drawings / "ada", "--base", tiny, "--steps", 1, "--no-check")[0] == 0
    for arguments, why in (
        (("generate", "<zoe>", "--base", tiny, "--out", "new"), "<zoe>"),
        (("evaluate", "--base", tiny, "--references", "none", "--out", "new"), "none"),
        (("doctor", "--base", tiny, "--measure", "--out", "new"), "cannot be measured"),
        (("learn", drawings / "bo", "--base", tiny, "--wait", "nan"), "wait is nan"),
    ):
        status, out, error = perdure(*arguments)
        assert status == 2 and why in error, (arguments, out, error)
        assert not (tmp_path / "new").exists()


def test_doctor_does_not_replace_a_model_card(perdure, tmp_path: Path) -> None:
    (tmp_path / "smallworld.json").write_text("mine")
    status, out, error = perdure("doctor", "--measure", "--pictures", 8, "--out", tmp_path)
    assert status == 2 and "smallworld.json in it already" in error, (out, error)
    assert (tmp_path / "smallworld.json").read_text() == "mine"


def test_nothing_that_was_written_before_is_overwritten(
    perdure, tiny: Path, drawings: Path, tmp_path: Path
) -> None:
    learn = "learn", drawings / "ada", drawings / "bo", "--base", tiny, "--steps", 1
    assert perdure(*learn, "--method=lora", "--no-check")[0] == 0

    def files(folder: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}

    draw = "generate", "a photo of <ada>", "a photo of <bo>", "--base", tiny, "--count", 1
    assert perdure(*draw)[0] == 0
    before = files("pictures")
    assert sorted(before) == ["00-0.png", "01-0.png"]
    status, out, error = perdure(*draw, "--seed", 5)
    assert status == 0, error
    assert "02-5.png" in out and "03-5.png" in out
    assert files("pictures").items() >= before.items()

    assert perdure("smallworld", "photos", "--count", 2)[0] == 0
    before = files("photos")
    assert perdure("smallworld", "photos", "--count", 3)[0] == 0  # the first two are the same
    assert files("photos").items() >= before.items() and len(files("photos")) == 3
    before = files("photos")
    status, out, error = perdure("smallworld", "photos", "--identity", 7)
    assert status == 2 and "00.png is there and another picture" in error
    assert files("photos") == before

    evaluate = "evaluate", "--base", tiny, "--pictures", 2
    assert perdure(*evaluate, "--out", "results")[0] == 0
    before = files("results")
    status, out, error = perdure(*evaluate, "--out", "results")
    assert status == 2 and "results has results in it already" in error
    assert files("results") == before
    assert perdure(*evaluate)[0] == perdure(*evaluate)[0] == 0  # the bank's own is made anew


def test_a_lora_is_exported_and_adopted_and_both_say_what_they_did(
    perdure, tiny: Path, drawings: Path, tmp_path: Path
) -> None:
    taught(perdure, tiny, drawings, "--method=gated")
    on = "--base", tiny
    status, out, error = perdure("export", "out", "--format", "kohya", "--concept", "ada", *on)
    assert status == 0, error
    assert "out/ada.safetensors\n<ada>: a LoRA of rank 2, nothing cut away." in out
    assert "A LoRA acts on every word, the bank at the concept's own alone" in out
    word = "out/embeddings/ada.safetensors"
    status, out, error = perdure(
        "adopt", "out/ada.safetensors", "--embedding", word, "--bank", "other", *on
    )
    assert status == 0, error
    assert "adopted <ada>: rank 2 in 8 layers, scale 1" in out
    status, out, error = perdure("adopt", word, "--name", "eve", "--bank", "other", *on)
    assert status == 0, error
    assert "adopted <eve>: a token" in out
    status, out, error = perdure("generate", "<ada> and <eve>", "--bank", "other", *on)
    assert status == 0, error
    status, _, error = perdure("adopt", "out/ada.safetensors", "--bank", "other", *on)
    assert status == 2 and "is a LoRA: say either by which word" in error
    status, _, error = perdure("push", "ada/pets", "--bank", "other", *on)
    assert status == 2 and "--consent" in error
    status, _, error = perdure("export", "x", "--format", "gguf", *on)
    assert status == 2 and "format is 'gguf', but must be 'diffusers', 'peft'" in error
