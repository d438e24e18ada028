"""One matrix that every method must pass; a method's own mathematics has its own file."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest
import torch
from host_parts import added, every_row, layers_of
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from perdure.adapters import Prompts
from perdure.hosts.frozen import adding, attached, fold_into
from perdure.methods import METHODS, Kept, Learner, Method, build
from perdure.methods.cidm import SCALE
from perdure.methods.protocol import SHARED, Moments

SHAPES = {"down.0.attn2.to_k": (6, 5), "keys": (4, 5)}  # a dot, and a name that dicts have
SMALL: dict[str, Any] = {
    "rank": 2,
    "penalty": 10.0,
    "mask_rank": 2,
    "hidden": 4,
    "replay": 2,
    "shared": 2,
    "gamma1": 1e-3,
    "gamma2": 1e-3,
    "width": 8,
    "heads": 2,
}


def with_option(option: str) -> list[str]:
    """Methods that have the option."""
    return [n for n in sorted(METHODS) if option in {f.name for f in fields(METHODS[n].Config)}]


SEQUENTIAL = ["custom-diffusion", "dreambooth", "ewc", "generative-replay", "lora"]
INDEPENDENT = [name for name in sorted(METHODS) if METHODS[name].independent]
BY_PROMPT = [name for name in sorted(METHODS) if METHODS[name].mixes_by == "prompt"]
SHARE = {"cidm": SCALE}
"""Of a single task in what is drawn, where that is not all of it."""
CARRIES_THE_PAST = {"cidm"}  # its page says what a step carries of every task, and why it must

every_method = pytest.mark.parametrize("name", sorted(METHODS))
continual_methods = pytest.mark.parametrize(
    "name", [name for name in sorted(METHODS) if not METHODS[name].all_at_once]
)
low_rank_methods = pytest.mark.parametrize("name", with_option("rank"))
weight_methods = pytest.mark.parametrize("name", sorted(set(METHODS) - {"textual-inversion"}))
sequential_methods = pytest.mark.parametrize("name", SEQUENTIAL)
independent_methods = pytest.mark.parametrize("name", INDEPENDENT)
methods_that_mix_by_prompt = pytest.mark.parametrize("name", BY_PROMPT)


def small(name: str) -> Method:
    """The method with small numbers for the options it has."""
    options = {field.name for field in fields(METHODS[name].Config)}
    return build(name, **{key: value for key, value in SMALL.items() if key in options})


class Toy:
    """Two linear layers that read the token row: what a frozen base is to a method."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.layers = {name: nn.Linear(d_in, d_out) for name, (d_out, d_in) in SHAPES.items()}
        for layer in self.layers.values():
            layer.requires_grad_(False)
        self.pristine = {n: layer.weight.detach().clone() for n, layer in self.layers.items()}

    def fold(self, dense: Mapping[str, Tensor]) -> None:
        fold_into(layers_of(self.layers), self.pristine, dense)

    def __call__(self, row: Tensor) -> Tensor:
        return torch.cat([layer(row) for layer in self.layers.values()], dim=-1)


def prompts_of(*spoken: tuple[str, Tensor]) -> Prompts:
    """For each concept a prompt of three positions: its token, the end, the padding."""
    states = torch.stack([row.expand(3, -1) for _, row in spoken])
    said = tuple(((name, 0),) for name, _ in spoken)
    return Prompts(states=states, spoken=said, ends=(1,) * len(spoken))


def own_prompts(learner: Learner) -> Prompts:
    """A prompt for each of the learner's concepts, by its present row."""
    return prompts_of(*((name, row.detach()) for name, row in learner.tokens().items()))


def mixed_as_trained(method: Method, kept: Sequence[Kept], prompts: Prompts) -> dict[str, Tensor]:
    """The mixture for the first prompt's states and all concepts, without a method's own share."""
    spoken = [name for said in prompts.spoken for name, _ in said]
    mixed = method.mix(kept, spoken, prompts.states[0])
    return {layer: dW / SHARE.get(method.name, 1) for layer, dW in mixed.items()}


def painted(toy: Toy, method: Method, kept: Sequence[Kept], concept: str, row: Tensor) -> Tensor:
    """What the layers say to a prompt of the concept, drawn from what is kept."""
    prompts = prompts_of((concept, row))
    toy.fold(mixed_as_trained(method, kept, prompts))
    more = added(method, kept, prompts)
    with adding(layers_of(toy.layers), more, every_row), torch.no_grad():
        return toy(prompts.states)[0, 0]


def moments_for(method: Method) -> Moments | None:
    """C of forty features, for a method that needs it."""
    c = torch.randn(40, 5, generator=torch.Generator().manual_seed(11))
    return dict.fromkeys(SHAPES, c.T @ c / 400) if method.needs_moments else None


def start(method: Method, past: Sequence[Kept], *concepts: str, seed: int = 0) -> Learner:
    generator = torch.Generator().manual_seed(seed)
    rows = {concept: torch.randn(5, generator=generator) for concept in concepts}
    return method.start(SHAPES, past, rows, generator, moments=moments_for(method))


def mix(method: Method, kept: Sequence[Kept], spoken: Sequence[str]) -> dict[str, Tensor]:
    """The mixture for a prompt that speaks of these concepts."""
    if method.mixes_by != "prompt":
        return method.mix(kept, spoken)
    words = sorted(set(spoken)) or [""]
    seeds = [int.from_bytes(concept.encode()[:4], "big") for concept in words]
    states = [torch.randn(5, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return method.mix(kept, spoken, torch.stack(states))


def loss_of(toy: Toy, learner: Learner) -> Tensor:
    """The distance of what is drawn from what is wanted, which the concept's name decides."""
    total = learner.penalty()
    for concept, row in learner.tokens().items():
        seed = int.from_bytes(concept.encode()[:4], "big")
        wanted = torch.randn(10, generator=torch.Generator().manual_seed(seed))
        prompts = prompts_of((concept, row))
        learner.read(prompts)
        total = total + (toy(prompts.states) - wanted).square().mean()
    return total


def learn(
    method: Method, past: Sequence[Kept], *concepts: str, steps: int = 30
) -> tuple[Toy, Learner, Kept, list[float]]:
    toy, learner = Toy(), start(method, past, *concepts, seed=len(past))
    toy.fold(method.past(past))
    optimizer = torch.optim.AdamW(learner.parameters(), lr=0.02)
    losses = []
    with attached(layers_of(toy.layers), learner.layer_deltas()):
        for step in range(steps):
            learner.begin_step(torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            loss = loss_of(toy, learner)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        learner.eval()
        learner.see(own_prompts(learner))
        learner.look_back(loss_of(toy, learner) for _ in range(2))
    return toy, learner, Kept(concepts, method.keep(learner)), losses


def learn_all(method: Method, *concepts: str) -> list[Kept]:
    """One task a concept, or one for all where the method learns all at once."""
    if method.all_at_once:
        return [learn(method, [], *concepts)[2]]
    kept: list[Kept] = []
    for concept in concepts:
        kept.append(learn(method, kept, concept)[2])
    return kept


def digest(kept: Sequence[Kept]) -> str:
    sha = hashlib.sha256()
    for task in kept:
        for key, tensor in sorted(task.tensors.items()):
            sha.update(key.encode() + tensor.numpy().tobytes())
    return sha.hexdigest()


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@continual_methods
def test_two_tasks_are_learned(name: str) -> None:
    method = small(name)
    kept: list[Kept] = []
    for concept in ("rex", "ada"):
        _, learner, task, losses = learn(method, kept, concept)
        assert losses[-1] < 0.9 * losses[0]
        assert learner.concepts == (concept,)
        kept.append(task)


@continual_methods
def test_the_past_is_unchanged_by_what_is_learned_later(name: str) -> None:
    method = small(name)
    kept = learn_all(method, "rex", "ada")
    before = digest(kept)
    learn(method, kept, "bo")
    mix(method, kept, ["rex"])
    assert digest(kept) == before


@every_method
def test_what_is_kept_is_a_copy_on_the_cpu_and_cannot_be_replaced(name: str) -> None:
    method = small(name)
    _, learner, task, _ = learn(method, [], "rex")
    before = digest([task])
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(1.0)
    assert digest([task]) == before
    assert not any(tensor.requires_grad for tensor in task.tensors.values())
    with pytest.raises(TypeError):
        task.tensors["keys/A"] = torch.zeros(1)  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        task.concepts = ()  # type: ignore[misc]


@every_method
def test_what_is_kept_belongs_to_the_target_layers(name: str) -> None:
    kept = learn_all(small(name), "rex")
    assert set(kept[0].factors()) <= {*SHAPES, SHARED}
    assert all(tensor.device.type == "cpu" for tensor in kept[0].tensors.values())


@methods_that_mix_by_prompt
def test_a_prompt_is_drawn_with_a_weighted_sum_of_what_the_tasks_trained(name: str) -> None:
    method = small(name)
    kept = learn_all(method, "rex", "ada", "bo")
    alone = [{k: f["A"] @ f["B"] for k, f in task.factors().items()} for task in kept]
    columns = torch.stack([torch.cat([one[k].flatten() for k in SHAPES]) for one in alone], dim=1)
    mixed = mix(method, kept, ["rex", "bo"])
    wanted = torch.cat([mixed[k].flatten() for k in SHAPES])
    w = torch.linalg.lstsq(columns, wanted[:, None]).solution
    assert torch.allclose(columns @ w, wanted[:, None], atol=1e-5)
    assert (w >= 0).all()
    with pytest.raises(ValueError, match="states"):
        method.mix(kept, ["rex"])


@methods_that_mix_by_prompt
def test_the_order_of_the_tasks_does_not_change_what_a_prompt_is_drawn_with(name: str) -> None:
    method = small(name)
    kept = learn_all(method, "rex", "ada", "bo")
    one = mix(method, kept, ["rex", "bo"])
    for order in ((2, 0, 1), (1, 2, 0), (2, 1, 0)):
        other = mix(method, [kept[index] for index in order], ["bo", "rex"][::-1])
        assert all(torch.allclose(one[k], other[k], atol=1e-6) for k in SHAPES)


@every_method
def test_drawing_the_new_concept_from_the_bank_equals_the_model_that_was_trained(name: str) -> None:
    method = small(name)
    # A mean of three is none of the three, nor is a weighted sum.
    alone = method.all_at_once or name in {"lora-merged", *BY_PROMPT}
    kept = [] if alone else learn_all(method, "rex", "ada")
    toy, learner, task, _ = learn(method, kept, "bo")
    row = learner.tokens()["bo"].detach()
    prompts = prompts_of(("bo", row))
    learner.read(prompts)
    with attached(layers_of(toy.layers), learner.layer_deltas()), torch.no_grad():
        trained = toy(prompts.states)[0, 0]
    drawn = painted(toy, method, [*kept, task], "bo", row)
    assert float((drawn - trained).norm() / trained.norm()) < 1e-6


@every_method
def test_a_bank_read_back_from_safetensors_draws_the_same_to_the_bit(
    name: str, tmp_path: Path
) -> None:
    method = small(name)
    kept = learn_all(method, "rex", "ada")
    read = []
    for task in kept:
        path = tmp_path / f"{task.concepts[0]}.safetensors"
        save_file({"token/x": torch.ones(1), **task.tensors}, path)
        tensors = {key: t for key, t in load_file(path).items() if key != "token/x"}
        read.append(Kept(task.concepts, tensors))
    for spoken in ([], ["rex"], ["rex", "ada"]):
        assert same(mix(method, kept, spoken), mix(method, read, spoken))
    assert same(method.past(kept), method.past(read))


@every_method
def test_only_a_method_that_does_not_mix_by_the_bank_looks_at_what_is_spoken(name: str) -> None:
    method = small(name)
    kept = learn_all(method, "rex", "ada", "bo")
    all_the_same = same(mix(method, kept, ["rex"]), mix(method, kept, ["ada"]))
    assert all_the_same is (method.mixes_by == "bank")


@every_method
def test_only_a_method_that_acts_in_prompts_adds_something(name: str) -> None:
    method = small(name)
    kept = learn_all(method, "rex", "ada")
    prompts = prompts_of(("rex", torch.randn(5)), ("ada", torch.randn(5)))
    more = added(method, kept, prompts)
    assert bool(more) is method.acts_in_prompts
    assert all(dW.shape == (2, 3, SHAPES[layer][0]) for layer, dW in more.items())


@every_method
def test_dense_deltas_are_fp32_and_have_the_layers_shapes(name: str) -> None:
    method = small(name)
    kept = learn_all(method, "rex", "ada")
    for deltas in (method.past(kept), mix(method, kept, ["rex", "ada"])):
        for layer, dW in deltas.items():
            assert (dW.dtype, tuple(dW.shape)) == (torch.float32, SHAPES[layer])
            assert not dW.requires_grad


@continual_methods
def test_an_independent_method_learns_the_same_whatever_was_learned_before(name: str) -> None:
    method = small(name)
    kept = learn_all(method, "rex", "ada")
    one, other = (start(method, past, "bo", seed=7) for past in ([], kept))
    alone = same(one.state_dict(), other.state_dict()) and not method.past(kept)
    if method.independent:
        assert alone
        one.see(own_prompts(one))
        other.see(own_prompts(other))
        assert same(method.keep(one), method.keep(other))
    else:
        assert not alone


@every_method
def test_the_same_seed_starts_and_learns_the_same_to_the_bit(name: str) -> None:
    method = small(name)
    torch.manual_seed(1)
    one = start(method, [], "rex", seed=7)
    torch.manual_seed(2)
    two = start(method, [], "rex", seed=7)
    assert same(one.state_dict(), two.state_dict())
    assert not same(one.state_dict(), start(method, [], "rex", seed=8).state_dict())
    assert digest(learn_all(method, "rex", "ada")) == digest(learn_all(method, "rex", "ada"))


@every_method
def test_every_parameter_is_in_exactly_one_learning_rate_group(name: str) -> None:
    learner = start(small(name), [], "rex", "ada")
    groups = learner.groups()
    assert set(groups) == {"deltas", "tokens"}
    listed = [id(parameter) for group in groups.values() for parameter in group]
    assert sorted(listed) == sorted(id(parameter) for parameter in learner.parameters())
    assert list(learner.tokens()) == ["rex", "ada"]
    assert len(groups["tokens"]) >= 1


@every_method
def test_tokens_start_at_the_rows_given_and_training_leaves_those_alone(name: str) -> None:
    row = torch.randn(5)
    given = row.clone()
    method = small(name)
    learner = method.start(SHAPES, [], {"rex": row}, torch.Generator(), moments=moments_for(method))
    assert learner.tokens()["rex"].requires_grad
    assert torch.equal(learner.tokens()["rex"], given)
    with torch.no_grad():
        learner.groups()["tokens"][0].add_(1.0)
    assert torch.equal(row, given)


@continual_methods
def test_the_penalty_is_an_fp32_number_and_the_norm_is_that_of_the_dense_deltas(name: str) -> None:
    method = small(name)
    _, learner, _, _ = learn(method, learn_all(method, "rex"), "ada")
    assert learner.penalty().shape == () and learner.penalty().dtype == torch.float32
    dense = [delta.dense().detach().flatten() for delta in learner.layer_deltas().values()]
    expected = float(torch.cat(dense).norm()) if dense else 0.0
    assert learner.norm() == pytest.approx(expected, rel=1e-6)


@continual_methods
def test_a_training_step_holds_as_much_after_two_tasks_as_after_twenty(name: str) -> None:
    method = small(name)
    _, _, task, _ = learn(method, [], "rex", steps=2)

    def held(tasks: int) -> list[list[tuple[int, ...]]]:
        """Shapes of what a step saves for its backward pass, trains, and carries along."""
        toy, learner = Toy(), start(method, [task] * tasks, "ada")
        toy.fold(method.past([task] * tasks))
        saved: list[tuple[int, ...]] = []

        def pack(tensor: Tensor) -> Tensor:
            saved.append(tuple(tensor.shape))
            return tensor

        with (
            attached(layers_of(toy.layers), learner.layer_deltas()),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        ):
            loss_of(toy, learner).backward()
        carried = [tuple(tensor.shape) for tensor in learner.buffers()]
        return [saved, [tuple(p.shape) for p in learner.parameters()], carried]

    two, twenty = held(2), held(20)
    if name in CARRIES_THE_PAST:
        assert two.pop() != twenty.pop()
    assert two == twenty
    assert two[0]


@continual_methods
def test_taking_out_the_last_task_gives_the_bank_before_it(name: str) -> None:
    method = small(name)
    kept = learn_all(method, "rex", "ada")
    before = mix(method, kept, ["rex"])
    kept.append(learn(method, kept, "bo")[2])
    method.check_removable(kept, "bo")
    assert same(mix(method, kept[:-1], ["rex"]), before)


@every_method
def test_a_concept_that_is_not_there_cannot_be_removed(name: str) -> None:
    method = small(name)
    kept = learn_all(method, "rex")
    with pytest.raises(ValueError, match="no concept <max>: there are <rex>"):
        method.check_removable(kept, "max")
    with pytest.raises(ValueError, match="none yet"):
        method.check_removable([], "max")


@every_method
def test_a_configuration_survives_json(name: str) -> None:
    method = small(name)
    described = json.loads(json.dumps(method.describe()))
    again = build(described["method"], **described["config"])
    assert type(again) is type(method)
    assert again.config == method.config
    assert again.config.to_json() == described["config"]


@every_method
def test_a_method_says_what_it_is_and_its_configuration_is_frozen_and_keyword_only(
    name: str,
) -> None:
    method = METHODS[name]
    assert method.name == name
    assert method.title and method.paper
    assert method.Config.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert all(field.kw_only for field in fields(method.Config))


@every_method
def test_an_unknown_option_is_refused_with_the_options_there_are(name: str) -> None:
    options = [field.name for field in fields(METHODS[name].Config)]
    with pytest.raises(ValueError, match="no option 'rnak'") as refused:
        build(name, rnak=3)
    assert all(option in str(refused.value) for option in options or ["none"])


def test_an_unknown_method_is_refused_with_the_methods_there_are() -> None:
    with pytest.raises(ValueError, match="no method 'dora'") as refused:
        build("dora")
    assert all(name in str(refused.value) for name in METHODS)


@low_rank_methods
@pytest.mark.parametrize("rank", [0, -1, 1.5, "16", True, None])
def test_a_rank_that_is_no_whole_number_above_zero_is_refused(name: str, rank: object) -> None:
    with pytest.raises(ValueError, match=f"{name}: rank is {rank!r}"):
        build(name, rank=rank)


@pytest.mark.parametrize("name", with_option("penalty"))
@pytest.mark.parametrize("penalty", [-1.0, float("nan"), float("inf"), "1e8", True, None])
def test_a_penalty_that_is_no_finite_number_from_zero_is_refused(
    name: str, penalty: object
) -> None:
    with pytest.raises(ValueError, match=f"{name}: penalty is"):
        build(name, penalty=penalty)


@pytest.mark.parametrize("replay", [0, 2.5, "8", True, None])
def test_a_number_of_replayed_pictures_that_is_no_whole_number_above_zero_is_refused(
    replay: object,
) -> None:
    with pytest.raises(ValueError, match="generative-replay: replay is"):
        build("generative-replay", replay=replay)


@weight_methods
def test_methods_that_train_weights_refuse_to_start_without_layers(name: str) -> None:
    method = build(name)
    with pytest.raises(ValueError, match="no target layer"):
        method.start({}, [], {"rex": torch.ones(5)}, torch.Generator(), moments=moments_for(method))


@pytest.mark.parametrize("name", ["c-lora", "feature-space", "stamina"])
def test_a_method_that_sums_starts_every_task_at_the_model_before_it(name: str) -> None:
    method = small(name)
    kept = learn_all(method, "rex")
    assert start(method, kept, "ada").norm() == 0.0
    assert same(method.past(kept), method.mix(kept, []))


def test_sequential_lora_continues_the_last_adapter_and_mixes_it_alone() -> None:
    method = small("lora")
    kept = learn_all(method, "rex", "ada")
    learner = start(method, kept, "bo", seed=99)
    assert same(method.keep(learner), kept[-1].tensors)
    assert method.past(kept) == {}
    last = kept[-1].factors()["keys"]
    assert torch.equal(method.mix(kept, ["rex"])["keys"], last["A"] @ last["B"])
    assert not torch.equal(kept[0].tensors["keys/A"], kept[1].tensors["keys/A"])


def test_sequential_lora_refuses_an_adapter_of_another_rank() -> None:
    kept = learn_all(small("lora"), "rex")
    with pytest.raises(ValueError, match=r"\(6, 2\).*\(6, 3\)"):
        start(build("lora", rank=3), kept, "ada")


@sequential_methods
def test_a_sequential_method_goes_on_from_the_last_task_and_mixes_it_alone(name: str) -> None:
    method = small(name)
    kept = learn_all(method, "rex", "ada")
    learner = start(method, kept, "bo", seed=99)
    assert method.past(kept) == {}
    for layer, delta in learner.layer_deltas().items():
        assert torch.equal(delta.dense(), method.mix(kept, ["rex"])[layer])
    assert same(method.mix(kept, ["rex"]), method.mix(kept[1:], ["ada"]))
    assert not same(method.mix(kept, []), method.mix(kept[:1], []))
    assert learner.penalty().item() == 0.0


@sequential_methods
def test_a_sequential_method_refuses_the_deltas_of_other_layers(name: str) -> None:
    kept = learn_all(small(name), "rex")
    with pytest.raises(ValueError, match="layer 'keys' that is no target"):
        shapes = {"down.0.attn2.to_k": (6, 5)}
        small(name).start(shapes, kept, {}, torch.Generator())
    with pytest.raises(ValueError, match="continue with the same layers"):
        shapes = {"down.0.attn2.to_k": (6, 5), "keys": (4, 6)}
        small(name).start(shapes, kept, {}, torch.Generator())


@sequential_methods
def test_a_sequential_method_lets_only_the_last_task_go(name: str) -> None:
    method = small(name)
    kept = learn_all(method, "rex", "ada")
    method.check_removable(kept, "ada")
    with pytest.raises(ValueError, match="<rex> cannot be removed.*only the last task.*<ada>"):
        method.check_removable(kept, "rex")


@independent_methods
def test_an_independent_method_learns_in_any_order_and_lets_any_task_go(name: str) -> None:
    method = small(name)
    kept = learn_all(method, "rex", "ada")
    assert method.past(kept) == {}
    _, _, second, _ = learn(method, kept, "bo")
    _, _, again, _ = learn(method, [kept[1], kept[0]], "bo")
    assert same(second.tensors, again.tensors)
    for concept in ("rex", "ada"):
        method.check_removable(kept, concept)


@every_method
def test_a_prompt_of_several_concepts_is_drawn_whatever_their_order(name: str) -> None:
    method = small(name)
    kept = learn_all(method, "rex", "ada", "bo")
    both = mix(method, kept, ["rex", "bo"])
    assert same(both, mix(method, kept, ["bo", "rex"]))
    assert same(both, mix(method, kept, ["bo", "rex", "bo"]))
    for dW in both.values():
        assert torch.isfinite(dW).all()


@every_method
def test_a_task_of_two_concepts_draws_both_as_it_was_trained(name: str) -> None:
    method = small(name)
    toy, learner, task, _ = learn(method, [], "rex", "ada")
    prompts = own_prompts(learner)
    learner.read(prompts)
    with attached(layers_of(toy.layers), learner.layer_deltas()), torch.no_grad():
        trained = toy(prompts.states)
    toy.fold(mixed_as_trained(method, [task], prompts))
    more = added(method, [task], prompts)
    with adding(layers_of(toy.layers), more, every_row), torch.no_grad():
        drawn = toy(prompts.states)
    assert float((drawn - trained).norm() / trained.norm()) < 1e-6


def test_independent_lora_adds_the_spoken_concepts_alone_and_each_task_once() -> None:
    method = small("lora-independent")
    kept = learn_all(method, "rex", "ada")
    kept.append(learn(method, kept, "bo", "cy")[2])
    alone = [{k: f["A"] @ f["B"] for k, f in task.factors().items()} for task in kept]
    assert method.past(kept) == {}
    assert method.mix(kept, []) == {}
    assert same(method.mix(kept, ["ada"]), alone[1])
    assert same(method.mix(kept, ["bo", "cy", "bo"]), alone[2])
    both = method.mix(kept, ["ada", "rex"])
    assert all(torch.allclose(both[k], alone[0][k] + alone[1][k], rtol=1e-5) for k in SHAPES)
    with pytest.raises(ValueError, match="no concept <max>"):
        method.mix(kept, ["max"])


def test_textual_inversion_trains_tokens_alone() -> None:
    method = build("textual-inversion")
    _, learner, task, _ = learn(method, [], "rex")
    assert learner.layer_deltas() == {}
    assert learner.groups()["deltas"] == []
    assert dict(task.tensors) == {} and method.mix([task], ["rex"]) == {}
    with pytest.raises(ValueError, match="this task has no token"):
        method.start(SHAPES, [], {}, torch.Generator())


@weight_methods
def test_one_of_two_concepts_of_a_task_cannot_be_removed_alone(name: str) -> None:
    method = small(name)
    kept = [learn(method, [], "rex", "ada")[2]]
    with pytest.raises(ValueError, match="<rex> cannot be removed alone.*<ada>"):
        method.check_removable(kept, "rex")


def test_textual_inversion_lets_any_concept_go() -> None:
    method = build("textual-inversion")
    kept = [learn(method, [], "rex", "ada")[2], learn(method, [], "bo")[2]]
    for concept in ("rex", "ada", "bo"):
        method.check_removable(kept, concept)


def test_a_kept_tensor_without_a_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="<layer>/<factor>"):
        Kept(("rex",), {"A": torch.zeros(1)}).factors()


def test_a_learner_resumes_from_its_state_to_the_bit() -> None:
    method = small("c-lora")
    kept = learn_all(method, "rex")
    _, learner, _, _ = learn(method, kept, "ada")
    again = start(method, kept, "ada", seed=50)
    again.load_state_dict(learner.state_dict())
    assert again.penalty().item() == learner.penalty().item() > 0
    assert same(method.keep(again), method.keep(learner))
