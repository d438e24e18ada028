"""Options: a dataclass's field is the option of its verb, of the Python call and of the JSON."""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import perdure
from perdure import cli
from perdure.benchmarks.settings import BenchSettings, ClassBenchSettings
from perdure.classification.settings import FitSettings
from perdure.cli.fields import Given, docs_of, flag_of, with_options
from perdure.drawing.settings import DrawSettings
from perdure.errors import PerdureError
from perdure.learning.settings import LearnSettings
from perdure.measuring.settings import EvaluateSettings
from perdure.settings import Commas, Count, Option, Settings, allowed

VERBS = {
    "learn": [LearnSettings],
    "generate": [DrawSettings],
    "evaluate": [EvaluateSettings],
    "bench": [BenchSettings],
    "classify": [ClassBenchSettings, FitSettings],
}
ALL = [settings for several in VERBS.values() for settings in several]


@dataclass(frozen=True, kw_only=True)
class Wings(Settings):
    """Made for these tests."""

    called: ClassVar[str] = "flying"

    wings: Count = 2
    """How many wings, on both sides. Birds have two."""
    height: float | None = None
    """How high it flies, in metres."""
    song: Literal["loud", "soft"] = "soft"
    """How it sings: soft, loud, ..."""
    calls: Annotated[tuple[str, ...], Option("call")] = ()
    """What it calls."""
    kinds: Annotated[tuple[str, ...], Commas] = ("wren",)
    """Which birds."""
    flocks: bool = True
    """Does it fly with others?"""


def verb_of(app: typer.Typer, name: str) -> Any:
    command = typer.main.get_command(app)
    return command.commands[name] if hasattr(command, "commands") else command


def flown(*words: str, settings: type[Settings] | Settings = Wings) -> dict[str, Any]:
    """What a verb with these options is given for these words."""
    told: list[Given] = []
    app = typer.Typer(add_completion=False, rich_markup_mode=None)

    @app.command()
    @with_options(settings=settings)
    def fly(place: str = "here", *, settings: Given, fast: bool = False) -> None:
        told.append(settings)

    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return dict(told[0]) if told else {"help": " ".join(result.output.split())}


def stopped(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["perdure", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


@pytest.mark.parametrize("verb", VERBS)
def test_every_field_is_an_option_of_its_verb_with_the_fields_own_help(verb: str) -> None:
    options = {flag: one for one in verb_of(cli.app, verb).params for flag in one.opts}
    for settings in VERBS[verb]:
        docs = docs_of(settings)
        for name, one in allowed(settings).items():
            if (settings, name) == (FitSettings, "seed"):
                continue  # a grid counts its seeds
            option = options[flag_of(name, one)]
            assert docs[name].startswith(option.help.partition("  [default")[0]), name
            assert option.default is None, f"{name}: a default would hide what the base advises"


@pytest.mark.parametrize("settings", ALL)
def test_every_field_has_a_docstring_a_default_and_a_type_that_a_command_line_can_give(
    settings: type[Settings],
) -> None:
    assert {one.type for one in allowed(settings).values()} <= {int, float, bool, str, tuple}
    for field in fields(settings):
        assert field.default is not MISSING and docs_of(settings)[field.name].endswith(".")


@pytest.mark.parametrize("settings", ALL)
def test_settings_come_back_from_their_json(settings: type[Settings]) -> None:
    made = settings()
    assert settings.of(json.loads(json.dumps(made.to_json()))) == made


def test_a_field_appears_on_the_command_line_without_a_change_there() -> None:
    assert flown() == {}
    words = ["--wings", "4", "--height", "1e2", "--no-flocks", "--song=loud"]
    assert flown(*words) == {"wings": 4, "height": 100.0, "flocks": False, "song": "loud"}
    assert flown("--call", "a, b", "--call", "c")["calls"] == ("a, b", "c")
    assert flown("--kinds", "wren, robin", "--kinds", "owl")["kinds"] == ("wren", "robin", "owl")
    text = flown("--help")["help"]
    assert "How many wings, on both sides. [default: 2]" in text and "Birds" not in text
    assert "[loud|soft]" in text and "How it sings: soft, loud, ... [default: soft]" in text
    assert "How high it flies, in metres. --" in text
    assert flown("--height", "3", settings=Wings(wings=6)) == {"wings": 6, "height": 3.0}
    assert "on both sides. [default: 6]" in flown("--help", settings=Wings(wings=6))["help"]


@pytest.mark.parametrize(
    ("name", "text", "value", "mend"),
    [
        ("wings", "0", 0, "wings is 0, but must be a whole number of at least 1."),
        ("wings", "two", "two", "wings is 'two', but must be a whole number of at least 1."),
        ("wings", "2.0", "2.0", "wings is '2.0', but must be a whole number of at least 1."),
        ("height", "inf", float("inf"), "height is inf, but must be a finite number, or None."),
        ("song", "shrill", "shrill", "song is 'shrill', but must be 'loud' or 'soft'."),
    ],
)
def test_a_value_that_does_not_fit_is_the_same_sentence_from_everywhere(
    name: str, text: str, value: object, mend: str
) -> None:
    for call in (lambda: flown(f"--{name}", text), lambda: Wings.of({name: value})):
        with pytest.raises(PerdureError) as refused:
            call()
        assert str(refused.value) == f"Flying option {mend}"


def test_a_whole_number_of_numpys_is_one_and_a_single_text_is_a_list_of_one() -> None:
    made = Wings.of({"wings": np.int64(3), "calls": "tsip, tsip", "kinds": "wren,owl"})
    assert json.loads(json.dumps(made.to_json()))["wings"] == 3
    assert made.calls == ("tsip, tsip",) and made.kinds == ("wren", "owl")
    for wrong in ({"wings": True}, {"flocks": 1}, {"calls": [1]}, {"height": "3"}):
        with pytest.raises(PerdureError, match=f"{next(iter(wrong))} is .*, but must be"):
            Wings.of(wrong)
    with pytest.raises(PerdureError, match="no flying option 'feet': choose from wings, height"):
        Wings.of({"feet": 2})


def test_bad_options_are_one_sentence_before_anything_is_opened(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cases = [
        (("learn", "nowhere", "--steps", "x"), "steps is 'x', but must be a whole number"),
        (("learn", "nowhere", "--seed", 2**31), "seed is 2147483648"),
        (("generate", "a photo", "--guidance", "nan"), "guidance is nan"),
        (("generate", "a photo", "--count", 0), "count is 0"),
        (("evaluate", "--pictures", 1), "pictures is 1, but must be a whole number from 2"),
        (("bench", "people-3", "--moments", "often"), "must be 'all' or 'milestones'"),
        (("bench", "people-3", "--seeds", 0), "seeds is 0"),
        (("classify", "folders", "--crop", 2), "crop is 2.0, but must be a finite number above 0"),
        (("bench", "people-3", "--methods", "lora"), "No such option: --methods"),
        (("learn", "x", "--ray-address", "auto"), "No such option: --ray-address"),
        (("learn", "x", "--lr"), "--lr"),
        (("generate",), "Give a prompt"),
        (("teach",), "No such command 'teach'"),
    ]
    for words, sentence in cases:
        assert stopped(monkeypatch, *words) == 2
        out, error = capfd.readouterr()
        assert sentence in error and len(error.strip().splitlines()) == 1, (words, error)
        assert not out


def test_an_interrupt_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def pressed(*asked: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("perdure.smallworld.samples.write_pictures", pressed)
    assert stopped(monkeypatch, "smallworld", "photos") == 130
    assert "nothing is lost" in capfd.readouterr().err


def test_an_option_has_one_name_in_every_verb() -> None:
    names: dict[str, set[str]] = {}
    for verb in typer.main.get_command(cli.app).commands.values():
        for one in verb.params:
            if one.param_type_name == "option":
                names.setdefault(one.name, set()).add(one.opts[0])
    assert {name: flags for name, flags in names.items() if len(flags) > 1} == {}
    assert {"--ray"} == names["ray"] and {"--method"} == names["method"]
    for call in (perdure.learn_many, perdure.resume_many):
        assert "ray" in inspect.signature(call).parameters


def test_list_show_remove_and_export_are_python_calls(
    tiny: Path, drawings: Path, tmp_path: Path
) -> None:
    base, bank = perdure.Base.open(tiny, device="cpu"), tmp_path / "bank"
    for name in ("ada", "bo"):
        perdure.learn(
            base, bank, {name: drawings / name}, method="c-lora", options={"rank": 2}, steps=2
        )
    rows = perdure.list(bank)
    assert [(row.concept, row.task, row.steps) for row in rows] == [
        ("ada", "01-ada", 2),
        ("bo", "02-bo", 2),
    ]
    assert all(row.bytes > 0 and row.seconds > 0 for row in rows)
    assert perdure.show(bank, "bo")["concept"] == "bo"
    made = perdure.export(base, bank, tmp_path / "folded")
    assert made.pipeline == "StableDiffusionPipeline" and made.compared == ("ada", "bo")
    assert made.difference is not None and made.difference <= 3
    assert perdure.export(base, bank, tmp_path / "other", check=False).difference is None
    assert perdure.remove(bank, "ada") == ("bo",)
    assert [row.concept for row in perdure.list(perdure.Bank.open(bank))] == ["bo"]
    with pytest.raises(PerdureError, match="ada"):
        perdure.remove(bank, "ada")


def test_drawing_counts_its_seeds_from_the_first_for_every_prompt(
    tiny: Path, drawings: Path, tmp_path: Path
) -> None:
    base, bank = perdure.Base.open(tiny, device="cpu"), tmp_path / "bank"
    perdure.learn(base, bank, {"ada": drawings / "ada"}, options={"rank": 2}, steps=2)
    prompts = ["a photo of <ada>", "a photo of a cat"]
    some = {"steps": 2, "guidance": 2}
    counted = perdure.draw(base, bank, prompts, count=2, seed=3, **some)
    named = perdure.draw(base, bank, [p for p in prompts for _ in "ab"], seeds=[3, 4, 3, 4], **some)
    assert [one.tobytes() for one in counted] == [one.tobytes() for one in named]
    (one,) = perdure.draw(base, bank, prompts[0], seeds=4, **some)
    assert one.tobytes() == named[1].tobytes()
    for wrong, words in (
        ({"seeds": [1, 2], "seed": 1}, "seed has no effect beside seeds"),
        ({"scale": 2}, "no drawing option 'scale': choose from steps, guidance"),
        ({"batch_size": 0}, "batch_size is 0"),
    ):
        with pytest.raises(PerdureError, match=words):
            perdure.draw(base, bank, prompts, **wrong)
