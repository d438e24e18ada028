"""C-LoRA against numbers computed by hand (see docs/methods/c-lora.md)."""

import hashlib

import pytest
import torch
from torch import Tensor

from perdure.methods import Kept, build
from perdure.methods.c_lora import CLoRALearner


def kept(concept: str, **layers: tuple[list[list[float]], list[list[float]]]) -> Kept:
    tensors = {}
    for layer, (A, B) in layers.items():
        tensors[f"{layer}/A"], tensors[f"{layer}/B"] = torch.tensor(A), torch.tensor(B)
    return Kept(concepts=(concept,), tensors=tensors)


# k: [[1, -1], [2, -2]] + [[-1, -1], [1, 1]] = [[0, -2], [3, -1]]; absolute value [[0, 2], [3, 1]].
# The sum of the absolute values would be [[2, 2], [3, 3]]. v: [[3]] + [[-5]] = [[-2]].
PAST = (
    kept("rex", k=([[1.0], [2.0]], [[1.0, -1.0]]), v=([[3.0]], [[1.0]])),
    kept("ada", k=([[-1.0], [1.0]], [[1.0, 1.0]]), v=([[5.0]], [[-1.0]])),
)
SHAPES = {"k": (2, 2), "v": (1, 1)}


def learner(past: tuple[Kept, ...] = PAST, penalty: float = 1.0) -> CLoRALearner:
    """The third task, at k: [[1], [2]] @ [[3, -1]] = [[3, -1], [6, -2]] and v: [[2]]."""
    made = build("c-lora", rank=1, penalty=penalty).start(
        SHAPES, past, {"bo": torch.ones(4)}, torch.Generator().manual_seed(0)
    )
    assert isinstance(made, CLoRALearner)
    k, v = made.layer_deltas().values()
    k.load_state_dict({"A": torch.tensor([[1.0], [2.0]]), "B": torch.tensor([[3.0, -1.0]])})
    v.load_state_dict({"A": torch.tensor([[2.0]]), "B": torch.tensor([[1.0]])})
    return made


def test_the_penalty_takes_the_absolute_value_of_the_signed_sum() -> None:
    # k: [[0*3, 2*-1], [3*6, 1*-2]] = [[0, -2], [18, -2]], squares 0 + 4 + 324 + 4 = 332
    # v: 2*2 = 4, square 16; together 348. By the sum of absolute values k is
    # [[6, -2], [18, -6]]: 36 + 4 + 324 + 36 = 400 and v is 8*2 = 16: 256; together 656.
    assert learner().forgetting().item() == 348.0


def test_lambda_multiplies_the_sum_over_entries_and_layers() -> None:
    assert learner(penalty=0.5).penalty().item() == 174.0
    assert learner(penalty=1e8).penalty().item() == pytest.approx(3.48e10, rel=1e-6)


def test_the_penalty_is_zero_at_the_first_task() -> None:
    first = learner(past=(), penalty=1e8)
    assert first.penalty().item() == 0.0
    assert first.penalty().shape == () and first.penalty().dtype == torch.float32
    assert list(first.buffers()) == []


def test_a_penalty_of_zero_costs_nothing_and_builds_no_past() -> None:
    off = learner(penalty=0)
    assert off.penalty().item() == 0.0
    assert list(off.buffers()) == []


def test_the_gradient_is_the_one_worked_out_by_hand() -> None:
    # G = dL/d(AB) = 2 P^2 (.) AB. k: 2 * [[0, 4], [9, 1]] (.) [[3, -1], [6, -2]]
    #   = [[0, -8], [108, -4]];   dA = G B^T = [[8], [328]];   dB = A^T G = [[216, -16]].
    # v: G = 2 * 4 * 2 = 16;      dA = 16 * 1;                  dB = 2 * 16.
    made = learner()
    made.penalty().backward()
    k, v = made.layer_deltas().values()
    assert k.get_parameter("A").grad.tolist() == [[8.0], [328.0]]
    assert k.get_parameter("B").grad.tolist() == [[216.0, -16.0]]
    assert v.get_parameter("A").grad.tolist() == [[16.0]]
    assert v.get_parameter("B").grad.tolist() == [[32.0]]


def test_the_gradient_agrees_with_finite_differences_in_float64() -> None:
    made = learner(penalty=3.0).double()
    made.penalty().backward()
    for parameter in made.groups()["deltas"]:
        assert parameter.grad is not None
        for index in range(parameter.numel()):
            value = parameter.data.view(-1)
            value[index] += 1e-6
            above = made.penalty().item()
            value[index] -= 2e-6
            below = made.penalty().item()
            value[index] += 1e-6
            slope = (above - below) / 2e-6
            assert float(parameter.grad.view(-1)[index]) == pytest.approx(slope, rel=1e-6)


def test_no_gradient_reaches_the_past_or_the_tokens() -> None:
    made = learner()
    made.penalty().backward()
    assert not any(P.requires_grad for P in made.buffers())
    assert made.tokens()["bo"].grad is None


def test_the_penalty_is_the_same_bit_for_bit_within_bf16_autocast() -> None:
    made = learner()
    with torch.no_grad():
        made.layer_deltas()["k"].get_parameter("A").mul_(1.0009765625)  # not a bf16 number
    with torch.autocast("cpu", torch.bfloat16):
        inside = made.penalty()
    assert inside.dtype == torch.float32
    assert inside.item() == made.penalty().item() != 348.0


def test_the_past_is_one_dense_sum_per_layer_however_many_tasks() -> None:
    for past in (PAST, PAST * 50):
        buffers = dict(learner(past=past).named_buffers())
        assert [tuple(P.shape) for P in buffers.values()] == [(2, 2), (1, 1)]
    assert buffers["past_0"].tolist() == [[0.0, 100.0], [150.0, 50.0]]
    assert not set(buffers) & set(learner().state_dict())  # a checkpoint need not hold them


def test_past_and_mix_are_the_signed_sum_whatever_is_spoken() -> None:
    method = build("c-lora", rank=1)
    for deltas in (method.past(PAST), method.mix(PAST, ["rex"]), method.mix(PAST, [])):
        assert deltas["k"].tolist() == [[0.0, -2.0], [3.0, -1.0]]
        assert deltas["v"].tolist() == [[-2.0]]
        assert deltas["k"].dtype == torch.float32


def test_the_norm_is_the_frobenius_norm_over_all_layers() -> None:
    # 9 + 1 + 36 + 4 = 50 and 4
    assert learner().norm() == pytest.approx(54**0.5)


def test_the_penalty_pushes_the_delta_off_the_weights_that_the_past_changed() -> None:
    def learn(penalty: float) -> tuple[Tensor, float]:
        """Fit sum(dW) = 1; the past has changed the first column alone."""
        past = kept("rex", k=([[1.0], [1.0]], [[1.0, 0.0]]))
        made = build("c-lora", rank=2, penalty=penalty).start(
            {"k": (2, 2)}, [past], {}, torch.Generator().manual_seed(0)
        )
        optimizer = torch.optim.Adam(made.parameters(), lr=0.02)
        for _ in range(300):
            optimizer.zero_grad()
            fit = (made.layer_deltas()["k"].dense().sum() - 1).square()
            (fit + made.penalty()).backward()
            optimizer.step()
        return made.layer_deltas()["k"].dense().detach().square().sum(0), fit.item()

    (free_touched, free_clear), free_fit = learn(0.0)
    (touched, clear), fit = learn(100.0)
    assert free_fit < 1e-3 and fit < 1e-2
    assert free_touched > 0.01
    assert touched < 1e-3 * clear


def test_the_kept_past_is_untouched_by_learning_the_next_task() -> None:
    def digest() -> str:
        sha = hashlib.sha256()
        for task in PAST:
            for key, tensor in sorted(task.tensors.items()):
                sha.update(key.encode() + tensor.numpy().tobytes())
        return sha.hexdigest()

    before, made = digest(), learner()
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        made.penalty().backward()
        optimizer.step()
    assert made.norm() != pytest.approx(54**0.5)
    assert digest() == before


def test_rank_16_trains_792576_parameters_in_stable_diffusion_1_5() -> None:
    widths = [320] * 2 + [640] * 2 + [1280] * 2 + [1280] + [1280] * 3 + [640] * 3 + [320] * 3
    shapes = {
        f"block.{index}.attn2.{projection}": (width, 768)
        for index, width in enumerate(widths)
        for projection in ("to_k", "to_v")
    }
    assert len(shapes) == 32
    assert sum(d_out * d_in for d_out, d_in in shapes.values()) == 19_169_280
    with torch.device("meta"):
        made = build("c-lora", rank=16).start(shapes, [], {}, torch.Generator())
        trained = made.groups()["deltas"]
        assert made.penalty().device.type == "meta"
    assert all(parameter.device.type == "meta" for parameter in trained)
    assert sum(parameter.numel() for parameter in trained) == 792_576
