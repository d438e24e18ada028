"""While a concept is learned: previews, trackers, other optimisers, and an end that is found."""

import importlib.util
import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from perdure import learn, learn_many, resume
from perdure.bank import Bank
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.learning import stopping, tracking
from perdure.learning.advice import make_settings
from perdure.learning.request import interrupted
from perdure.learning.settings import LearnSettings
from perdure.learning.stopping import MOST, Plateau, ended

SMALL = {"method": "lora", "options": {"rank": 2}}


@pytest.fixture(scope="module")
def base(tiny) -> Base:
    return Base.open(tiny)


def tensors_of(path) -> dict[str, torch.Tensor]:
    bank = Bank.open(path)
    found = {f"{k} {key}": t for k, (_, own) in enumerate(bank.kept()) for key, t in own.items()}
    tokens = {f"{n} {key}": t for n, one in bank.tokens().items() for key, t in one.parts.items()}
    return {**found, **tokens}


def same(one, other) -> bool:
    one, other = tensors_of(one), tensors_of(other)
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def cut_at(step: int):
    def report(progress):
        if progress.step == step:
            raise KeyboardInterrupt

    return report


@pytest.mark.parametrize(
    ("method", "token"),
    [("lora", "word"), ("gated", "word"), ("gated", "state"), ("fl2t", "word"), ("ewc", "word")],
)
def test_previews_leave_no_trace_in_what_is_learned(base, drawings, tmp_path, method, token):
    settings = {"method": method, "options": {"rank": 2}, "token": token, "steps": 3}
    if method == "ewc":
        del settings["options"]
    if method == "fl2t":
        settings["options"] |= {"together_steps": 2}
    after = {}
    for name, every in (("with", 2), ("without", None)):
        torch.manual_seed(0)  # whose numbers a preview must not take either
        for concept in ("ada", "bo"):
            learn(
                base,
                tmp_path / name,
                {concept: drawings / concept},
                preview_every=every,
                **settings,
            )
        after[name] = torch.get_rng_state()
    assert torch.equal(after["with"], after["without"])
    assert same(tmp_path / "with", tmp_path / "without")
    (ada, bo) = (Bank.open(tmp_path / "with").task_folder(name) for name in ("ada", "bo"))
    with (
        Image.open(ada / "while-learning.png") as alone,
        Image.open(bo / "while-learning.png") as sheet,
    ):
        # rows after steps 2 and 3; two drawings of the new concept, then two of the old one
        assert alone.width == 2 * 32 and sheet.width == 4 * 32
        assert sheet.height >= 2 * 32
    assert not (Bank.open(tmp_path / "without").task_folder("bo") / "while-learning.png").exists()


def test_a_preview_shows_the_old_concept_as_it_is_drawn(base, drawings, tmp_path, monkeypatch):
    """The gated old concept is what the bank draws, before and after."""
    from perdure.drawing.painter import Painter
    from perdure.learning.previews import Previews

    seen = {}
    own = Previews._drawn

    def drawn(previews, name, kept):
        found = own(previews, name, kept)
        seen.setdefault(name, []).append(found[0].tobytes())
        return found

    monkeypatch.setattr(Previews, "_drawn", drawn)
    settings = {"method": "gated", "options": {"rank": 2}, "steps": 2, "lr": 0.05}
    learn(base, tmp_path / "bank", {"ada": drawings / "ada"}, **settings)
    learn(base, tmp_path / "bank", {"bo": drawings / "bo"}, preview_every=1, **settings)
    painter = Painter(base, tmp_path / "bank")
    shown = {
        name: painter.draw([f"a photo of <{name}>"], seeds=[500])[0].tobytes()
        for name in ("ada", "bo")
    }
    assert seen["ada"] == [shown["ada"]] * 2
    assert seen["bo"][1] == shown["bo"] != seen["bo"][0]


def test_a_run_that_was_cut_goes_on_with_its_sheet(base, drawings, tmp_path):
    told = {"steps": 5, "preview_every": 1, "checkpoint_every": 2, **SMALL}
    source = {"ada": drawings / "ada"}
    learn(base, tmp_path / "whole", source, **told)
    with pytest.raises(KeyboardInterrupt):
        learn(base, tmp_path / "cut", source, report=cut_at(4), **told)
    with Image.open(tmp_path / "cut" / ".learning" / "while-learning.png") as so_far:
        three = so_far.copy()
    resume(base, tmp_path / "cut")
    sheets = [
        Bank.open(tmp_path / name).task_folder("ada") / "while-learning.png"
        for name in ("whole", "cut")
    ]
    assert sheets[0].read_bytes() == sheets[1].read_bytes()
    with Image.open(sheets[0]) as sheet:
        assert sheet.crop((0, 0, *three.size)).tobytes() == three.tobytes()
        assert sheet.height * 3 == three.height * 5
    assert same(tmp_path / "whole", tmp_path / "cut")
    assert not (tmp_path / "cut" / ".learning").exists()


def test_previews_of_concepts_that_are_learned_at_once_are_kept_too(tiny, drawings, tmp_path):
    source = {"ada": drawings / "ada"}
    told = {"steps": 2, "preview_every": 1, "method": "gated", "options": {"rank": 2}}
    learn_many(str(tiny), tmp_path / "bank", source, processes=1, **told)
    assert (Bank.open(tmp_path / "bank").task_folder("ada") / "while-learning.png").exists()


@pytest.mark.parametrize(
    ("told", "word"),
    [
        ({"preview_every": 0}, "preview_every is 0"),
        ({"track": "paper"}, "track is 'paper', but must be 'tensorboard'"),
        ({"optimizer": "lion"}, "optimizer is 'lion'"),
        ({"steps": "many"}, "steps is 'many', but must be a whole number of at least 1, or auto"),
        ({"steps": 0}, "steps is 0"),
        ({"optimizer": "prodigy", "lr": 1.0}, "lr has no effect with prodigy"),
        ({"optimizer": "schedule-free", "schedule": "cosine"}, "schedule has no effect"),
        ({"steps": "auto", "schedule": "cosine"}, "schedule has no effect with steps=auto"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(told, word):
    with pytest.raises(PerdureError, match=word):
        make_settings({}, told)


@pytest.mark.parametrize(
    ("told", "package", "extra"),
    [
        ({"track": "wandb"}, "wandb", "wandb"),
        ({"track": "tensorboard"}, "tensorboard", "tensorboard"),
        ({"optimizer": "adamw-8bit"}, "bitsandbytes", "bnb"),
        ({"optimizer": "prodigy"}, "prodigyopt", "prodigy"),
        ({"optimizer": "schedule-free"}, "schedulefree", "schedule-free"),
    ],
)
def test_a_missing_package_is_one_sentence(
    base, drawings, tmp_path, monkeypatch, told, package, extra
):
    own = importlib.util.find_spec
    for module in ("perdure.learning.tracking", "perdure.learning.optimizers"):
        monkeypatch.setattr(
            f"{module}.find_spec", lambda name: None if name == package else own(name)
        )
    with pytest.raises(PerdureError, match=rf"pip install 'perdure\[{extra}\]'"):
        learn(base, tmp_path / "bank", {"ada": drawings / "ada"}, steps=1, **SMALL, **told)
    bank = Bank.open(tmp_path / "bank")
    assert bank.concepts == () and interrupted(bank) == ()


def test_a_tracker_is_told_every_step_and_closed(base, drawings, tmp_path, monkeypatch):
    told, ended = [], []

    class Tracker:
        def __init__(self, project, **given):
            assert (project, given) == ("perdure", {"name": "ada"})

        def start(self):
            pass

        def log(self, values, step):
            told.append((step, values))

        def finish(self):
            ended.append(True)

    monkeypatch.setattr(tracking, "find_spec", lambda name: object())
    monkeypatch.setattr(tracking, "WandBTracker", Tracker)
    source = {"ada": drawings / "ada"}
    learn(base, tmp_path / "bank", source, steps=2, track="wandb", **SMALL)
    log = (Bank.open(tmp_path / "bank").task_folder("ada") / "log.jsonl").read_text()
    rows = [json.loads(line) for line in log.splitlines()]
    assert [(row.pop("step"), row) for row in rows] == told and ended == [True]


def test_tensorboards_events_lie_in_the_tasks_folder(base, drawings, tmp_path):
    pytest.importorskip("tensorboard")
    source = {"ada": drawings / "ada"}
    learn(base, tmp_path / "bank", source, steps=2, track="tensorboard", **SMALL)
    folder = Bank.open(tmp_path / "bank").task_folder("ada") / "tensorboard"
    assert [path.name.split(".")[0] for path in folder.rglob("*") if path.is_file()] == ["events"]


@pytest.mark.parametrize("name", ["adamw-8bit", "prodigy", "schedule-free"])
def test_another_optimiser_goes_on_after_a_kill_in_the_same_bits(base, drawings, tmp_path, name):
    package = {"adamw-8bit": "bitsandbytes", "prodigy": "prodigyopt"}.get(name, "schedulefree")
    pytest.importorskip(package)
    source = {"ada": drawings / "ada"}
    told = {"steps": 5, "optimizer": name, "checkpoint_every": 2, **SMALL}
    learn(base, tmp_path / "whole", source, **told)
    with pytest.raises(KeyboardInterrupt):
        learn(base, tmp_path / "cut", source, report=cut_at(3), **told)
    resume(base, tmp_path / "cut")
    assert same(tmp_path / "whole", tmp_path / "cut")
    learn(base, tmp_path / "seen", source, preview_every=1, **told)
    assert same(tmp_path / "whole", tmp_path / "seen")
    learn(base, tmp_path / "usual", source, **{**told, "optimizer": "adamw"})
    assert not same(tmp_path / "whole", tmp_path / "usual")


def falling(rate: float) -> SimpleNamespace:
    """A measure that falls towards 1 and is asked how often it was looked at."""
    own = SimpleNamespace(made=0)

    def measure() -> float:
        return 1 + 2.718281828 ** (-own.made / rate)

    own.measure = measure
    return own


def run_of(own: SimpleNamespace, plateau: Plateau, first: int = 0) -> list[float]:
    shares = []
    made = first
    if not first:
        plateau.after(0)
    while made < plateau.steps:
        shares.append(plateau.share_of_rate(made))
        made += 1
        own.made = made
        plateau.after(made)
    return shares


def test_a_run_ends_sooner_where_less_is_left_to_win_and_comes_to_rest():
    lengths = []
    for rate in (10, 40):
        own = falling(rate)
        plateau = Plateau(own.measure)
        shares = run_of(own, plateau)
        lengths.append(len(shares))
        assert shares[: plateau.turn] == [1.0] * plateau.turn
        down = shares[plateau.turn :]
        assert down == sorted(down, reverse=True) and 0 < down[-1] < down[0] < 1
        # of a fall by exp(-n / rate) the later half wins about exp(-n / 2 rate)
        late = 2.718281828 ** (-plateau.turn / (2 * rate))
        assert late < 0.12
    assert 3 < lengths[1] / lengths[0] < 5


def test_a_measure_that_only_rises_ends_at_once_and_one_that_always_falls_at_the_most():
    own = SimpleNamespace(made=0)
    rising = Plateau(lambda: 1.0 + own.made)
    assert len(run_of(own, rising)) <= 26
    own.made = 0
    always = Plateau(lambda: -float(own.made))
    assert len(run_of(own, always)) <= MOST
    assert ended([(0, 1.0), (10, 0.9)]) is False


def test_an_end_that_is_found_is_found_again_after_a_kill(base, drawings, tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "_FIRST", 2)
    monkeypatch.setattr(stopping, "_LITTLE", 0.95)
    source = {"ada": drawings / "ada"}
    told = {"steps": "auto", "checkpoint_every": 3, "lr": 0.02, **SMALL}
    learn(base, tmp_path / "whole", source, **told)
    facts = Bank.open(tmp_path / "whole").tasks[0].facts
    assert 5 <= facts["steps"] <= 100 and facts["settings"]["steps"] is None
    for cut in (2, facts["steps"] - 1):
        bank = tmp_path / f"cut{cut}"
        with pytest.raises(KeyboardInterrupt):
            learn(base, bank, source, report=cut_at(cut), **told)
        resume(base, bank)
        assert same(tmp_path / "whole", bank)
        assert Bank.open(bank).tasks[0].facts["steps"] == facts["steps"]


def test_settings_with_an_end_that_is_found_come_back_from_json():
    settings = LearnSettings.of({"steps": "auto"})
    assert settings.steps is None
    assert LearnSettings.of(json.loads(json.dumps(settings.to_json()))) == settings
    assert LearnSettings.read({"steps": "auto"}) == {"steps": None}
    assert LearnSettings.read({"steps": "30"}) == {"steps": 30}
