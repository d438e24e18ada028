"""Several folders of one concept, each with a weight."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from perdure import Source, learn, resume
from perdure.bank import Bank
from perdure.cli import app
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.learning.latents import Latents, cache
from perdure.learning.lessons import read_lessons
from perdure.learning.loop import _located
from perdure.learning.settings import LearnSettings
from perdure.learning.sources import read_source

SMALL = {"method": "lora", "options": {"rank": 2}}


@pytest.fixture(scope="module")
def base(tiny) -> Base:
    return Base.open(tiny)


@pytest.fixture
def folders(tmp_path):
    """Two pictures in one folder, one in the other, whose name has an equals sign."""
    for k, name in enumerate(("one/a", "one/b", "x=2/c")):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(k).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path / "one", tmp_path / "x=2"


def test_a_source_is_read_from_a_text_and_said_as_one(folders):
    one, other = folders
    assert Source.of(f"{one}=2.5") == Source(one, 2.5)
    assert Source.of(str(other)) == Source(other)  # it is there under that name
    assert Source.of(f"{other}=3") == Source(other, 3.0)
    for source in (Source(one), Source(one, 0.1), Source(other, 3.0)):
        assert Source.of(str(source)) == source


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf"])
def test_a_weight_that_is_none_is_one_sentence(folders, weight):
    with pytest.raises(PerdureError, match="weight of .*one is .* must be a number above 0"):
        Source.of(f"{folders[0]}={weight}")
    with pytest.raises(PerdureError, match="no number behind the last '='"):
        Source.of(f"{folders[0]}=much")


def test_a_picture_of_weight_three_is_drawn_three_times_as_often(base, folders):
    one, other = folders
    (read,) = read_source(base, "rex", [one, Source(other, 3.0)], LearnSettings())
    assert read.weights == (1.0, 1.0, 3.0)
    assert cache(base, read, flip=True).weights == (1.0, 1.0, 3.0) * 2
    groups = [
        Latents(mean=torch.zeros(2, 1, 1, 1), std=torch.zeros(2, 1, 1, 1)),
        Latents(mean=torch.zeros(1, 1, 1, 1), std=torch.zeros(1, 1, 1, 1), weights=(3.0,)),
    ]
    chances = (torch.arange(1000) + 0.5) / 1000
    found = Counter()
    for chance in chances:
        of, index = _located(groups, chance)
        found[int(of is groups[1]), int(index)] += 1
    assert found == {(0, 0): 200, (0, 1): 200, (1, 0): 600}
    assert _located(groups, torch.tensor(1 - 2**-24))[0] is groups[1]


def test_equal_weights_change_nothing_and_others_do_and_both_are_resumed(base, folders, tmp_path):
    one, other = folders
    files = [one / "a.png", one / "b.png", other / "c.png"]

    def learned(name, source, **more):
        learn(base, tmp_path / name, {"rex": source}, steps=4, **SMALL, **more)
        ((_, tensors),) = Bank.open(tmp_path / name).kept()
        return torch.cat([value.flatten() for _, value in sorted(tensors.items())])

    plain = learned("files", files)
    assert torch.equal(learned("folders", [one, other]), plain)
    weighed = learned("weighed", [one, f"{other}=50"])
    assert not torch.equal(weighed, plain)

    def cut(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learned("cut", [one, f"{other}=50"], report=cut, checkpoint_every=2)
    resume(base, tmp_path / "cut")
    ((_, tensors),) = Bank.open(tmp_path / "cut").kept()
    assert torch.equal(
        torch.cat([value.flatten() for _, value in sorted(tensors.items())]), weighed
    )


def test_a_file_of_concepts_and_the_command_line_say_the_same(tiny, folders, tmp_path):
    one, other = folders
    path = tmp_path / "stream.toml"
    path.write_text('[[concept]]\nname = "rex"\npictures = [{ from = "one", weight = 2 }, "x=2"]\n')
    (lesson,) = read_lessons(path).lessons
    assert [Source.of(source) for source in lesson.pictures] == [Source(one, 2), Source(other)]
    words = ["learn", "--base", str(tiny), "--bank", str(tmp_path / "bank"), "--steps", "1"]
    words += ["--method", "lora", "--option", "rank=2"]
    given = ["--name", "rex", "--pictures", f"{one}=2", "--pictures", str(other)]
    done = CliRunner().invoke(app, [*words, *given])
    assert done.exit_code == 0, done.output
    assert Bank.open(tmp_path / "bank").tasks[0].facts["pictures"] == {"rex": 3}
    for wrong, word in (
        ([*given, str(one)], "by --pictures"),
        ([*given, "--name", "bo"], "one --name"),
        (["--pictures", str(tmp_path / "none")], "There is no"),
        (["--pictures", f"{one}=-1"], "must be a number above 0"),
    ):
        refused = CliRunner().invoke(app, [*words, *wrong])
        assert refused.exit_code != 0 and word in str(refused.exception)


@pytest.mark.parametrize(
    ("pictures", "word"),
    [
        ('[{ from = "one", wait = 2 }]', "'wait', which means nothing"),
        ("[{ weight = 2 }]", "pictures from nowhere"),
        ('[{ from = "one", weight = "2" }]', "weight is '2', but must be a number"),
        ('[{ from = "one", weight = 0 }]', "must be a number above 0"),
        ("[3]", "has no pictures"),
    ],
)
def test_a_source_that_cannot_be_meant_is_one_sentence(tmp_path, pictures, word):
    path = tmp_path / "stream.toml"
    path.write_text(f'[[concept]]\nname = "rex"\npictures = {pictures}\n')
    with pytest.raises(PerdureError, match=word):
        read_lessons(path)
