"""A file of concepts: what it may say, and that each is learned as it says."""

import pytest
from typer.testing import CliRunner

from perdure.bank import Bank
from perdure.cli import app
from perdure.errors import PerdureError
from perdure.learning.lessons import read_lessons


def written(folder, text):
    path = folder / "stream.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_says_what_the_command_line_can(tmp_path):
    path = written(
        tmp_path,
        """
        method = "c-lora"
        [options]
        rank = 2
        [learn]
        steps = 30
        batch-size = 2
        [[concept]]
        pictures = "photos/rex"
        noun = "dog"
        [[concept]]
        name = "ink"
        pictures = ["a.jpg", "b.jpg"]
        template = "a painting in the style of {}"
        steps = 40
        size = "64x32"
        """,
    )
    told = read_lessons(path)
    assert (told.method, told.options) == ("c-lora", {"rank": 2})
    assert told.settings == {"steps": 30, "batch_size": 2}
    rex, ink = told.lessons
    assert (rex.name, rex.noun, rex.settings) == ("rex", "dog", {})
    assert rex.pictures == tmp_path / "photos" / "rex"
    assert ink.pictures == (tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert ink.settings == {
        "templates": "a painting in the style of {}",
        "steps": 40,
        "size": "64x32",
    }


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "teaches nothing"),
        ("concept = [3]", "teaches nothing"),
        ("[[concept", "no TOML file"),
        ("[[concepts]]\npictures = 'a'", "'concepts', which means nothing"),
        ("method = 3\n[[concept]]\npictures = 'a'", "method is 3, but must be a text"),
        ("[[concept]]\nname = 'a'", "concept 1 has no pictures"),
        ("[[concept]]\npictures = ['a.jpg']", "several sources and no name"),
        ("[[concept]]\npictures = 'a'\n[[concept]]\nname='a'\npictures = 'b'", "'a' twice"),
        (
            "[[concept]]\npictures = 'a'\nstepz = 4",
            "concept 1: There is no learning option 'stepz'",
        ),
        (
            "[learn]\nsteps = 0\n[[concept]]\npictures = 'a'",
            r"\[learn\]: Learning option steps is 0",
        ),
        ("[[concept]]\npictures = 'a'\nsteps = '4'", "steps is '4'"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(tmp_path, text, word):
    with pytest.raises(PerdureError, match=word) as raised:
        read_lessons(written(tmp_path, text))
    assert str(raised.value).startswith(str(tmp_path / "stream.toml"))


def test_a_file_is_learned_and_gone_on_with(tiny, drawings, tmp_path):
    concept = '[[concept]]\npictures = "{}"\n'
    path = written(
        tmp_path,
        'method = "lora"\n[options]\nrank = 2\n[learn]\nsteps = 1\n'
        + concept.format(drawings / "ada")
        + 'noun = "cat"\nsteps = 2\n',
    )
    run = CliRunner()
    words = ["learn", str(path), "--no-check", "--base", str(tiny)]
    words += ["--bank", str(tmp_path / "bank")]
    first = run.invoke(app, words)
    assert first.exit_code == 0, first.output
    with path.open("a") as file:
        file.write(concept.format(drawings / "bo"))
    again = run.invoke(app, [*words, "--token-lr", "0.25"])
    assert again.exit_code == 0, again.output
    assert "<ada> is learned already" in again.output.replace("\n", " ")
    bank = Bank.open(tmp_path / "bank")
    assert bank.concepts == ("ada", "bo") and bank.config["rank"] == 2
    ada, bo = (task.facts for task in bank.tasks)
    assert (ada["settings"]["steps"], bo["settings"]["steps"]) == (2, 1)
    assert ada["nouns"] == {"ada": "cat"} and bo["settings"]["token_lr"] == 0.25
    other = run.invoke(app, [*words, "--name", "rex"])
    assert other.exit_code != 0 and "names its concepts itself" in str(other.exception)
