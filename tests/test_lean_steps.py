"""What makes a step lighter changes none of its numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import make_pipeline
from tiny_pipelines import MAKERS
from torch import Tensor

import perdure
from perdure.hosts.size import Size
from perdure.methods import Kept, build
from perdure.methods.stamina import StaminaLearner

STEP = Path(__file__).parents[1] / "perf" / "step_vs_diffusers.py"
FOLDERS = {"sd": make_pipeline, "sd3": MAKERS["sd3"], "flux2": MAKERS["flux2"]}


@pytest.fixture(scope="module", params=FOLDERS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> perdure.Base:
    made = FOLDERS[request.param](tmp_path_factory.mktemp("lean") / "base")
    return perdure.Base.open(made, device="cpu")


def kept_bytes(base: perdure.Base, recompute: bool) -> int:
    """What one pass with a trained state keeps for its way back, but for the blocks' insides."""
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    size: Size = base.size
    x = base.encode(torch.zeros(1, 3, size[1], size[0]))[0].requires_grad_()
    with base.session() as session, session.recomputing(recompute):
        said = session.conditioning(["a dog"])
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            session.predict(x, torch.tensor([500.0]), said, size)
    return sum(held.values())


def test_recomputing_keeps_less_and_learns_the_same_to_the_bit(
    base: perdure.Base, drawings: Path, tmp_path: Path
) -> None:
    # With a prior two passes come before one way back, and each block must find the gate of its
    # own pass.
    learned = []
    for recompute in (False, True):
        bank = tmp_path / f"{recompute}"
        perdure.learn(
            base,
            bank,
            {"ada": drawings / "ada"},
            method="gated",
            options={"rank": 2},
            steps=3,
            batch_size=2,
            prior="a photo of a dog",
            prior_pictures=2,
            recompute=recompute,
        )
        opened = perdure.Bank.open(bank)
        log = (opened.task_folder(opened.tasks[0]) / "log.jsonl").read_text()
        tensors, tokens = opened.read(opened.tasks[0])
        learned.append((log, {**tensors, "token": tokens["ada"].rows}))
    (log, tensors), (again, same) = learned
    assert log == again and len({json.loads(line)["loss"] for line in log.splitlines()}) == 3
    assert all(torch.equal(tensor, same[name]) for name, tensor in tensors.items())
    assert kept_bytes(base, True) < 0.6 * kept_bytes(base, False)
    assert not any(getattr(m, "gradient_checkpointing", False) for m in base.denoiser.modules())


def test_the_penalty_of_stamina_has_the_gradient_of_its_formula_written_out() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {"k": (6, 5), "v": (4, 5)}
    tensors = {}
    for layer, (d_out, d_in) in shapes.items():
        tensors[f"{layer}/dW"] = torch.randn(d_out, d_in, generator=generator)
    method = build("stamina", rank=2, mask_rank=3, hidden=4, penalty=2.0, sparsity=0.5, tau=0.7)
    made = method.start(shapes, [Kept(("old",), tensors)], {}, generator)
    assert isinstance(made, StaminaLearner)
    made.train()
    for delta in made.masked():
        torch.nn.init.normal_(delta.factored.A, generator=generator)
    made.begin_step(generator)
    made.penalty().backward()
    got = {name: p.grad for name, p in made.named_parameters()}

    made.zero_grad()
    forgotten, ones, entries = torch.zeros(()), torch.zeros(()), 0
    for delta, (layer, _) in zip(made.masked(), shapes.items(), strict=True):
        of = delta.mask_logits
        U = torch.relu(of.e_u @ of.u_in.T) @ of.u_out.T
        V = torch.relu(of.e_v @ of.v_in.T) @ of.v_out.T
        logits = U @ V.T / 3**0.5 + of.b
        assert delta.noise is not None
        hard = ((logits + delta.noise) > 0).float().detach()
        soft = torch.sigmoid(logits / 0.7)
        dW = delta.factored.A @ delta.factored.B * (hard + soft - soft.detach())
        forgotten = forgotten + (tensors[f"{layer}/dW"].abs() * dW).square().sum()
        ones, entries = ones + torch.sigmoid(logits).sum(), entries + logits.numel()
    (2.0 * forgotten + 0.5 * ones / entries).backward()
    for name, parameter in made.named_parameters():
        grad = got[name]
        assert parameter.grad is not None and grad is not None, name
        assert grad.abs().sum() > 0
        assert torch.allclose(grad, parameter.grad, rtol=1e-4, atol=1e-6), name


@pytest.mark.slow
def test_the_comparison_with_the_peer_runs() -> None:
    command = [sys.executable, str(STEP), "--shape", "tiny", "--size", "64", "--rounds", "2"]
    done = subprocess.run(
        [*command, "--methods", "gated"], capture_output=True, text=True, check=True
    )
    rows = {row["case"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert list(rows) == ["diffusers", "diffusers, cached", "gated"]
    # The peer encodes the picture in every step and ours once.
    assert rows["gated"]["TFLOP"] < rows["diffusers"]["TFLOP"]
    for against in ("diffusers", "diffusers, cached"):
        middle, low, high = rows["gated"][f"seconds / {against}"]
        assert 0 < low <= middle <= high
