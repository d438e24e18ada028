"""STAMINA against numbers computed by hand (see docs/methods/stamina.md)."""

import pytest
import torch
from torch import Tensor

from perdure.adapters import pack_bits
from perdure.methods import Kept, build
from perdure.methods.stamina import StaminaLearner, TokenMLP

SHAPES = {"k": (2, 2), "v": (1, 1)}


def kept(concept: str, **layers: tuple[list[list[float]], list[list[float]], list]) -> Kept:
    tensors = {}
    for layer, (A, B, M) in layers.items():
        tensors[f"{layer}/A"], tensors[f"{layer}/B"] = torch.tensor(A), torch.tensor(B)
        tensors[f"{layer}/mask"] = pack_bits(torch.tensor(M).bool())
    return Kept(concepts=(concept,), tensors=tensors)


# k: [[1, -1], [2, -2]] under [[1, 1], [0, 1]] is [[1, -1], [0, -2]];
#    [[-1, -1], [1, 1]] under [[1, 0], [1, 1]] is [[-1, 0], [1, 1]]; the sum [[0, -1], [1, -1]].
# v: [[3]] under 1 and [[-5]] under 0: [[3]].
PAST = (
    kept("rex", k=([[1.0], [2.0]], [[1.0, -1.0]], [[1, 1], [0, 1]]), v=([[3.0]], [[1.0]], [[1]])),
    kept("ada", k=([[-1.0], [1.0]], [[1.0, 1.0]], [[1, 0], [1, 1]]), v=([[5.0]], [[-1.0]], [[0]])),
)
LOGITS = {"k": torch.tensor([[1.0, 2.0], [-1.0, 0.5]]), "v": torch.tensor([[-3.0]])}


def learner(past: tuple[Kept, ...] = PAST, **config: float) -> StaminaLearner:
    """k: [[1], [2]] @ [[3, -1]] under 1[LOGITS > 0] is [[3, -1], [0, -2]]; v: 2 under 0 is 0."""
    options = {"penalty": 1.0, "sparsity": 0.0, **config}
    made = build("stamina", rank=1, mask_rank=2, hidden=3, **options).start(
        SHAPES, past, {"bo": torch.ones(1, 4)}, torch.Generator().manual_seed(0)
    )
    assert isinstance(made, StaminaLearner)
    factors = {"k": ([[1.0], [2.0]], [[3.0, -1.0]]), "v": ([[2.0]], [[1.0]])}
    for (layer, (A, B)), delta in zip(factors.items(), made.masked(), strict=True):
        delta.factored.continue_from(torch.tensor(A), torch.tensor(B))
        delta.logits = lambda layer=layer: LOGITS[layer]  # type: ignore[method-assign]
    return made


def test_past_and_mix_are_the_sum_of_the_masked_deltas() -> None:
    method = build("stamina")
    for deltas in (method.past(PAST), method.mix(PAST, ["rex"]), method.mix(PAST, [])):
        assert deltas["k"].tolist() == [[0.0, -1.0], [1.0, -1.0]]
        assert deltas["v"].tolist() == [[3.0]]
    assert method.past([]) == {}


def test_the_penalty_is_taken_on_the_masked_delta() -> None:
    # | [[0, -1], [1, -1]] | (.) [[3, -1], [0, -2]] = [[0, -1], [0, -2]]: 1 + 4; v: 3 * 0 = 0.
    # Without the mask of this task the 6 would count as well: 1 + 36 + 4 + 36.
    assert learner().forgetting().item() == 5.0
    assert learner(penalty=1e8).penalty().item() == 5e8


def test_the_penalty_at_the_first_task_is_the_sparsity_alone() -> None:
    first = learner(past=())
    assert first.forgetting().item() == first.penalty().item() == 0.0
    assert not [name for name, _ in first.named_buffers() if name.startswith("past")]
    sparse = learner(past=(), sparsity=2.0)
    assert sparse.penalty().item() == pytest.approx(2.0 * sparse.density().item())


def test_the_density_is_the_mean_over_all_entries_of_all_layers() -> None:
    # sigmoid of 1, 2, -1, 0.5 and -3; five entries, not the mean of two layers' means
    values = [0.7310586, 0.8807971, 0.2689414, 0.6224593, 0.0474259]
    assert learner().density().item() == pytest.approx(sum(values) / 5, rel=1e-6)
    assert learner(sparsity=0.5).penalty().item() == pytest.approx(5 + 0.1 * sum(values), rel=1e-6)


def test_the_sparsity_term_alone_thins_the_masks_and_lets_factors_and_tokens_be() -> None:
    made = build("stamina", rank=1, mask_rank=2, hidden=4, penalty=0, sparsity=1.0).start(
        {"k": (12, 9)}, PAST, {"bo": torch.ones(1, 4)}, torch.Generator().manual_seed(0)
    )
    assert isinstance(made, StaminaLearner)
    before = made.density().item()
    optimizer = torch.optim.Adam(made.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        made.penalty().backward()
        assert made.masked()[0].factored.A.grad is None
        assert all(parameter.grad is None for parameter in made.groups()["tokens"])
        optimizer.step()
    assert made.density().item() < 0.5 * before
    assert not [name for name, _ in made.named_buffers() if name.startswith("past")]


def test_the_gradient_of_the_penalty_is_the_one_worked_out_by_hand() -> None:
    # G = dL/d(AB) = 2 P^2 (.) M (.) AB = 2 [[0, 1], [1, 1]] (.) [[3, -1], [0, -2]]
    #   = [[0, -2], [0, -4]];  dA = G B^T = [[2], [4]];  dB = A^T G = [[0, -10]].
    made = learner()
    made.penalty().backward()
    k, v = made.masked()
    assert k.factored.A.grad is not None and k.factored.B.grad is not None
    assert k.factored.A.grad.tolist() == [[2.0], [4.0]]
    assert k.factored.B.grad.tolist() == [[0.0, -10.0]]
    assert v.factored.A.grad is not None and v.factored.A.grad.tolist() == [[0.0]]


def test_the_past_is_one_dense_sum_per_layer_however_many_tasks() -> None:
    for past in (PAST, PAST * 50):
        made = learner(past=past)
        buffers = {name: b for name, b in made.named_buffers() if name.startswith("past")}
        assert [tuple(P.shape) for P in buffers.values()] == [(2, 2), (1, 1)]
    assert buffers["past_0"].tolist() == [[0.0, 50.0], [50.0, 50.0]]
    assert not set(buffers) & set(made.state_dict())


def test_only_factors_and_packed_bits_are_kept() -> None:
    method = build("stamina", rank=2, mask_rank=2, hidden=3)
    made = method.start(
        {"k": (20, 10)}, [], {"bo": torch.ones(1, 4)}, torch.Generator().manual_seed(0)
    )
    tensors = method.keep(made)
    assert {key: (tuple(t.shape), t.dtype) for key, t in tensors.items()} == {
        "k/A": ((20, 2), torch.float32),
        "k/B": ((2, 10), torch.float32),
        "k/mask": ((25,), torch.uint8),
    }


def test_a_token_is_an_mlp_of_ones_and_starts_at_the_row_given() -> None:
    row = torch.randn(1, 6)
    mlp = TokenMLP(row, 3, torch.Generator().manual_seed(0))
    assert torch.equal(mlp(), row)
    with torch.no_grad():
        for parameter in mlp.parameters():
            parameter.add_(0.3)
    W_1, b_1, W_2, b_2 = (p.detach() for p in (mlp.W_1, mlp.b_1, mlp.W_2, mlp.b_2))
    h = (W_1.sum(dim=1) + b_1).clamp(min=0)
    assert torch.allclose(mlp(), (W_2 @ h + b_2)[None], rtol=1e-5)


def test_gradients_reach_every_part_of_the_learner() -> None:
    method = build("stamina", rank=2, mask_rank=2, hidden=4)
    made = method.start(
        {"k": (6, 5)}, [], {"bo": torch.ones(1, 5)}, torch.Generator().manual_seed(0)
    )
    assert isinstance(made, StaminaLearner)
    with torch.no_grad():  # off the zeros that training starts at
        made.masked()[0].factored.A.normal_()
        for parameter in made.groups()["tokens"]:
            parameter.add_(0.1)
    made.begin_step(torch.Generator().manual_seed(1))
    (made.layer_deltas()["k"](made.tokens()["bo"]) ** 2).sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_a_step_draws_the_same_masks_whenever_it_is_taken() -> None:
    def masks(steps: list[int]) -> list[Tensor]:
        made = build("stamina", rank=1, mask_rank=2, hidden=4).start(
            {"k": (6, 5), "v": (4, 5)}, [], {}, torch.Generator().manual_seed(0)
        )
        assert isinstance(made, StaminaLearner)
        for step in steps:
            made.begin_step(torch.Generator().manual_seed(step))
        return [delta.mask().detach() for delta in made.masked()]

    whole, resumed = masks([0, 1, 2, 3]), masks([3])
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
    assert not torch.equal(whole[0][:4], whole[1])  # layers do not share their noise
    assert not all(torch.equal(a, b) for a, b in zip(whole, masks([2]), strict=True))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("mask_rank", 0),
        ("hidden", 1.5),
        ("rank", 0),
        ("sparsity", -1.0),
        ("penalty", float("nan")),
        ("tau", 0.0),
        ("bias", float("inf")),
    ],
)
def test_an_option_that_does_not_fit_is_refused_by_name(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"stamina: {option} is"):
        build("stamina", **{option: value})
