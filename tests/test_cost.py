"""What a new concept cost the earlier ones, and that nothing is drawn twice to find out."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from perdure.bank import Bank
from perdure.drawing.painter import Painter
from perdure.hosts.diffusion.host import Base
from perdure.learning.learn import learn
from perdure.measuring import evaluate as evaluating
from perdure.measuring.cost import MOST, _in_turn, what_it_cost
from perdure.measuring.features import MetricEncoder

FAST: dict[str, Any] = {"steps": 2, "lr": 0.05, "token_lr": 0.05, "batch_size": 2}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every prompt that is drawn, in order."""
    prompts: list[str] = []
    draw = Painter.draw

    def counting(self: Painter, asked: Any, **options: Any) -> list[Image.Image]:
        prompts.extend(asked)
        return draw(self, asked, **options)

    monkeypatch.setattr(Painter, "draw", counting)
    return prompts


def taught(base: Base, path: Path, drawings: Path, method: str, names: tuple[str, ...]) -> Bank:
    for name in names:
        learn(base, path, {name: drawings / name}, method=method, options={"rank": 2}, **FAST)
    return Bank.open(path)


def alike(one: Image.Image, other: Image.Image) -> bool:
    return ImageChops.difference(one, other).getbbox() is None


@pytest.mark.parametrize(("method", "again"), [("gated", False), ("lora", True)])
def test_an_earlier_concept_is_drawn_again_only_where_it_can_have_changed(
    method: str, again: bool, tiny: Path, drawings: Path, tmp_path: Path, drawn: list[str]
) -> None:
    base = Base.open(tiny)
    encoder = MetricEncoder.open(base.encoder)
    bank = taught(base, tmp_path / "bank", drawings, method, ("ada",))
    assert what_it_cost(base, bank, encoder) == []
    first = bank.task_folder(bank.tasks[0]) / "previews"
    assert sorted(p.suffix for p in first.iterdir()) == [".png"] * 4 + [".sha256"]
    bank = taught(base, tmp_path / "bank", drawings, method, ("bo",))
    drawn.clear()
    (cost,) = what_it_cost(base, bank, encoder)
    assert drawn == ["a photo of <bo>"] * 4 + ["a photo of <ada>"] * 4 * again
    assert cost.concept == "ada"
    assert (abs(cost.likeness_kept - 1) < 1e-5) == (not again)


@pytest.mark.parametrize(("method", "same"), [("gated", True), ("lora", False)])
def test_equal_fingerprints_draw_equal_pictures(
    method: str, same: bool, tiny: Path, drawings: Path, tmp_path: Path
) -> None:
    base = Base.open(tiny)
    bank = taught(base, tmp_path / "bank", drawings, method, ("ada", "bo"))
    then, now = Painter(base, bank, upto=1), Painter(base, bank)
    prompt = "a photo of <ada>"
    assert (then.fingerprint(prompt) == now.fingerprint(prompt)) == same
    assert now.fingerprint(prompt) != now.fingerprint("a photo of <bo>")
    pictures = [painter.draw([prompt], seeds=[7])[0] for painter in (then, now)]
    assert alike(*pictures) or not same


def test_an_evaluation_that_draws_nothing_twice_says_the_same(
    tiny: Path, drawings: Path, tmp_path: Path, drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Base.open(tiny)
    encoder = MetricEncoder.open(base.encoder)
    bank = taught(base, tmp_path / "bank", drawings, "gated", ("ada", "bo"))
    contexts = ("a photo of {} in the snow",)

    def matrix() -> str:
        drawn.clear()
        found = evaluating.evaluate(
            base, bank, encoder, pictures=2, contexts=contexts, held_out=False
        )
        return found.matrix.to_json()

    lean = matrix()
    # twelve without a concept, and of each concept two plain ones and one in a context
    assert len(drawn) == 12 + 2 * 3
    monkeypatch.setattr("perdure.methods.gated.Gated.independent", False)
    assert matrix() == lean
    assert len(drawn) == 3 * 12 + 3 * 3


@pytest.mark.parametrize("count", [1, MOST, MOST + 1, 3 * MOST + 7, 1000])
def test_a_look_costs_the_same_however_many_there_are_and_comes_to_all(count: int) -> None:
    looks = [_in_turn(range(count), turn) for turn in range(count)]
    assert max(map(len, looks)) <= MOST
    assert {one for look in looks for one in look} == set(range(count))
    if count <= MOST:
        assert all(list(look) == list(range(count)) for look in looks)
