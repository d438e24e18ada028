"""FL2T's terms against numpy, and its module's indifference to the order of the concepts."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from perdure.adapters import Prompts
from perdure.methods import Kept, build
from perdure.methods.fl2t import FL2T, ComposeLearner, Mixture, info_nce, weights

SHAPES = {"k": (6, 8), "v": (5, 8)}
SMALL = {"rank": 2, "width": 8, "heads": 2}
NAMES = ("ada", "bo", "cy")


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def bank(names: Sequence[str] = NAMES) -> list[Kept]:
    """Three tasks as step 1 leaves them, whatever their order."""
    kept = []
    for name in names:
        tensors = {f"encoded/{name}": normal(8, seed=NAMES.index(name))}
        for index, (layer, (d_out, d_in)) in enumerate(SHAPES.items()):
            seed = 10 * NAMES.index(name) + index
            tensors[f"{layer}/A"] = normal(d_out, 2, seed=seed)
            tensors[f"{layer}/B"] = normal(2, d_in, seed=seed + 5)
        kept.append(Kept((name,), tensors))
    return kept


def prompts(names: Sequence[str] = NAMES) -> Prompts:
    states = torch.stack([normal(4, 8, seed=100 + NAMES.index(name)) for name in names])
    return Prompts(states, tuple(((name, 1),) for name in names), (3,) * len(names))


def composer(
    names: Sequence[str] = NAMES, moved: bool = True, **config: object
) -> tuple[FL2T, ComposeLearner]:
    method = build("fl2t", **{**SMALL, **config})
    assert isinstance(method, FL2T)
    generator = torch.Generator().manual_seed(0)
    made = method.start_composition(SHAPES, bank(names), {}, prompts(names), generator)
    assert isinstance(made, ComposeLearner)
    if moved:  # as after some training
        with torch.no_grad():
            made.module.up.weight.copy_(normal(8, 8, seed=50) / 10)
    return method, made


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


ENCODED = np.stack([normal(8, seed=k).numpy() for k in range(3)])
CENTRE = ENCODED.mean(axis=0)


def test_the_proxies_start_at_the_encoded_concepts_less_their_mean() -> None:
    _, made = composer(moved=False)
    moved = made.moved(prompts().states).detach().numpy()
    assert np.allclose(moved, np.broadcast_to(unit(ENCODED - CENTRE), (3, 3, 8)), atol=1e-6)
    _, single = composer(names=NAMES[:1], moved=False)
    assert np.allclose(
        single.moved(prompts().states).detach().numpy(), unit(ENCODED[:1]), atol=1e-6
    )


def test_what_all_states_share_changes_no_weight() -> None:
    def shifted(by: Tensor) -> dict[str, Tensor]:
        kept = [
            Kept(k.concepts, {n: t + by if "encoded" in n else t for n, t in k.tensors.items()})
            for k in bank()
        ]
        return build("fl2t", **SMALL).mix_composed(kept, {}, [], prompts().states[0] + by)  # type: ignore[attr-defined, no-any-return]

    one, other = shifted(torch.zeros(8)), shifted(100 * normal(8, seed=60))
    for layer in SHAPES:
        assert torch.allclose(one[layer], other[layer], rtol=1e-3, atol=1e-4)


def test_the_proxies_of_a_prompt_depend_on_the_prompt_and_on_one_another() -> None:
    _, made = composer()
    moved = made.moved(prompts().states).detach()
    assert not torch.allclose(moved[0], moved[1], atol=1e-3)
    _, fewer = composer(names=NAMES[:2])
    assert not torch.allclose(fewer.moved(prompts().states).detach(), moved[:, :2], atol=1e-4)


@pytest.mark.parametrize("order", [("bo", "cy", "ada"), ("cy", "bo", "ada"), ("ada", "cy", "bo")])
def test_any_order_of_the_concepts_gives_a_prompt_the_same_delta(order: Sequence[str]) -> None:
    method, made = composer()
    together = method.keep_composition(made)
    states = prompts().states[1]
    one = method.mix_composed(bank(), together, ["bo"], states)
    other = method.mix_composed(bank(order), together, ["bo"], states)
    for layer in SHAPES:
        assert torch.allclose(one[layer], other[layer], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("relevance", ["softmax", "paper", "code"])
def test_the_weights_are_psi_of_the_best_cosine_of_a_position(relevance: str) -> None:
    method = build("fl2t", relevance=relevance, tau=0.5)
    assert isinstance(method, FL2T)
    P = torch.tensor([[[0.6, 0.8], [1.0, 0.0]]])
    states = torch.tensor([[[0.0, 3.0], [-1.0, 0.0]]])
    # cosines 0.8, -0.6 and 0, -1: s = [0.8, 0]
    w = weights(P, states, method.config)[0].tolist()
    expected = {
        "softmax": [np.exp(1.6) / (np.exp(1.6) + 1), 1 / (np.exp(1.6) + 1)],
        "paper": [0.8, 0.0],
        "code": [1.0, 0.0],
    }[relevance]
    assert w == pytest.approx(expected, abs=1e-6)


def test_info_nce_against_numpy() -> None:
    P, C = normal(2, 3, 8, seed=1), normal(3, 8, seed=2)
    logits = unit(P.numpy()) @ unit(C.numpy()).T / 0.1
    losses = [
        -np.log(np.exp(logits[n, g, g]) / np.exp(logits[n, g]).sum())
        for n in range(2)
        for g in range(3)
    ]
    assert info_nce(P, C, 0.1).item() == pytest.approx(np.mean(losses), rel=1e-5)


def dense(layer: str) -> np.ndarray:
    return np.stack([(k.tensors[f"{layer}/A"] @ k.tensors[f"{layer}/B"]).numpy() for k in bank()])


def test_the_mixture_is_the_weighted_sum_of_the_deltas_for_each_prompt() -> None:
    tasks = bank()
    mixture = Mixture(
        torch.stack([k.tensors["k/A"] for k in tasks]),
        torch.stack([k.tensors["k/B"] for k in tasks]),
    )
    w, x = normal(2, 3, seed=3), normal(2, 4, 8, seed=4)
    mixture.w = w
    by_hand = np.einsum("ng,goi,npi->npo", w.numpy(), dense("k"), x.numpy())
    assert np.allclose(mixture(x).numpy(), by_hand, atol=1e-5)
    mean = np.einsum("g,goi->oi", w.mean(dim=0).numpy(), dense("k"))
    assert np.allclose(mixture.dense().numpy(), mean, atol=1e-5)


def test_the_preservation_is_the_relative_square_of_what_changes_in_a_concepts_own_prompt() -> None:
    _, made = composer()
    made.begin_step(torch.Generator().manual_seed(0))
    states = prompts().states
    moved = made.moved(states).detach().numpy()
    s = (moved @ unit(states.numpy() - CENTRE).transpose(0, 2, 1)).max(axis=2)
    w = np.exp(s / 0.05) / np.exp(s / 0.05).sum(axis=1, keepdims=True)
    ratios = []
    for layer in SHAPES:
        for g in range(3):
            off = np.einsum("h,hoi,pi->po", w[g] - np.eye(3)[g], dense(layer), states[g].numpy())
            own = states[g].numpy() @ dense(layer)[g].T
            ratios.append(np.square(off).sum() / np.square(own).sum())
    assert made.preservation().item() == pytest.approx(np.mean(ratios), rel=1e-4)
    _, single = composer(names=NAMES[:1])
    assert single.preservation().item() == pytest.approx(0, abs=1e-12)


def test_the_penalty_is_the_weighted_sum_and_each_term_can_be_switched_off() -> None:
    values = {}
    for mu, nu in ((0.0, 0.0), (0.5, 0.0), (0.0, 2.0), (0.5, 2.0)):
        _, made = composer(mu=mu, nu=nu)
        made.begin_step(torch.Generator().manual_seed(0))
        made.read(prompts())
        values[mu, nu] = made.penalty().item()
    assert values[0.0, 0.0] == 0.0
    assert values[0.5, 2.0] == pytest.approx(values[0.5, 0.0] + values[0.0, 2.0])
    assert values[0.5, 0.0] > 0
    assert values[0.0, 2.0] > 0


def test_without_proxies_the_weights_come_from_the_encoded_concepts() -> None:
    method = build("fl2t", **SMALL, proxies=False)
    assert isinstance(method, FL2T)
    assert method.composition_settings() is None
    states = prompts().states[0]
    s = (unit(ENCODED - CENTRE) @ unit(states.numpy() - CENTRE).T).max(axis=1)
    w = np.exp(s / 0.05) / np.exp(s / 0.05).sum()
    mixed = method.mix(bank(), [], states)
    for layer in SHAPES:
        by_hand = np.einsum("g,goi->oi", w, dense(layer))
        assert np.allclose(mixed[layer].numpy(), by_hand, atol=1e-4)


def test_training_lowers_the_penalty_and_moves_the_module_alone() -> None:
    method, made = composer(moved=False)
    tasks = bank()
    optimizer = torch.optim.AdamW(made.groups()["deltas"], lr=1e-2)
    values = []
    for _ in range(100):
        made.begin_step(torch.Generator().manual_seed(0))
        made.read(prompts())
        optimizer.zero_grad()
        loss = made.penalty()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.7 * values[0]
    for layer, delta in made.layer_deltas().items():
        A = torch.cat([task.tensors[f"{layer}/A"] for task in tasks], dim=1)
        assert isinstance(delta, Mixture)
        assert torch.equal(delta.A, A)


def test_what_was_trained_together_is_gone_on_from_and_loses_a_removed_concepts_proxy() -> None:
    method, made = composer()
    together = method.keep_composition(made)
    generator = torch.Generator().manual_seed(9)
    again = method.start_composition(SHAPES, bank(), together, prompts(), generator)
    assert isinstance(again, ComposeLearner)
    states = prompts().states
    assert torch.equal(made.moved(states), again.moved(states))
    fewer = method.without(together, "bo")
    assert set(together) - set(fewer) == {"proxy/bo"}
    rest = [task for task in bank() if task.concepts != ("bo",)]
    assert method.mix_composed(rest, fewer, [], states[0]).keys() == SHAPES.keys()
    assert np.allclose(fewer["centre"].numpy(), CENTRE, atol=1e-6)  # as the others were trained


def test_a_delta_of_the_second_step_asks_to_read_first() -> None:
    _, made = composer()
    with pytest.raises(ValueError, match="read the prompts first"):
        made.layer_deltas()["k"](normal(1, 4, 8, seed=0))


@pytest.mark.parametrize(
    ("option", "value"),
    [("tau", 0), ("mu", -1), ("heads", 3), ("relevance", "cosine"), ("proxies", 1)],
)
def test_an_option_that_does_not_fit_is_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"fl2t: .*{option}"):
        build("fl2t", **{option: value})
