"""The bank on disk: round trips, crashes at every step, two writers, and everything refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from host_parts import words
from safetensors import safe_open

from perdure.bank import Bank, BaseIdentity, check_concept_name
from perdure.errors import PerdureError

BASE = BaseIdentity(name="smallworld", hash="a" * 64)
CONFIG = {"rank": 8, "penalty": 1e8}
LAYER = "down.0/attn2.to_k"


@pytest.fixture(autouse=True)
def quick_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncing matters to a power cut alone, which no test can cause; it is counted, not done."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def made(path: Path) -> Bank:
    return Bank.open_or_create(path, base=BASE, method="c-lora", config=CONFIG)


def learn(bank: Bank, *concepts: str, value: float = 1.0, rank: int = 2, **changes):
    factors = {
        f"{LAYER}/A": torch.full((4, rank), value),
        f"{LAYER}/B": torch.arange(3.0 * rank).reshape(rank, 3),
    }
    what = {
        "concepts": concepts,
        "tensors": factors,
        "tokens": words({n: torch.full((1, 6), value + i) for i, n in enumerate(concepts)}),
        "facts": {"steps": 200, "seed": 7, "loss": 0.125},
        "method": "c-lora",
        "config": CONFIG,
        "extra_files": {"log.jsonl": b'{"step": 1}\n', "previews/a.png": b"png"},
    }
    return bank.commit(**(what | changes))


def tree(path: Path) -> dict[str, str]:
    """Relative path -> content hash of every file but the lock and the workspace."""
    return {
        file.relative_to(path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != ".lock" and ".learning" not in file.parts
    }


def everything(path: Path) -> str:
    """All that a reader of the bank can see, verified and hashed."""
    bank, digest = Bank.open(path), hashlib.sha256()
    for task in bank.tasks:
        tensors, tokens = bank.read(task)
        rows = {name: token.rows for name, token in tokens.items()}
        digest.update(repr((task.concepts, task.facts)).encode())
        for key, tensor in [*sorted(tensors.items()), *rows.items()]:
            digest.update(key.encode() + tensor.numpy().tobytes())
        files = sorted(bank.task_folder(task).rglob("*"))
        digest.update(repr([(f.name, f.read_bytes()) for f in files if f.is_file()]).encode())
    for key, tensor in sorted(bank.composition().items()):
        digest.update(key.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


# Round trips


def test_a_task_comes_back_bit_for_bit_with_all_that_is_needed_to_rebuild_it(tmp_path):
    generator = torch.Generator().manual_seed(0)
    factors = {
        f"{LAYER}/A": torch.randn(4, 2, generator=generator).bfloat16(),
        f"{LAYER}/B": torch.randn(3, 2, generator=generator).T,  # not contiguous
        f"{LAYER}/mask": torch.tensor([1, 0, 255], dtype=torch.uint8),
    }
    rows = {"rex": torch.randn(2, 6, generator=generator, requires_grad=True)}
    record = learn(made(tmp_path / "bank"), "rex", tensors=factors, tokens=words(rows))

    bank = Bank.open(tmp_path / "bank")
    assert (record.folder, bank.tasks, bank.concepts) == ("01-rex", (record,), ("rex",))
    assert (bank.base, bank.method, bank.config) == (BASE, "c-lora", CONFIG)
    assert record.facts == {"steps": 200, "seed": 7, "loss": 0.125}
    for task in (record, "01-rex", "rex"):
        tensors, back = bank.read(task)
        assert tensors.keys() == factors.keys() and back.keys() == {"rex"}
        for key in factors:
            assert (
                torch.equal(tensors[key], factors[key]) and tensors[key].dtype == factors[key].dtype
            )
        assert torch.equal(back["rex"].rows, rows["rex"])

    assert bank.metadata("rex") == {
        "format": 2,
        "method": "c-lora",
        "config": CONFIG,
        "base": {"name": "smallworld", "hash": "a" * 64},
        "concept": "rex",
        "concepts": ["rex"],
        "task": "01-rex",
        "facts": {"steps": 200, "seed": 7, "loss": 0.125},
    }
    assert (tmp_path / "bank/tasks/01-rex/previews/a.png").read_bytes() == b"png"


def test_the_file_is_plain_safetensors_that_the_stock_reader_opens(tmp_path):
    learn(made(tmp_path), "rex")
    with safe_open(tmp_path / "concepts/rex/concept.safetensors", framework="pt") as file:
        assert set(file.keys()) == {f"{LAYER}/A", f"{LAYER}/B", "word/text_encoder/rex"}
        assert json.loads(file.metadata()["perdure"])["concept"] == "rex"


def test_tasks_keep_their_order_and_a_task_of_several_stores_its_factors_once(tmp_path):
    bank = made(tmp_path)
    learn(bank, "zoe", value=1)
    second = learn(bank, "bo", "al", value=2)
    learn(bank, "mia", value=3)
    bank = Bank.open(tmp_path)
    assert bank.concepts == ("zoe", "bo", "al", "mia")
    assert [task.folder for task in bank.tasks] == ["01-zoe", "02-bo+1", "03-mia"]
    assert [concepts for concepts, _ in bank.kept()] == [("zoe",), ("bo", "al"), ("mia",)]
    assert [float(t[f"{LAYER}/A"][0, 0]) for _, t in bank.kept()] == [1, 2, 3]
    assert list(bank.tokens()) == ["zoe", "bo", "al", "mia"]
    assert [float(token.rows[0, 0]) for token in bank.tokens().values()] == [1, 2, 3, 3]
    assert bank.read("al")[0].keys() == bank.read(second)[0].keys() == {f"{LAYER}/A", f"{LAYER}/B"}
    assert safetensors.torch.load_file(bank.concept_file("al")).keys() == {"word/text_encoder/al"}


def test_the_same_commit_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        learn(made(tmp_path / name), "rex", "bo")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_a_commit_changes_nothing_of_the_past_and_adds_one_file_a_concept(tmp_path):
    bank = made(tmp_path)
    sizes = []
    for number in range(6):
        before = tree(tmp_path)
        learn(bank, f"c{number}", value=number)
        after = tree(tmp_path)
        changed = {name for name in before if after.get(name) != before[name]}
        assert changed == {"bank.json"}
        assert after.keys() - before.keys() == {
            f"concepts/c{number}/concept.safetensors",
            f"tasks/0{number + 1}-c{number}/log.jsonl",
            f"tasks/0{number + 1}-c{number}/previews/a.png",
        }
        sizes.append(sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file()))
    growth = {b - a for a, b in zip(sizes[1:], sizes[2:], strict=False)}
    assert len(growth) == 1 and growth.pop() < 2000  # the same small step each time


def test_opening_and_reading_write_nothing(tmp_path):
    learn(made(tmp_path), "rex")
    orphan = tmp_path / "concepts/ghost"
    orphan.mkdir()
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    everything(tmp_path)
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}


def test_extra_files_may_be_a_folder(tmp_path):
    source = tmp_path / "work"
    (source / "previews").mkdir(parents=True)
    (source / "log.jsonl").write_text("log")
    (source / "previews/one.png").write_bytes(b"one")
    record = learn(made(tmp_path / "bank"), "rex", extra_files=source)
    folder = Bank.open(tmp_path / "bank").task_folder(record)
    assert (folder / "log.jsonl").read_text() == "log"
    assert (folder / "previews/one.png").read_bytes() == b"one"
    assert (source / "log.jsonl").exists()


def test_task_files_are_added_and_replaced_later(tmp_path):
    bank = made(tmp_path)
    record = learn(bank, "rex")
    bank.add_task_file(record, "cost.json", b"1")
    path = bank.add_task_file("rex", "cost.json", b"2")
    assert path == tmp_path / "tasks/01-rex/cost.json" and path.read_bytes() == b"2"
    for name in ("../x", "/x", "", "a/../../x", "a\\b"):
        with pytest.raises(ValueError, match="relative name"):
            bank.add_task_file(record, name, b"")


def test_the_fingerprint_changes_with_every_write_and_not_else(tmp_path):
    bank = made(tmp_path)
    seen = [bank.fingerprint]
    learn(bank, "rex")
    seen.append(bank.fingerprint)
    assert Bank.open(tmp_path).fingerprint == bank.fingerprint
    learn(bank, "bo")
    seen.append(bank.fingerprint)
    bank.remove("rex")
    seen.append(bank.fingerprint)
    assert len(set(seen)) == 4


def test_the_workspace_survives_writes_until_it_is_cleared(tmp_path):
    bank = made(tmp_path)
    bank.workspace.mkdir(exist_ok=True)
    (bank.workspace / "request.json").write_text("{}")
    learn(bank, "rex")
    bank.remove("rex")
    assert [item.name for item in bank.workspace.iterdir()] == ["request.json"]
    bank.clear_workspace()
    bank.clear_workspace()
    assert not bank.workspace.exists()


# Removing


def test_removing_the_only_concept_of_a_task_drops_the_task_and_its_files(tmp_path):
    bank = made(tmp_path)
    learn(bank, "rex")
    learn(bank, "bo", value=2)
    bank.remove("rex")
    assert Bank.open(tmp_path).concepts == ("bo",)
    assert tree(tmp_path).keys() == {
        "bank.json",
        "concepts/bo/concept.safetensors",
        "tasks/02-bo/log.jsonl",
        "tasks/02-bo/previews/a.png",
    }
    learn(bank, "rex", value=5)  # the name is free again
    assert [task.folder for task in bank.tasks] == ["02-bo", "03-rex"]


@pytest.mark.parametrize("gone", ["ann", "bo", "cy"])
def test_removing_one_concept_of_several_keeps_the_tasks_factors_unchanged(tmp_path, gone):
    bank = made(tmp_path)
    learn(bank, "ann", "bo", "cy")
    factors, tokens = bank.read("ann")
    bank.remove(gone)

    bank = Bank.open(tmp_path)
    rest = tuple(name for name in ("ann", "bo", "cy") if name != gone)
    assert bank.concepts == rest
    after, left = bank.read(rest[0])
    assert after.keys() == factors.keys() and left.keys() == set(rest)
    assert all(torch.equal(after[key], factors[key]) for key in factors)
    assert all(torch.equal(left[name].rows, tokens[name].rows) for name in rest)
    assert not (tmp_path / "concepts" / gone).exists()
    assert len([name for name in tree(tmp_path) if name.startswith("concepts/")]) == 2

    for name in rest:
        bank.remove(name)
    assert bank.tasks == () and tree(tmp_path).keys() == {"bank.json"}


def test_an_unknown_concept_is_refused_with_the_known_ones(tmp_path):
    bank = made(tmp_path)
    learn(bank, "rex")
    for call in (bank.remove, bank.read, bank.metadata, bank.concept_file):
        with pytest.raises(PerdureError, match="has no 'rx'; its concepts: rex"):
            call("rx")
    with pytest.raises(PerdureError, match="has no '01-rex'"):
        bank.remove("01-rex")


# Crashes

CALLS = ("fsync", "replace", "rename", "mkdir", "unlink", "rmdir")


def tripped(monkeypatch: pytest.MonkeyPatch, k: int, trip: Callable[[], None]) -> list[str]:
    """Make the k-th (from 0) of the calls that change the disk trip instead; a log of the calls."""
    log: list[str] = []

    def wrap(name: str) -> None:
        original = getattr(os, name)

        def call(*args, **kwargs):
            log.append(name)
            if len(log) - 1 == k:
                trip()
            return original(*args, **kwargs)

        monkeypatch.setattr(os, name, call)

    for name in CALLS:
        wrap(name)
    return log


def killed_at(k: int, action: Callable[[], object]) -> bool:
    """Run `action` in a forked child that dies, with no clean-up, at its k-th call; did it die?"""
    child = os.fork()
    if child == 0:
        try:
            with pytest.MonkeyPatch.context() as patch:
                tripped(patch, k, lambda: os.kill(os.getpid(), signal.SIGKILL))
                action()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


ACTIONS: dict[str, Callable[[Bank], object]] = {
    "commit": lambda bank: learn(bank, "new", "newer", value=9),
    "remove the first of several": lambda bank: bank.remove("ann"),
    "remove a later one": lambda bank: bank.remove("bo"),
    "remove the only one": lambda bank: bank.remove("rex"),
    "replace what the tasks share": lambda bank: bank.set_composition({"w": torch.ones(3)}),
    "commit and replace": lambda bank: learn(bank, "new", composition={"w": torch.ones(3)}),
    "remove and replace": lambda bank: bank.remove("rex", composition={"w": torch.ones(3)}),
}


def before_and_after(path: Path, action: Callable[[Bank], object]) -> tuple[str, str, int]:
    """The two states that are allowed, and the number of calls in between."""
    bank = three_concepts(path)
    old = everything(path)
    with pytest.MonkeyPatch.context() as patch:
        log = tripped(patch, -1, lambda: None)
        action(bank)
    return old, everything(path), len(log)


def three_concepts(path: Path) -> Bank:
    bank = made(path)
    learn(bank, "rex")
    learn(bank, "ann", "bo", value=2)
    bank.set_composition({"w": torch.zeros(3)})
    return bank


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ACTIONS)
def test_a_kill_at_any_step_leaves_the_old_bank_or_the_new_one(tmp_path, name):
    action = ACTIONS[name]
    old, new, steps = before_and_after(tmp_path / "reference", action)
    assert old != new and steps > 8
    three_concepts(tmp_path / "start")
    outcomes = []
    for k in range(steps + 1):
        path = shutil.copytree(tmp_path / "start", tmp_path / str(k))
        assert killed_at(k, lambda path=path: action(Bank.open(path))) == (k < steps)
        state = everything(path)
        assert state in (old, new)
        outcomes.append(state == new)
        # The next write works, whatever was left, and leaves nothing of it.
        bank = Bank.open(path)
        if state == old:
            action(bank)
            state = everything(path)
            assert state == new
        learn(bank, "later")
        bank.remove("later")
        assert everything(path) == state
        listed = {bank.concept_file(concept) for concept in bank.concepts}
        assert set((path / "concepts").rglob("*.safetensors")) == listed
        assert {home.name for home in (path / "concepts").iterdir()} == set(bank.concepts)
        folders = {task.folder for task in bank.tasks}
        assert {home.name for home in (path / "tasks").iterdir()} == folders
        assert list(bank.workspace.iterdir()) == []
        assert len(list(path.glob("composition*"))) == 1
    assert outcomes == sorted(outcomes)  # once new, always new
    assert not outcomes[0] and outcomes[-1]


@pytest.mark.parametrize("name", ACTIONS)
def test_a_failing_disk_at_any_step_is_a_sentence_and_the_same_object_goes_on(tmp_path, name):
    action = ACTIONS[name]
    old, new, steps = before_and_after(tmp_path / "reference", action)

    def fail() -> None:
        raise OSError(28, "No space left on device")

    three_concepts(tmp_path / "start")
    for k in range(steps):
        bank = Bank.open(shutil.copytree(tmp_path / "start", tmp_path / str(k)))
        with pytest.MonkeyPatch.context() as patch:
            log = tripped(patch, k, fail)
            try:
                action(bank)
            except PerdureError as error:
                assert "No space left on device" in str(error)
            assert len(log) > k
        assert everything(bank.path) in (old, new)
        learn(bank, "later")
        assert "later" in Bank.open(bank.path).concepts


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_kill_while_the_bank_is_made_leaves_none_or_an_empty_one(tmp_path):
    k, died = 0, True
    while died:
        path = tmp_path / str(k)
        died = killed_at(k, lambda path=path: made(path))
        bank = made(path)  # the next attempt goes on from there
        assert bank.concepts == () and learn(bank, "rex").folder == "01-rex"
        k += 1
    assert k > 5


# Two writers

HOLD = """
import sys, time
from perdure.bank import Bank
with Bank.open(sys.argv[1]).lock(verb="learn"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def holder(tmp_path) -> Iterator[Callable[[float], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def hold(seconds: float) -> subprocess.Popen[str]:
        import perdure.bank

        root = str(Path(perdure.bank.__file__).parents[1])
        command = [sys.executable, "-c", HOLD, str(tmp_path), str(seconds)]
        environment = os.environ | {"PYTHONPATH": root}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_second_writer_is_refused_by_name_and_readers_are_not(tmp_path, holder):
    bank = made(tmp_path)
    learn(bank, "rex")
    process = holder(60)
    with pytest.raises(PerdureError, match=rf"written by process {process.pid} \(learn, since 20"):
        learn(bank, "bo")
    assert Bank.open(tmp_path).read("rex")[1].keys() == {"rex"}

    process.kill()  # the system frees the lock of a killed process
    process.wait()
    learn(bank, "bo")
    assert Bank.open(tmp_path).concepts == ("rex", "bo")


def test_a_second_writer_waits_when_asked_to(tmp_path, holder):
    bank = made(tmp_path)
    holder(1.0)
    start = time.monotonic()
    with bank.lock(wait=30):
        learn(bank, "rex")  # the lock is taken again inside
    assert time.monotonic() - start > 0.3
    assert Bank.open(tmp_path).concepts == ("rex",)


def test_another_object_of_the_same_process_is_a_second_writer_too(tmp_path):
    bank, other = made(tmp_path), Bank.open(tmp_path)
    with bank.lock(verb="learn"):
        with pytest.raises(PerdureError, match=rf"process {os.getpid()} \(learn"):
            other.remove("rex")


def test_a_writer_sees_what_another_has_written_since_it_opened_the_bank(tmp_path):
    first, second = made(tmp_path), Bank.open(tmp_path)
    learn(first, "rex")
    assert second.concepts == ()
    with pytest.raises(PerdureError, match="already has a concept 'rex'"):
        learn(second, "rex")
    learn(second, "bo")
    assert Bank.open(tmp_path).concepts == ("rex", "bo")
    first.reload()
    assert first.concepts == ("rex", "bo")


# Refusals


def test_another_base_is_refused_with_both_named(tmp_path):
    bank = made(tmp_path)
    other = BaseIdentity(name="sd-1.5", hash="b" * 64)
    sentence = r"smallworld \(weights a{16}\).*sd-1\.5 \(weights b{16}\)"
    with pytest.raises(PerdureError, match=sentence):
        bank.check_base(other)
    with pytest.raises(PerdureError, match=sentence):
        Bank.open_or_create(tmp_path, base=other, method="c-lora", config=CONFIG)
    bank.check_base(BaseIdentity(name="/a/copy/of/smallworld", hash="a" * 64))


def test_another_method_or_configuration_is_refused_with_the_difference(tmp_path):
    bank = made(tmp_path)
    bank.check_method("c-lora", CONFIG)
    with pytest.raises(PerdureError, match="with the method c-lora, not lora"):
        learn(bank, "rex", method="lora")
    with pytest.raises(PerdureError, match=r"c-lora and rank = 8 \(not 16\): use"):
        learn(bank, "rex", config=CONFIG | {"rank": 16})
    with pytest.raises(PerdureError, match=r"mask = unset \(not true\)"):
        learn(bank, "rex", config=CONFIG | {"mask": True})
    assert bank.concepts == ()


@pytest.mark.parametrize(
    "name", ["a", "Rex", "my-dog_2", "x" * 40, "zoë", "мила", "花子", "नाव", "محمد", "한글"]
)
def test_good_names(name):
    check_concept_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "<rex>",
        "2pac",
        "-a",
        "_a",
        "x" * 41,
        "a b",
        "a/b",
        "..",
        "a.b",
        "zoe\u0308",
        "a\n",
        "a\0",
    ],
)
def test_bad_names_are_refused_before_anything_is_written(tmp_path, name):
    bank = made(tmp_path)
    with pytest.raises(PerdureError, match="letters, digits, - and _"):
        learn(bank, name)
    assert tree(tmp_path).keys() == {"bank.json"}


def test_names_that_are_taken_or_differ_by_case_only_are_refused(tmp_path):
    bank = made(tmp_path)
    learn(bank, "Rex")
    with pytest.raises(PerdureError, match="already has a concept 'Rex'.*`perdure remove Rex`"):
        learn(bank, "Rex")
    with pytest.raises(PerdureError, match="'rex' differs from 'Rex' only by its case"):
        learn(bank, "rex")
    with pytest.raises(PerdureError, match="'Bo' differs from 'bo' only by its case"):
        learn(bank, "bo", "Bo")
    with pytest.raises(PerdureError, match="'bo' is given twice"):
        learn(bank, "bo", "bo")
    with pytest.raises(PerdureError, match="at least one name"):
        learn(bank)


def test_what_cannot_be_kept_is_refused(tmp_path):
    bank = made(tmp_path)
    nan = {f"{LAYER}/A": torch.tensor([[float("nan")]])}
    with pytest.raises(PerdureError, match=r"Learning rex diverged \(down.0/attn2.to_k/A is not"):
        learn(bank, "rex", tensors=nan)
    with pytest.raises(ValueError, match="tokens must be given for"):
        learn(bank, "rex", tokens=words({"bo": torch.zeros(1, 6)}))
    with pytest.raises(ValueError, match=r"shape \(n, d\)"):
        learn(bank, "rex", tokens=words({"rex": torch.zeros(6)}))
    with pytest.raises(ValueError, match="kept for tokens"):
        learn(bank, "rex", tensors={"word/text_encoder/rex": torch.zeros(1)})
    with pytest.raises(ValueError, match="relative name"):
        learn(bank, "rex", extra_files={"../../x": b""})
    assert bank.concepts == () and learn(bank, "rex").folder == "01-rex"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: b"",
    ],
)
def test_a_damaged_concept_file_is_named_with_the_mend_and_can_be_removed(tmp_path, damage):
    bank = made(tmp_path)
    learn(bank, "rex")
    learn(bank, "bo")
    file = bank.concept_file("rex")
    file.write_bytes(damage(file.read_bytes()))
    bank = Bank.open(tmp_path)
    for read in (
        lambda: bank.read("rex"),
        lambda: dict(bank.kept()[0][1]),
        lambda: bank.tokens()["rex"],
        lambda: bank.metadata("rex"),
    ):
        with pytest.raises(PerdureError, match=rf"{file} is damaged.*`perdure remove rex`"):
            read()
    assert bank.read("bo")[1].keys() == {"bo"}
    assert bank.kept()[1][1].keys() == {f"{LAYER}/A", f"{LAYER}/B"}  # the other is not touched
    assert torch.equal(bank.tokens()["bo"].rows, torch.ones(1, 6))
    bank.remove("rex")
    assert len(bank.kept()) == 1


def test_a_missing_concept_file_is_named_with_the_mend(tmp_path):
    bank = made(tmp_path)
    learn(bank, "rex")
    bank.concept_file("rex").unlink()
    with pytest.raises(PerdureError, match=r"rex/concept\.safetensors is missing.*remove rex"):
        Bank.open(tmp_path).read("rex")
    bank.remove("rex")
    assert bank.concepts == ()


def test_a_newer_format_is_refused_with_the_mend(tmp_path):
    made(tmp_path)
    content = json.loads((tmp_path / "bank.json").read_text())
    (tmp_path / "bank.json").write_text(json.dumps(content | {"format": 3, "tasks": "new"}))
    with pytest.raises(PerdureError, match="newer perdure.*pip install -U perdure"):
        Bank.open(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "null", '{"format": "1"}', '{"format": 1}', "\0\0", b"\xff\xfe\xfd"],
)
def test_a_broken_bank_json_is_named(tmp_path, text):
    (tmp_path / "bank.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PerdureError, match=r"bank\.json is .*rebuild it with"):
        Bank.open(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("folder", "../.."), ("name", "../../etc"), ("file", "../x.safetensors"), ("name", 3)],
)
def test_a_bank_json_whose_paths_lead_out_of_the_bank_is_refused(tmp_path, field, value):
    learn(made(tmp_path), "rex")
    content = json.loads((tmp_path / "bank.json").read_text())
    del content["sha256"]
    task = content["tasks"][0]
    (task if field == "folder" else task["concepts"][0])[field] = value
    (tmp_path / "bank.json").write_text(json.dumps(content))
    with pytest.raises(PerdureError, match="is not a bank's"):
        Bank.open(tmp_path)


def test_a_path_without_a_bank_and_a_path_with_something_else(tmp_path):
    with pytest.raises(PerdureError, match="There is no bank at .*nowhere"):
        Bank.open(tmp_path / "nowhere")
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"jpg")
    with pytest.raises(PerdureError, match="photos is a folder with other files"):
        made(photos)
    assert [item.name for item in photos.iterdir()] == ["a.jpg"]
    with pytest.raises(PerdureError, match="is a file"):
        made(photos / "a.jpg")
    made(tmp_path / "deep/down/bank")
    with pytest.raises(PerdureError, match="already is a bank"):
        Bank.create(tmp_path / "deep/down/bank", base=BASE, method="c-lora", config=CONFIG)


def test_sweeping_leaves_what_is_not_ours(tmp_path):
    bank = made(tmp_path)
    learn(bank, "rex")
    (tmp_path / "concepts/ghost").mkdir()
    (tmp_path / "concepts/ghost/concept.safetensors").write_bytes(b"half")
    (tmp_path / "concepts/rex/concept.4.safetensors").write_bytes(b"half")
    (tmp_path / "tasks/02-ghost").mkdir()
    (tmp_path / "concepts/rex/notes.txt").write_text("mine")
    (tmp_path / "concepts/read me.txt").write_text("mine")
    learn(bank, "bo")
    assert sorted(item.name for item in (tmp_path / "concepts").rglob("*")) == [
        "bo",
        "concept.safetensors",
        "concept.safetensors",
        "notes.txt",
        "read me.txt",
        "rex",
    ]
    assert sorted(home.name for home in (tmp_path / "tasks").iterdir()) == ["01-rex", "02-bo"]
