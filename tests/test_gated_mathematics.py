"""Gated: where an adapter acts, by hand; forgetting and drift are zero by construction."""

import itertools

import pytest
import torch
from host_parts import added, every_row

from perdure.adapters import Prompts
from perdure.hosts.frozen import Layer, adding
from perdure.methods import Kept, build
from perdure.methods.gated import gate_of

A = torch.tensor([[1.0], [2.0]])
B = torch.tensor([[3.0, -1.0, 0.5]])


def prompts_of(*spoken: tuple[tuple[str, int], ...], ends: tuple[int, ...]) -> Prompts:
    states = torch.randn(len(spoken), 7, 3, generator=torch.Generator().manual_seed(5))
    return Prompts(states=states, spoken=spoken, ends=ends)


def task(*names: str, scale: float = 1.0) -> Kept:
    return Kept(names, {"keys/A": A * scale, "keys/B": B})


def test_a_gate_is_open_at_its_token_alone_and_shares_the_end() -> None:
    prompts = prompts_of((("rex", 1), ("ada", 3)), ends=(5,))
    rex, ada = gate_of(prompts, [("rex",), ("ada",)], "mean")[:, 0].tolist()
    assert rex == [0, 1, 0, 0, 0, 0.5, 0.5]
    assert ada == [0, 0, 0, 1, 0, 0.5, 0.5]


@pytest.mark.parametrize(("ends", "share"), [("mean", 0.5), ("sum", 1.0), ("none", 0.0)])
def test_the_end_is_shared_as_asked(ends: str, share: float) -> None:
    prompts = prompts_of((("rex", 1), ("ada", 3)), ends=(5,))
    gate = gate_of(prompts, [("rex",), ("ada",)], ends)  # type: ignore[arg-type]
    assert gate[:, 0, 5:].unique().tolist() == [share]


def test_a_concept_said_twice_counts_once_and_one_that_no_task_knows_not_at_all() -> None:
    prompts = prompts_of((("rex", 0), ("max", 2), ("rex", 4)), ends=(6,))
    assert gate_of(prompts, [("rex",)], "mean")[0, 0].tolist() == [1, 0, 0, 0, 1, 0, 1]


def test_two_concepts_of_one_task_share_its_gate() -> None:
    prompts = prompts_of((("rex", 1), ("ada", 3)), ends=(5,))
    assert gate_of(prompts, [("rex", "ada")], "mean")[0, 0].tolist() == [0, 1, 0, 1, 0, 1, 1]


def test_what_is_added_is_the_gated_sum_by_hand() -> None:
    prompts = prompts_of((("rex", 1), ("ada", 3)), (), ends=(5, 2))
    kept = [task("rex"), task("ada", scale=-2.0)]
    more = added(build("gated"), kept, prompts)["keys"]
    x = prompts.states
    for place, gates in enumerate([(0, 0), (1, 0), (0, 0), (0, 1), (0, 0), (0.5, 0.5), (0.5, 0.5)]):
        inner = float((B[0] * x[0, place]).sum())
        weight = gates[0] - 2 * gates[1]
        assert more[0, place].tolist() == pytest.approx([weight * inner, 2 * weight * inner])
    assert not more[1].any()  # the second prompt speaks of nothing


def test_a_prompt_without_a_concept_is_untouched_to_the_bit_and_order_does_not_matter() -> None:
    kept = [task("rex"), task("ada", scale=0.3), task("bo", scale=-1.0)]
    prompts = prompts_of((("ada", 2),), (), ends=(5, 5))
    layer = torch.nn.Linear(3, 2)
    plain = layer(prompts.states)
    seen = []
    for order in itertools.permutations(kept):
        with adding({"keys": Layer(layer)}, added(build("gated"), order, prompts), every_row):
            seen.append(layer(prompts.states))
    assert all(torch.equal(one, seen[0]) for one in seen)
    assert torch.equal(seen[0][1], plain[1])
    assert not torch.equal(seen[0][0], plain[0])


def test_the_empty_prompts_of_guidance_get_nothing() -> None:
    layer = torch.nn.Linear(3, 2)
    prompts = prompts_of((("rex", 1),), ends=(4,))
    empty = torch.randn(1, 7, 3)
    more = added(build("gated"), [task("rex")], prompts)
    with adding({"keys": Layer(layer)}, more, lambda rows: slice(rows - 1, rows)):
        both = layer(torch.cat([empty, prompts.states]))
    assert torch.equal(both[0], layer(empty)[0])
    assert not torch.equal(both[1], layer(prompts.states)[0])


def test_another_concept_learned_later_changes_nothing_for_this_one() -> None:
    prompts = prompts_of((("rex", 1),), ends=(4,))
    method = build("gated")
    alone = added(method, [task("rex")], prompts)["keys"]
    later = added(method, [task("rex"), task("ada", scale=9.0)], prompts)["keys"]
    assert torch.equal(alone, later)


def test_an_unknown_way_with_the_end_is_refused() -> None:
    with pytest.raises(ValueError, match="ends is 'max', but must be 'mean', 'sum' or 'none'"):
        build("gated", ends="max")
