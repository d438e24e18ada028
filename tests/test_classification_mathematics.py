"""Losses, moments, LwF, CODA-Prompt and InfLoRA against values worked out independently."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from classifying import coloured, make_backbone
from torch import Tensor, nn

from perdure import precision
from perdure.classification.coda_prompt import (
    gram_schmidt,
    orthogonality,
    prompt_of,
    prompted,
)
from perdure.classification.inflora import InfLoRA, InfLoRALearner, Memory, design, first_memory
from perdure.classification.lwf import LwF
from perdure.classification.moments import gathered, input_moments
from perdure.classification.objective import distillation, masked_cross_entropy
from perdure.measuring.matrix import TaskMatrix, forgetting_coda, forgetting_max
from perdure.methods.feature_space import FeatureSpace, FeatureSpaceLearner
from perdure.methods.protocol import Kept

Q_AND_K = {"a.q_proj": (4, 6), "a.k_proj": (4, 6)}


def moments_of(*scales: float) -> Tensor:
    return torch.diag(torch.tensor(scales, dtype=torch.float64))


def test_masked_cross_entropy_is_that_of_the_tasks_own_columns() -> None:
    logits = torch.tensor([[9.0, 0.0, math.log(3.0)], [5.0, 1.0, 1.0]], requires_grad=True)
    loss = masked_cross_entropy(logits, torch.tensor([2, 1]), 1)
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    loss.backward()
    assert torch.equal(logits.grad[:, 0], torch.zeros(2))  # the old class feels nothing
    unmasked = masked_cross_entropy(logits.detach(), torch.tensor([2, 1]), 0)
    by_hand = math.log(math.exp(9) + 1 + 3) - math.log(3) + math.log(math.exp(5) + 2 * math.e) - 1
    assert unmasked.item() == pytest.approx(by_hand / 2)


def test_forgetting_is_coda_prompts_formula_and_best_minus_last() -> None:
    rows = ((0.9, None, None), (0.7, 0.8, None), (0.5, 0.9, 0.6))
    matrix = TaskMatrix(
        tasks=(("a",), ("b",), ("c",)),
        scores={"accuracy": rows},
        higher_is_better={"accuracy": True},
    )
    # t = 1: 0.9 - 0.7; t = 2: ((0.7 - 0.5) + (0.8 - 0.9)) / 2; over T - 1 = 2
    assert forgetting_coda(matrix, "accuracy") == pytest.approx((0.2 + 0.05) / 2)
    # best earlier minus last: 0.9 - 0.5 and 0.8 - 0.9
    assert forgetting_max(matrix, "accuracy") == pytest.approx((0.4 - 0.1) / 2)


def test_distillation_is_lwfs_with_powers_of_probabilities() -> None:
    """The paper writes y' = y^(1/T) / sum y^(1/T) of probabilities, within every old task."""
    generator = torch.Generator().manual_seed(0)
    now, before = (torch.randn(5, n, generator=generator) for n in (7, 5))
    sizes, T = (2, 3), 2.0
    total = 0.0
    for n in range(5):
        for own in (slice(0, 2), slice(2, 5)):
            y, y_hat = (np.exp(x[n, own].double().numpy()) for x in (before, now))
            y, y_hat = (p / p.sum() for p in (y, y_hat))
            y, y_hat = (p ** (1 / T) / (p ** (1 / T)).sum() for p in (y, y_hat))
            total -= float((y * np.log(y_hat)).sum()) / 5
    assert distillation(now, before, sizes, T).item() == pytest.approx(total, rel=1e-5)
    assert LwF(LwF.Config(weight=3.0)).held(now, before, sizes).item() == pytest.approx(
        3 * total, rel=1e-5
    )


def test_distillation_is_least_where_nothing_has_moved() -> None:
    before = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    now = before.clone().requires_grad_()
    distillation(now, before, (3,), 2.0).backward()
    assert now.grad.abs().max() < 1e-7


@pytest.mark.usefixtures("fp32")
@pytest.mark.parametrize("kind", ["vit", "fused"])
def test_moments_are_the_mean_of_products_of_all_inputs(kind: str) -> None:
    backbone = make_backbone(kind)
    pixels = backbone.preprocessing.plain(list(coloured([0, 1, 2])[0]))
    name = list(backbone.layers)[-1]
    seen: list[Tensor] = []
    handle = backbone.layers[name].module.register_forward_pre_hook(
        lambda m, args: seen.append(args[0])
    )
    backbone.features(pixels)
    handle.remove()
    x = seen[0].reshape(-1, 16).double()
    found = input_moments(backbone, [pixels[:10], pixels[10:]])
    assert torch.allclose(found[name].double(), x.T @ x / len(x), atol=1e-5)
    assert set(found) == set(backbone.layers)
    distinct = {id(C) for C in found.values()}
    assert len(distinct) == 2  # queries, keys and values of a block read the same
    thrice = {layer: 3 * C for layer, C in found.items()}
    assert torch.allclose(gathered(found, 1, thrice)[name], 2 * found[name])
    assert torch.allclose(gathered(found, 1, thrice, "sum")[name], 4 * found[name])


def test_moments_stay_in_fp32_where_features_are_computed_in_bf16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "fast_bf16", lambda device: True)
    backbone = make_backbone()
    pixels = backbone.preprocessing.plain(list(coloured([0, 1, 2])[0]))
    name = list(backbone.layers)[0]
    seen: list[Tensor] = []
    handle = backbone.layers[name].module.register_forward_pre_hook(
        lambda m, args: seen.append(args[0])
    )
    backbone.features(pixels)
    handle.remove()
    x = seen[0].reshape(-1, 16).double()
    found = input_moments(backbone, [pixels])[name].double()
    assert torch.allclose(found, x.T @ x / len(x), rtol=1e-5, atol=1e-6)
    assert torch.linalg.eigvalsh(found).min() > -1e-6


def test_feature_space_with_moments_by_layer_adds_up_each_layers_own() -> None:
    generator = torch.Generator().manual_seed(0)
    C_a, C_b = torch.eye(6) * 2, torch.diag(torch.arange(5.0))
    shapes = {"a": (4, 6), "b": (3, 5), "c": (4, 6)}
    moments = {"a": C_a, "b": C_b, "c": C_a}
    method = FeatureSpace(FeatureSpace.Config(rank=2, penalty=0.5))
    learner = method.start(shapes, [], {}, generator, moments=moments)
    assert isinstance(learner, FeatureSpaceLearner) and learner.reads == (0, 1, 0)
    for delta in learner.layer_deltas().values():
        nn.init.normal_(delta.A, generator=generator)
    dWs = {layer: delta.dense() for layer, delta in learner.layer_deltas().items()}
    by_hand = sum(torch.trace(dWs[layer] @ moments[layer] @ dWs[layer].T) for layer in shapes)
    assert learner.penalty().item() == pytest.approx(0.5 * float(by_hand.detach()), rel=1e-5)


def test_feature_space_projects_off_each_layers_own_and_leaves_an_empty_one_free() -> None:
    method = FeatureSpace(FeatureSpace.Config(rank=2, projection=0.9))
    moments = {"a": torch.diag(torch.tensor([9.0, 0.5, 0.4])), "b": torch.zeros(3, 3)}
    shapes = {"a": (4, 3), "b": (4, 3)}
    learner = method.start(shapes, [], {}, torch.Generator().manual_seed(0), moments=moments)
    B = {layer: delta.factors()["B"] for layer, delta in learner.layer_deltas().items()}
    assert B["a"][:, 0].abs().max() < 1e-6 and B["b"][:, 0].abs().min() > 0


def test_a_prompt_is_mixed_by_the_cosine_of_attended_query_and_key() -> None:
    query = torch.tensor([[3.0, 4.0]])
    K = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    A = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    P = torch.tensor([[[1.0, 0.0]], [[0.0, 10.0]]])
    # q (.) A_1 = (3, 0), cosine with K_1: 1;  q (.) A_2 = (3, 4), with K_2: 4/5
    assert torch.allclose(prompt_of(query, P, K, A), torch.tensor([[[1.0, 8.0]]]))


def test_orthogonality_by_hand() -> None:
    # B B^T = [[1, 2], [2, 4]]; minus I: 0, 2, 2, 3; mean of squares 17 / 4
    assert orthogonality(torch.tensor([[[1.0], [0.0]], [[2.0], [0.0]]])).item() == 17 / 4


def test_new_components_are_of_length_one_and_orthogonal_to_all() -> None:
    generator = torch.Generator().manual_seed(0)
    old = torch.linalg.qr(torch.randn(8, 3, generator=generator))[0].T * 5
    new = gram_schmidt(old.view(3, 2, 4), 3, generator).flatten(1)
    assert torch.allclose(new @ old.T, torch.zeros(3, 3), atol=1e-5)
    assert torch.allclose(new @ new.T, torch.eye(3), atol=1e-5)


@pytest.mark.usefixtures("fp32")
@pytest.mark.parametrize("kind", ["vit", "clip"])
def test_a_prompt_stands_before_keys_and_values_of_its_block(kind: str) -> None:
    """Against one block's attention, written out with the prompt concatenated by hand."""
    backbone = make_backbone(kind)
    block = next(iter(backbone.layers)).rpartition(".")[0]
    module = backbone.tower.get_submodule(block)
    pixels = backbone.preprocessing.plain(list(coloured([0, 1], 2)[0]))
    generator = torch.Generator().manual_seed(0)
    P = torch.randn(3, 4, 16, generator=generator)
    K, A = (torch.randn(3, 16, generator=generator) for _ in range(2))
    said: dict[str, Tensor] = {}
    handle = module.register_forward_hook(
        lambda m, args, kwargs, out: said.update(
            x=args[0] if args else kwargs["hidden_states"], out=out[0]
        ),
        with_kwargs=True,
    )
    query = backbone.features(pixels)
    usual = prompted(backbone, {}, pixels)
    got = prompted(backbone, {block: {"P": P, "K": K, "A": A}}, pixels)
    handle.remove()
    assert torch.allclose(usual, query, atol=1e-6) and not torch.allclose(got, query, atol=1e-3)
    p_K, p_V = prompt_of(query, P, K, A).chunk(2, dim=1)
    x = said["x"]

    def heads(states: Tensor) -> Tensor:
        return states.view(len(x), -1, 2, 8).transpose(1, 2)

    q, k, v = heads(module.q_proj(x)), module.k_proj(x), module.v_proj(x)
    k, v = heads(torch.cat([p_K, k], dim=1)), heads(torch.cat([p_V, v], dim=1))
    mixed = torch.softmax(q @ k.transpose(2, 3) / 8**0.5, dim=3) @ v
    out = (module.o_proj if kind == "vit" else module.out_proj)(mixed.transpose(1, 2).flatten(2))
    assert torch.allclose(said["out"], out, atol=1e-5)
    assert torch.equal(backbone.features(pixels), query)


def test_the_first_memory_holds_less_than_the_share_and_turns_past_the_half() -> None:
    # singular values 6, 3, 2, 1: energies 36, 9, 4, 1 of 50, cumulated 0.72, 0.9, 0.98, 1
    C = moments_of(6, 3, 2, 1)
    few = first_memory(C, 0.85)
    assert not few.complement and few.basis.shape == (4, 1)
    assert torch.allclose(few.basis.abs()[:, 0], torch.eye(4, dtype=torch.float64)[0])
    many = first_memory(C, 0.99)
    assert many.complement and many.basis.shape == (4, 1)  # three are old, one is free
    assert torch.allclose(many.basis.abs()[:, 0], torch.eye(4, dtype=torch.float64)[3])
    assert first_memory(C, 0.1).basis.shape == (4, 1)  # at least one


def test_a_memory_grows_until_it_holds_the_share() -> None:
    eye = torch.eye(6, dtype=torch.float64)
    # energies 1, 4, 9, 16, 0, 0 of 30; the basis holds e_0; free: 16, then 9 are the largest
    C = moments_of(1, 2, 3, 4, 0, 0)
    assert Memory(eye[:, :1], False).grown(C, 0.03).basis.shape == (6, 1)
    one = Memory(eye[:, :1], False).grown(C, 0.5)  # (1 + 16) / 30 = 0.567
    assert one.basis.shape == (6, 2) and one.basis[3].abs().max() == pytest.approx(1)
    two = Memory(eye[:, :1], False).grown(C, 0.6)  # (1 + 16 + 9) / 30
    assert two.basis.shape == (6, 3) and not two.complement
    turned = Memory(eye[:, :1], False).grown(C, 0.9)  # e_1 too: four of six, so the complement
    assert turned.complement and turned.basis.shape == (6, 2)
    assert turned.basis[:4].abs().max() < 1e-12


def test_a_complement_gives_up_the_directions_that_a_task_uses() -> None:
    eye = torch.eye(6, dtype=torch.float64)
    C = moments_of(5, 5, 5, 3, 1, 0)  # of 85; free are e_3, e_4, e_5 with 9 + 1 + 0
    smaller = Memory(eye[:, 3:], True).grown(C, 0.95)  # 10/85 > 0.05: e_3 goes, 1/85 stays
    assert smaller.complement and smaller.basis.shape == (6, 2)
    assert smaller.basis[:4].abs().max() < 1e-12
    assert torch.equal(Memory(eye[:, 3:], True).grown(C, 0.8).basis, eye[:, 3:])


def test_inflora_designs_its_fixed_factor_off_the_memory() -> None:
    C = moments_of(6, 5, 4, 3)
    eye = torch.eye(4, dtype=torch.float64)
    rows = design(C, 2, None).abs() * math.sqrt(3)
    assert torch.allclose(rows, eye[:2].float(), atol=1e-6)
    rows = design(C, 2, Memory(eye[:, :1], False)).abs() * math.sqrt(3)
    assert torch.allclose(rows, eye[1:3].float(), atol=1e-6)
    rows = design(C, 2, Memory(eye[:, 3:], True)).abs() * math.sqrt(3)
    assert torch.allclose(rows[0], eye[3].float(), atol=1e-6) and not rows[1].any()


def test_inflora_trains_one_factor_and_does_not_touch_what_the_memory_holds() -> None:
    method = InfLoRA(InfLoRA.Config(rank=2, share=0.9, final_share=1.0, tasks=4))
    first = torch.diag(torch.tensor([9.0, 8.0, 0.1, 0.1, 0.1, 0.1]))
    second = torch.diag(torch.tensor([7.0, 3.0, 2.0, 1.0, 0.1, 0.1]))
    generator = torch.Generator().manual_seed(0)
    kept: list[Kept] = []
    for number, C in enumerate((first, second)):
        moments = dict.fromkeys(Q_AND_K, C)
        learner = method.start(Q_AND_K, kept, {}, generator, moments=moments)
        assert isinstance(learner, InfLoRALearner)
        assert learner.share == pytest.approx(0.9 + 0.1 * number / 4)
        trained = [p for p in learner.parameters() if p.requires_grad]
        assert [tuple(p.shape) for p in trained] == [(4, 2), (4, 2)]
        for p in trained:
            nn.init.normal_(p, generator=generator)
        with pytest.raises(ValueError, match="call absorb"):
            method.keep(learner)
        learner.absorb(moments)
        kept.append(Kept((str(number),), method.keep(learner)))
    assert "a.q_proj/old" in kept[0].tensors and "a.k_proj/old" not in kept[0].tensors
    old = kept[0].tensors["a.q_proj/old"]
    for layer in Q_AND_K:
        dW = kept[1].tensors[f"{layer}/A"] @ kept[1].tensors[f"{layer}/B"]
        assert (dW @ old).abs().max() < 1e-5 and dW.abs().max() > 0.1
