"""What is read of a bank, and sums over its tasks: flat in the number of concepts, never stale."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from host_parts import words
from torch import Tensor

from perdure.bank import FORMAT, Bank, BaseIdentity
from perdure.bank_reading import ReadableBank
from perdure.drawing.painter import Painter
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.learning.learn import learn, resume
from perdure.methods import METHODS, Shapes, build
from perdure.methods.summed import Summed
from perdure.totals import kept_of, running_total

SHAPES = {"down.0.attn2.to_k": (6, 5), "keys": (4, 5)}
SUMMED = sorted(name for name in METHODS if issubclass(METHODS[name], Summed))
NOBODY = BaseIdentity(name="nobody", hash="a" * 64)

summed_methods = pytest.mark.parametrize("name", SUMMED)


def made(path: Path, name: str, identity: BaseIdentity = NOBODY) -> Bank:
    """A bank with nothing in it yet."""
    config = build(name, rank=2).describe()["config"]
    return Bank.open_or_create(path, base=identity, method=name, config=config)


def add(bank: Bank, concept: str, shapes: Shapes = SHAPES, width: int = 5) -> dict[str, Tensor]:
    """Commit a task of random deltas; the dense `dW` of each layer, fp64."""
    method = build(bank.method, **bank.config)
    generator = torch.Generator().manual_seed(int.from_bytes(concept.encode()[:4], "big"))
    rows = {concept: torch.randn(1, width, generator=generator)}
    moments = dict.fromkeys(shapes, torch.eye(width)) if method.needs_moments else None
    learner = method.start(shapes, [], rows, generator, moments=moments)
    with torch.no_grad():
        for parameter in learner.groups()["deltas"]:
            parameter.normal_(generator=generator)
    learner.eval()
    bank.commit(
        concepts=[concept],
        tensors=method.keep(learner),
        tokens=words(rows),
        facts={},
        method=bank.method,
        config=bank.config,
    )
    deltas = learner.layer_deltas().items()
    return {layer: delta.dense().detach().double() for layer, delta in deltas}


def total(bank: Bank, *, upto: int | None = None, write: bool = False) -> dict[str, Tensor]:
    """What is folded for the bank's past."""
    method = build(bank.method, **bank.config)
    return method.past(kept_of(bank, method, upto=upto, write=write))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The concepts whose files are read, as they are."""
    names: list[str] = []
    load = ReadableBank.load

    def counted(bank: ReadableBank, concept: str) -> object:
        names.append(concept)
        return load(bank, concept)

    monkeypatch.setattr(ReadableBank, "load", counted)
    yield names


# Totals


@summed_methods
def test_a_total_is_the_sum_of_what_the_tasks_trained(name: str, tmp_path: Path) -> None:
    bank = made(tmp_path, name)
    trained = [add(bank, f"c{k}") for k in range(4)]
    for upto in (1, 3, None):
        summed = total(bank, upto=upto)
        for layer in SHAPES:
            expected = sum(one[layer] for one in trained[:upto])
            assert summed[layer].dtype == torch.float32
            assert torch.allclose(summed[layer].double(), expected, rtol=1e-5, atol=1e-6)
    assert total(bank, upto=0) == {}
    assert not bank.derived.exists()  # a reader writes nothing


@summed_methods
def test_a_total_grows_by_the_last_task_alone_and_is_the_same_to_the_bit(
    name: str, tmp_path: Path, read: list[str]
) -> None:
    bank = made(tmp_path, name)
    for k in range(5):
        add(bank, f"c{k}")
        read.clear()
        grown = total(bank, write=True)
        assert read == [f"c{k}"]
        assert same(total(bank), grown) and read == [f"c{k}"]
        method = build(name, **bank.config)
        task_by_task = [method.past(kept_of(bank, method, upto=upto)) for upto in range(1, k + 2)]
        shutil.rmtree(bank.derived)
        assert same(total(bank, write=True), grown)
        assert same(task_by_task[-1], grown)
    read.clear()
    assert same(total(bank, upto=3), task_by_task[2])
    assert read == ["c0", "c1", "c2"]  # what holds all five is of no use for three


def test_a_total_outlives_no_concept_of_it(tmp_path: Path) -> None:
    bank = made(tmp_path, "c-lora")
    trained = {f"c{k}": add(bank, f"c{k}") for k in range(3)}
    total(bank, write=True)
    stale = bank.derived / "deltas.safetensors"
    old = stale.read_bytes()
    bank.remove("c1")
    assert not bank.derived.exists()
    rest = total(bank)
    for layer in SHAPES:
        expected = trained["c0"][layer] + trained["c2"][layer]
        assert torch.allclose(rest[layer].double(), expected, rtol=1e-5, atol=1e-6)
    bank.derived.mkdir()
    stale.write_bytes(old)  # as a crash, or a copy of the folder, may leave it
    assert same(total(bank), rest)
    add(bank, "c3")
    assert not same(total(bank, write=True), rest) and same(total(bank, upto=2), rest)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: b"",
        lambda data: data.replace(b'"tasks\\": 3', b'"tasks\\": 2'),
        lambda data: data.replace(b"[6,5]", b"[5,6]"),
    ],
)
def test_a_damaged_total_is_made_anew(tmp_path: Path, damage, read: list[str]) -> None:
    bank = made(tmp_path, "c-lora")
    for k in range(3):
        add(bank, f"c{k}")
    whole = total(bank, write=True)
    file = bank.derived / "deltas.safetensors"
    good = file.read_bytes()
    assert damage(good) != good
    file.write_bytes(damage(good))
    read.clear()
    assert same(total(bank, write=True), whole)
    assert read == ["c0", "c1", "c2"] and file.read_bytes() == good


def test_a_total_of_another_recipe_is_made_anew(tmp_path: Path) -> None:
    bank = made(tmp_path, "gated")
    add(bank, "c0")
    seen = []
    for recipe in ("one", "one", "two", "one"):
        summed = running_total(
            bank,
            "x",
            lambda task: seen.append(task.concepts) or {"x": torch.ones(1)},
            recipe=recipe,
            write=True,
        )
        assert same(summed, {"x": torch.ones(1)})
    assert len(seen) == 3


# What is read


def full(path: Path, name: str, base: Base, concepts: int = 4) -> Bank:
    """A bank of the base's shapes with concepts `c0`, `c1`, ... and a total of all but the last."""
    bank = made(path, name, base.identity)
    with base.session(targets=METHODS[name].targets) as session:
        shapes = session.shapes
    width = base.tokens.vocabularies[0].table.embedding_dim
    for k in range(concepts):
        if k and isinstance(build(name, **bank.config), Summed):
            total(bank, write=True)
        add(bank, f"c{k}", shapes, width)
    return bank


@pytest.fixture(scope="module")
def base(tiny: Path) -> Base:
    torch.set_num_threads(1)
    return Base.open(tiny, device="cpu")


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("gated", {"c1"}),
        ("lora-independent", {"c1"}),
        ("lora", {"c1", "c3"}),
        ("c-lora", {"c1", "c3"}),
        ("feature-space", {"c1", "c3"}),
    ],
)
def test_drawing_a_concept_needs_its_own_file_and_the_last_at_most(
    name: str, needed: set[str], base: Base, tmp_path: Path, read: list[str]
) -> None:
    bank = full(tmp_path / "bank", name, base)
    picture = Painter(base, bank).draw(["a photo of <c1>"], seeds=[0])[0]
    for concept in set(bank.concepts) - needed:
        bank.concept_file(concept).unlink()
    read.clear()
    painter = Painter(base, bank.path)
    assert list(painter.tokens) == ["c0", "c1", "c2", "c3"]
    assert painter.draw(["a photo of <c1>"], seeds=[0])[0].tobytes() == picture.tobytes()
    assert set(read) == needed
    with pytest.raises(PerdureError, match=r"<zoe>.* it knows <c0>, <c1>, <c2>, <c3>"):
        painter.draw(["a photo of <zoe>"], seeds=[0])
    if name == "gated":
        with pytest.raises(PerdureError, match=r"c2/concept\.safetensors is missing"):
            painter.draw(["a photo of <c2>"], seeds=[0])


@pytest.mark.parametrize(
    ("name", "needed"),
    [("gated", set()), ("lora", {"c3"}), ("c-lora", {"c3"}), ("stamina", {"c3"})],
)
def test_learning_one_more_needs_the_last_file_at_most(
    name: str, needed: set[str], base: Base, drawings: Path, tmp_path: Path, read: list[str]
) -> None:
    bank = full(tmp_path / "bank", name, base)
    read.clear()
    learn(base, bank, {"ada": drawings / "ada"}, steps=1)
    assert set(read) == needed


@pytest.mark.parametrize("name", ["c-lora", "feature-space"])
def test_a_learn_resumed_without_the_totals_ends_in_the_same_bits(
    name: str, base: Base, drawings: Path, tmp_path: Path
) -> None:
    class PlugPulled(Exception):
        pass

    def pull(progress: object) -> None:
        if progress.step == 3:  # type: ignore[attr-defined]
            raise PlugPulled

    fast = {"steps": 4, "checkpoint_every": 2}
    bank = full(tmp_path / "bank", name, base)
    learn(base, bank, {"bo": drawings / "bo"}, **fast)
    cut = shutil.copytree(bank.path, tmp_path / "cut")
    learn(base, bank, {"ada": drawings / "ada"}, **fast)
    with pytest.raises(PlugPulled):
        learn(base, cut, {"ada": drawings / "ada"}, report=pull, **fast)
    shutil.rmtree(cut / ".derived")
    resume(base, cut)
    (one, token), (other, again) = bank.read("ada"), Bank.open(cut).read("ada")
    assert same(one, other) and same(token["ada"].parts, again["ada"].parts)
    for file in bank.derived.iterdir():
        written = (cut / ".derived" / file.name).read_bytes()
        assert len(written) == len(file.read_bytes())


def test_a_bank_of_before_is_read_as_it_was(tmp_path: Path) -> None:
    bank = made(tmp_path, "c-lora")
    add(bank, "c0")
    total(bank, write=True)
    content = json.loads((tmp_path / "bank.json").read_text())
    assert content["format"] == FORMAT
    assert "derived" not in json.dumps(content)
    shutil.rmtree(bank.derived)
    assert total(Bank.open(tmp_path)).keys() == SHAPES.keys()
