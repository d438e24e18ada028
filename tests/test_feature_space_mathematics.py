"""Feature-space against explicit sums (see docs/methods/feature-space.md)."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from host_parts import words
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from perdure.bank import Bank
from perdure.errors import PerdureError
from perdure.hosts.diffusion.families.sd import StableDiffusion
from perdure.hosts.diffusion.host import Base
from perdure.learning import learn as teaching
from perdure.learning.moments import CAPTIONS, TEMPLATES, moments
from perdure.methods import Kept, build
from perdure.methods.feature_space import FeatureSpaceLearner, leading

SHAPES = {"k": (4, 6), "v": (3, 6)}


def features(count: int = 9, width: int = 6, seed: int = 5) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def moments_of(c: Tensor) -> Tensor:
    return sum(torch.outer(one, one) for one in c) / len(c)  # type: ignore[return-value]


def learner(C: Tensor, past: tuple[Kept, ...] = (), **config: float) -> FeatureSpaceLearner:
    options = {"rank": 2, "penalty": 1.0, **config}
    made = build("feature-space", **options).start(
        SHAPES,
        past,
        {"bo": torch.ones(6)},
        torch.Generator().manual_seed(0),
        moments=dict.fromkeys(SHAPES, C),
    )
    assert isinstance(made, FeatureSpaceLearner)
    for index, delta in enumerate(made.layer_deltas().values()):
        with torch.no_grad():
            A = delta.get_parameter("A")
            A.copy_(torch.randn(A.shape, generator=torch.Generator().manual_seed(20 + index)))
    return made


def test_the_trace_is_the_mean_squared_output_of_the_delta_on_the_features() -> None:
    c = features()
    made = learner(moments_of(c))
    expected = 0.0
    for delta in made.layer_deltas().values():
        dW = delta.dense().detach()
        expected += sum(float((dW @ one).square().sum()) for one in c) / len(c)
    assert made.interference().item() == pytest.approx(expected, rel=1e-5)
    made.weight = 0.25
    assert made.penalty().item() == pytest.approx(0.25 * expected, rel=1e-5)


def test_the_trace_by_hand() -> None:
    # A = [1, 2]^T, B = [3, -1]: dW = [[3, -1], [6, -2]], C = [[2, 1], [1, 1]].
    # dW C = [[5, 2], [10, 4]]; rows times rows: 15 - 2 = 13 and 60 - 8 = 52.
    C = torch.tensor([[2.0, 1.0], [1.0, 1.0]])
    made = build("feature-space", rank=1, penalty=10.0).start(
        {"k": (2, 2)}, [], {}, torch.Generator(), moments={"k": C}
    )
    made.layer_deltas()["k"].load_state_dict(
        {"A": torch.tensor([[1.0], [2.0]]), "B": torch.tensor([[3.0, -1.0]])}
    )
    assert made.penalty().item() == 650.0


def test_the_gradient_in_the_delta_is_two_dw_c() -> None:
    # dA = (2 dW C) B^T and dB = A^T (2 dW C)
    C = moments_of(features())
    made = learner(C, penalty=3.0)
    made.penalty().backward()
    for delta in made.layer_deltas().values():
        A, B = delta.get_parameter("A"), delta.get_parameter("B")
        G = 3.0 * 2 * (A @ B).detach() @ C
        assert A.grad is not None and torch.allclose(A.grad, G @ B.detach().T, rtol=1e-4)
        assert B.grad is not None and torch.allclose(B.grad, A.detach().T @ G, rtol=1e-4)
    assert made.tokens()["bo"].grad is None


def test_features_that_the_delta_ignores_cost_nothing_and_zero_is_off() -> None:
    c = features(3)
    made = learner(moments_of(c))
    basis = torch.linalg.qr(c.T)[0]
    with torch.no_grad():
        for delta in made.layer_deltas().values():
            B = delta.get_parameter("B")
            B.sub_(B @ basis @ basis.T)
    assert made.norm() > 0.1
    assert made.penalty().item() == pytest.approx(0.0, abs=1e-6)
    assert learner(moments_of(c), penalty=0).penalty().item() == 0.0
    assert not learner(moments_of(c), penalty=0).penalty().requires_grad


def test_the_first_task_is_penalised_too_and_the_past_does_not_grow_the_learner() -> None:
    C = moments_of(features())
    task = Kept(("rex",), build("feature-space", rank=2).keep(learner(C)))
    sizes = []
    for past in ((), (task,), (task,) * 50):
        made = learner(C, past)
        assert made.penalty().item() > 0
        sizes.append([tuple(buffer.shape) for buffer in made.buffers()])
    assert sizes == [[(6, 6)]] * 3
    assert "C" not in made.state_dict()


def test_past_and_mix_are_the_sum_whatever_is_spoken() -> None:
    method = build("feature-space", rank=2)
    tasks = [Kept(("rex",), method.keep(learner(moments_of(features()))))] * 3
    f = tasks[0].factors()["k"]
    for deltas in (method.past(tasks), method.mix(tasks, []), method.mix(tasks, ["rex"])):
        assert torch.allclose(deltas["k"], 3 * f["A"] @ f["B"], rtol=1e-5)


def test_the_leading_eigenvectors_hold_the_share_asked_for_and_no_more() -> None:
    # eigenvalues 6, 3, 1: shares 0.6, 0.9, 1
    Q0 = torch.linalg.qr(features(3, 3))[0]
    C = Q0 @ torch.diag(torch.tensor([6.0, 3.0, 1.0])) @ Q0.T
    for share, columns in ((0.3, 1), (0.59, 1), (0.61, 2), (0.89, 2), (0.91, 3)):
        Q = leading(C, share)
        assert Q.shape == (3, columns)
        assert torch.allclose(Q @ Q.T, Q0[:, :columns] @ Q0[:, :columns].T, atol=1e-5)


def test_with_the_projection_the_delta_is_silent_on_the_leading_features_in_every_form() -> None:
    c = features(3)  # of rank 3 in 6 dimensions: 0.999 of the trace is all three
    made = learner(moments_of(c), projection=0.999)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        for delta in made.layer_deltas().values():
            (delta(features(4, seed=1)) - 1).square().sum().backward()
        optimizer.step()
    kept = build("feature-space", rank=2).keep(made)
    x = features(4, seed=2)
    for layer, delta in made.layer_deltas().items():
        dW = kept[f"{layer}/A"] @ kept[f"{layer}/B"]
        assert torch.allclose(dW, delta.dense().detach(), atol=1e-6)
        assert float((dW @ c.T).abs().max()) < 1e-4
        assert float((dW @ x.T).abs().max()) > 0.1
        assert torch.allclose(delta(x).detach(), x @ dW.T, atol=1e-5)
    assert sorted(kept) == ["k/A", "k/B", "v/A", "v/B"]
    outside = [made.layer_deltas()["k"].dense().detach(), made.penalty().detach()]
    with torch.autocast("cpu", torch.bfloat16):
        inside = [made.layer_deltas()["k"].dense(), made.penalty()]
    assert all(torch.equal(a, b) for a, b in zip(inside, outside, strict=True))


def test_a_projection_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(ValueError, match="fill all 6 dimensions: lower the projection"):
        learner(torch.eye(6), projection=0.99)
    with pytest.raises(ValueError, match="projection is 1.0, but must be below 1"):
        build("feature-space", projection=1.0)


def test_moments_that_are_missing_or_do_not_fit_are_refused_with_the_layer() -> None:
    method = build("feature-space")
    with pytest.raises(ValueError, match="needs the moments"):
        method.start(SHAPES, [], {}, torch.Generator())
    shapes = {**SHAPES, "other": (4, 5)}
    with pytest.raises(ValueError, match=r"\(6, 6\).*'other' needs \(5, 5\)"):
        method.start(shapes, [], {}, torch.Generator(), moments=dict.fromkeys(shapes, torch.eye(6)))
    with pytest.raises(ValueError, match="no moments of the layer 'other'"):
        method.start(shapes, [], {}, torch.Generator(), moments=dict.fromkeys(SHAPES, torch.eye(6)))
    broken = dict.fromkeys(SHAPES, torch.full((6, 6), torch.nan))
    with pytest.raises(ValueError, match="not finite"):
        method.start(SHAPES, [], {}, torch.Generator(), moments=broken)


def test_the_moments_of_a_base_are_the_weighted_mean_over_prompts_and_positions(
    tiny: Path, tmp_path: Path
) -> None:
    base = Base.open(tiny, device="cpu")
    generator = torch.Generator().manual_seed(3)
    rows = {name: base.tokens.random("word", generator) for name in ("a", "b")}
    bank = with_rows(tmp_path, base, rows)
    total, weights = torch.zeros(32, 32, dtype=torch.float64), 0.0
    said = [(1.0, text) for text in CAPTIONS]
    said += [(2.0, text.format(f"<{name}>")) for name in rows for text in TEMPLATES]
    with torch.no_grad(), base.session(tokens=words(rows)) as session:
        for weight, text in said:
            for c in session.conditioning([text]).states[0].double():
                total += weight * torch.outer(c, c) / base.tokens.vocabularies[0].length
            weights += weight
    C = C_of(base, bank, weight=2.0)
    assert C.dtype == torch.float32 and torch.equal(C, C.T)
    assert torch.allclose(C.double(), total / weights, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(C, C_of(base), rtol=1e-3)
    summed = C_of(base, bank, weight=2.0, gather="sum")
    assert torch.allclose(summed.double(), total / len(CAPTIONS), rtol=1e-4, atol=1e-5)
    assert build("feature-space", gather="mean").moments_are == "mean"
    with pytest.raises(ValueError, match="gather is 'max', but must be 'mean' or 'sum'"):
        build("feature-space", gather="max")
    assert len(set(CAPTIONS)) == 384 and len(set(TEMPLATES)) == 15


def test_a_past_concept_is_encoded_once_and_its_moments_are_the_same_to_the_bit(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Base.open(tiny, device="cpu")
    generator = torch.Generator().manual_seed(3)
    rows = {name: base.tokens.random("word", generator) for name in ("a", "b", "c")}
    encoded: list[int] = []
    encode = StableDiffusion.encode
    monkeypatch.setattr(
        StableDiffusion,
        "encode",
        lambda self, pipeline, texts: encoded.append(len(texts)) or encode(self, pipeline, texts),
    )
    found = []
    for known in (1, 2, 3):
        bank = with_rows(tmp_path, base, dict(list(rows.items())[:known]))
        encoded.clear()
        found.append(C_of(base, bank))
        assert sum(encoded) == len(CAPTIONS) + len(TEMPLATES)
    assert torch.equal(C_of(base, bank), found[-1])
    shutil.rmtree(bank.derived)
    assert torch.equal(C_of(base, bank), found[-1])
    bank.remove("c")
    assert torch.equal(C_of(base, bank), found[1])
    with torch.no_grad():  # another text encoder: nothing of the old one's is gone on from
        base.pipeline.text_encoder.get_input_embeddings().weight[:400].mul_(1.5)
    changed = C_of(base, bank)
    shutil.rmtree(bank.derived)
    assert torch.equal(C_of(base, bank), changed) and not torch.equal(changed, found[1])


def C_of(base: Base, bank: Bank | None = None, **options: Any) -> Tensor:
    """The one matrix that all layers of the base share."""
    with base.session() as session:
        by_layer = moments(session, bank, **options)
    assert by_layer.keys() == base.shapes.keys()
    (C,) = {id(C): C for C in by_layer.values()}.values()
    return C


def with_rows(path: Path, base: Base, rows: dict[str, Tensor]) -> Bank:
    """The bank there with a task for each of these concepts, of which nothing else is kept."""
    method = build("feature-space").describe()
    bank = Bank.open_or_create(path, base=base.identity, **method)
    for name in rows.keys() - set(bank.concepts):
        bank.commit(
            concepts=[name], tensors={}, tokens=words({name: rows[name]}), facts={}, **method
        )
    return bank


def test_a_bank_from_before_an_option_was_there_goes_on_with_its_default(
    tiny: Path, drawings: Path, tmp_path: Path
) -> None:
    base = Base.open(tiny, device="cpu")
    learning = {"method": "feature-space", "options": {"rank": 2}, "steps": 1}
    teaching.learn(base, tmp_path / "bank", {"ada": drawings / "ada"}, **learning)
    index, file = tmp_path / "bank" / "bank.json", Bank.open(tmp_path / "bank").concept_file("ada")
    with safe_open(file, "pt") as opened:
        about = json.loads(opened.metadata()["perdure"])
    said = json.loads(index.read_text())
    del said["sha256"]
    assert said["config"].pop("gather") == about["config"].pop("gather") == "sum"
    save_file(load_file(file), file, {"perdure": json.dumps(about)})
    said["tasks"][0]["concepts"][0]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    index.write_text(json.dumps(said))
    teaching.learn(base, tmp_path / "bank", {"bo": drawings / "bo"}, **learning)
    learning["options"] = {"rank": 2, "gather": "mean"}
    with pytest.raises(PerdureError, match="gather"):
        teaching.learn(base, tmp_path / "bank", {"cy": drawings / "cy"}, **learning)


def test_a_learn_that_cannot_start_says_why_and_leaves_the_bank(
    tiny: Path, drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Base.open(tiny, device="cpu")
    monkeypatch.setattr(
        teaching, "moments", lambda session, *_, **__: dict.fromkeys(session.shapes, torch.eye(32))
    )
    learning = {"method": "feature-space", "options": {"rank": 2, "projection": 0.99}, "steps": 1}
    with pytest.raises(PerdureError, match="feature-space cannot start: .*lower the projection"):
        teaching.learn(base, tmp_path / "bank", {"ada": drawings / "ada"}, **learning)
    assert Bank.open(tmp_path / "bank").concepts == ()
