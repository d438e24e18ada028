"""The closed-form merge against KKT systems (see docs/methods/custom-diffusion-merged.md)."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from perdure.adapters import Prompts
from perdure.methods import Kept, build
from perdure.methods.custom_diffusion_merged import RIDGE

D, SHAPES = 7, {"k": (4, 7), "v": (3, 7)}


def captions(rows: int = 50) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, D)) * np.linspace(0.5, 2, D)


def tuned(method, concept: str, features: Tensor, seed: int, C_reg: np.ndarray | None = None):
    """A task whose dW is random and whose prompt has `features` (s, d) from its token to its end;
    returns what is kept and the dense dW by layer."""
    C_reg = captions() if C_reg is None else C_reg
    G = torch.tensor(C_reg.T @ C_reg / len(C_reg), dtype=torch.float32)
    learner = method.start(
        SHAPES, [], {concept: torch.ones(D)}, torch.Generator(), moments=dict.fromkeys(SHAPES, G)
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for delta in learner.layer_deltas().values():
            delta.dW.normal_(generator=generator)
    before, padding = torch.full((1, D), 1e3), torch.full((2, D), -1e3)
    states = torch.cat([before, features, padding])[None]
    learner.see(Prompts(states=states, spoken=(((concept, 1),),), ends=(len(features),)))
    dense = {k: d.dense().detach().double().numpy() for k, d in learner.layer_deltas().items()}
    return Kept((concept,), method.keep(learner)), dense


def by_kkt(C_reg: np.ndarray, C: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """argmin ||dW C_reg^T||_F subject to dW C^T = Y^T (Y: s x d_out), from the Lagrange conditions
    G dW^T + C^T mu = 0, C dW^T = Y."""
    G, s = C_reg.T @ C_reg, len(C)
    system = np.block([[G, C.T], [C, np.zeros((s, s))]])
    right = np.concatenate([np.zeros((D, Y.shape[1])), Y])
    return scipy.linalg.solve(system, right)[:D].T


def with_ridge(C_reg: np.ndarray) -> np.ndarray:
    """Captions, and the ridge written as further captions."""
    C_reg = C_reg / np.sqrt(len(C_reg))
    most = np.linalg.eigvalsh(C_reg.T @ C_reg)[-1]
    return np.concatenate([C_reg, np.sqrt(RIDGE * most) * np.eye(D)])


@pytest.mark.parametrize("sizes", [(1,), (2, 1), (2, 2, 2)])
def test_the_merge_is_the_constrained_least_squares_solution(sizes: tuple[int, ...]) -> None:
    method, generator = build("custom-diffusion-merged"), torch.Generator().manual_seed(3)
    C = [torch.randn(s, D, generator=generator) for s in sizes]
    tasks = [tuned(method, f"c{i}", c, seed=i) for i, c in enumerate(C)]
    merged = method.mix([kept for kept, _ in tasks], ["c0"])
    rows = np.concatenate([c.double().numpy() for c in C])
    for layer in SHAPES:
        Y = np.concatenate(
            [c.double().numpy() @ dW[layer].T for c, (_, dW) in zip(C, tasks, strict=True)]
        )
        expected = by_kkt(with_ridge(captions()), rows, Y)
        assert np.allclose(merged[layer].numpy(), expected, rtol=2e-4, atol=2e-4)
        assert np.allclose(rows @ merged[layer].double().numpy().T, Y, atol=1e-4)


def test_it_changes_ordinary_captions_less_than_any_other_solution_does() -> None:
    method = build("custom-diffusion-merged")
    C = torch.randn(2, D, generator=torch.Generator().manual_seed(5))
    kept, _ = tuned(method, "rex", C, seed=1)
    dW = method.mix([kept], [])["k"].double().numpy()
    null = scipy.linalg.null_space(C.double().numpy())
    rng = np.random.default_rng(1)
    least = np.linalg.norm(dW @ captions().T)
    for _ in range(20):
        other = dW + 0.1 * rng.normal(size=(4, null.shape[1])) @ null.T  # it answers C alike
        assert np.linalg.norm(other @ captions().T) > least


def test_one_feature_by_hand() -> None:
    # Captions of the covariance diag(1, 4, 1, ...): G^-1 c = (1, 1/4, 0, ...) for c = (1, 1, 0,
    # ...), and c G^-1 c = 5/4, so dW = y (4/5, 1/5, 0, ...) for the answer y to c.
    method = build("custom-diffusion-merged")
    c = torch.tensor([[1.0, 1.0, 0, 0, 0, 0, 0]])
    C_reg = np.diag([1.0, 2, 1, 1, 1, 1, 1]) * np.sqrt(D)
    kept, dW = tuned(method, "rex", c, seed=1, C_reg=C_reg)
    y = dW["v"][:, 0] + dW["v"][:, 1]
    expected = np.outer(y, [0.8, 0.2, 0, 0, 0, 0, 0])
    assert np.allclose(method.mix([kept], [])["v"].numpy(), expected, atol=1e-4)


def test_the_same_feature_of_two_tasks_with_other_answers_gives_their_mean() -> None:
    method = build("custom-diffusion-merged")
    c = torch.randn(1, D, generator=torch.Generator().manual_seed(5))
    (one, dW1), (two, dW2) = tuned(method, "rex", c, seed=1), tuned(method, "ada", c, seed=2)
    answer = c.double().numpy() @ method.mix([one, two], [])["k"].double().numpy().T
    mean = c.double().numpy() @ (dW1["k"] + dW2["k"]).T / 2
    assert np.allclose(answer, mean, atol=1e-4)


def test_a_feature_that_is_given_twice_counts_once() -> None:
    method = build("custom-diffusion-merged")
    c = torch.randn(2, D, generator=torch.Generator().manual_seed(5))
    once, _ = tuned(method, "rex", c, seed=1)
    twice, _ = tuned(method, "rex", torch.cat([c, c[:1] * 3]), seed=1)
    assert torch.allclose(method.mix([once], [])["k"], method.mix([twice], [])["k"], atol=1e-4)


def test_what_is_kept_does_not_hold_the_dense_delta() -> None:
    method = build("custom-diffusion-merged")
    kept, _ = tuned(method, "rex", torch.randn(2, D), seed=1)
    assert {key: tuple(t.shape) for key, t in kept.tensors.items()} == {
        "*/features": (2, D),
        "*/duals": (2, D),
        "k/answers": (4, 2),
        "v/answers": (3, 2),
    }


def test_what_is_missing_is_named() -> None:
    method, rows = build("custom-diffusion-merged"), {"rex": torch.ones(D)}
    with pytest.raises(ValueError, match="custom-diffusion-merged needs the moments"):
        method.start(SHAPES, [], rows, torch.Generator())
    with pytest.raises(ValueError, match=r"'v' needs \(7, 7\)"):
        moments = dict.fromkeys(SHAPES, torch.eye(3))
        method.start(SHAPES | {"k": (4, 3)}, [], rows, torch.Generator(), moments=moments)
    moments = {name: torch.eye(D) for name in SHAPES}
    with pytest.raises(ValueError, match="all of them must read the same features"):
        method.start(SHAPES, [], rows, torch.Generator(), moments=moments)
    moments = dict.fromkeys(SHAPES, torch.eye(D))
    with pytest.raises(ValueError, match="this task has no token"):
        method.start(SHAPES, [], {}, torch.Generator(), moments=moments)
    learner = method.start(SHAPES, [], rows, torch.Generator(), moments=moments)
    with pytest.raises(ValueError, match="has not seen its prompts"):
        method.keep(learner)
