"""What perdure is made of, whom it talks to, and what it writes down."""

from __future__ import annotations

import json
import socket
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import audit
import pytest
import torch
from packaging.requirements import Requirement

from perdure.bank import Bank
from perdure.drawing.painter import Painter
from perdure.hosts.diffusion.host import Base
from perdure.learning.learn import learn
from perdure.measuring.cost import what_it_cost
from perdure.measuring.evaluate import evaluate
from perdure.measuring.features import MetricEncoder

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
ASKED = [
    Requirement(text)
    for texts in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for text in texts
]


@pytest.mark.parametrize("one", ASKED, ids=str)
def test_every_dependency_has_both_bounds_and_what_is_installed_lies_between(
    one: Requirement,
) -> None:
    assert {">=", "<"} <= {bound.operator for bound in one.specifier}
    try:
        assert version(one.name) in one.specifier
    except PackageNotFoundError:
        assert one.name not in {Requirement(text).name for text in PROJECT["dependencies"]}


def test_nothing_is_asked_of_the_network_and_no_path_or_prompt_is_written_down(
    tiny: Path, drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*given: object, **more: object) -> None:
        raise AssertionError(f"the network was asked: {given}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    torch.set_num_threads(1)
    base = Base.open(tiny, device="cpu")
    learn(base, tmp_path / "bank", {"ada": drawings / "ada"}, steps=2)
    encoder = MetricEncoder.of(base)
    what_it_cost(base, tmp_path / "bank", encoder)
    evaluate(base, tmp_path / "bank", encoder, pictures=2, contexts=("a {}",))
    Painter(base, tmp_path / "bank").draw(["a secret prompt of <ada>"], seeds=[0], steps=1)
    bank = Bank.open(tmp_path / "bank")
    written = {path: path.read_bytes() for path in bank.path.rglob("*") if path.is_file()}
    for path, data in written.items():
        for private in (
            b"a secret prompt",
            str(drawings).encode(),
            (drawings / "ada" / "0.png").read_bytes(),
        ):
            assert private not in data, path
    lines = [json.loads(line) for line in (bank.task_folder("ada") / "log.jsonl").open()]
    assert all(set(line) == {"step", "loss", "penalty", "norm"} for line in lines)


def test_an_audit_without_a_network_finds_what_an_advisory_is_about(tmp_path: Path) -> None:
    own = version("filelock")
    bounds = {
        "to come": ([{"introduced": "0"}], True),
        "mended": ([{"introduced": "0"}, {"fixed": own}], False),
        "to the last": ([{"introduced": "0"}, {"last_affected": own}], True),
        "again": ([{"introduced": "0"}, {"fixed": "1"}, {"introduced": own}], True),
        "later": ([{"introduced": "999"}], False),
    }
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name, (events, _) in bounds.items():
            affected = {
                "package": {"ecosystem": "PyPI", "name": "FileLock"},
                "ranges": [{"type": "ECOSYSTEM", "events": events}],
            }
            told = {"id": name, "affected": [affected]}
            archive.writestr(f"{name}.json", json.dumps(told))
    lines = audit.found_in(tmp_path / "all.zip")
    hits = [name for name, (_, hit) in bounds.items() if hit]
    assert [line.split(": ")[1] for line in lines] == hits
