"""Grids and learning on a Ray cluster of this machine: the same records, the same bank."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from grid_cells import Sleep, count

from perdure.bank import Bank
from perdure.benchmarks.runner import run_grid
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.learning.learn import learn
from perdure.learning.many import learn_many

ray = pytest.importorskip("ray", reason="Ray is optional, and not installed")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
        )
        yield cluster.address
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def nothing_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without processes of this machine's own, only the cluster is left to do the work."""
    monkeypatch.delattr("perdure.benchmarks.runner.pool_of")
    monkeypatch.delattr("perdure.learning.many.pool_of")


@pytest.mark.usefixtures("nothing_runs_here")
def test_a_grid_runs_on_a_cluster_and_names_what_failed(address: str, tmp_path: Path) -> None:
    cells = [Sleep(record=tmp_path / f"{k}.json", fails=k == 1) for k in range(3)]
    with pytest.raises(PerdureError, match=r"1 of 3 runs failed: 1 \(The picture is broken"):
        run_grid(cells, count, ray=address)
    assert {path.name for path in tmp_path.glob("*.json")} == {"0.json", "2.json"}


@pytest.mark.usefixtures("nothing_runs_here")
def test_concepts_learned_on_a_cluster_are_those_learned_here(
    address: str, tiny: Path, drawings: Path, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    pictures = {name: drawings / name for name in ("ada", "bo")}
    settings: dict[str, Any] = {
        "method": "lora-independent",
        "options": {"rank": 2},
        "steps": 3,
        "checkpoint_every": 1,
    }
    learn_many(str(tiny), tmp_path / "cluster", pictures, ray=address, **settings)
    base = Base.open(tiny, device="cpu")
    for name, source in pictures.items():
        learn(base, tmp_path / "here", {name: source}, **settings)
    there, here = (Bank.open(tmp_path / name) for name in ("cluster", "here"))
    assert there.concepts == here.concepts
    for one, other in zip(there.tasks, here.tasks, strict=True):
        (tensors, tokens), (known, its) = there.read(one), here.read(other)
        assert tensors.keys() == known.keys() and tokens.keys() == its.keys()
        assert all(torch.equal(tensors[name], known[name]) for name in known)
        assert all(torch.equal(tokens[name].rows, its[name].rows) for name in its)


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    ray.shutdown()
    with pytest.raises(PerdureError, match="no Ray cluster at '127.0.0.1:9'"):
        run_grid([Sleep(record=tmp_path / "0.json")], count, ray="127.0.0.1:9")
