"""What acts in prompts never lands on the negative ones, whichever way a pipeline runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_pipelines import GUIDED, MAKERS, make_flux2
from torch import Tensor, nn

import perdure
from perdure.adapters import PromptDelta, Prompts
from perdure.hosts.diffusion.passes import named_passes, unnamed_passes
from perdure.methods.gated import gate_of

PROMPT = "a photo of a dog in the snow"
WHERE = [
    ("chroma", "single_transformer_blocks.0.attn.to_v", 2),
    ("lumina2", "layers.0.attn.to_v", 0),
    ("krea2", "transformer_blocks.0.attn.to_v", 13),
]
"""A layer that reads text and picture in one sequence, and how many positions of a prompt rest."""


@pytest.fixture(params=sorted(GUIDED))
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[perdure.Base]:
    yield perdure.Base.open(MAKERS[request.param](tmp_path / "base"), device="cpu")


def said(base: perdure.Base, deltas: list[PromptDelta], prompt: str = PROMPT) -> list[Tensor]:
    """What the denoiser says in the first step, each of a prompt and of its negative one."""
    heard: list[Tensor] = []

    def hear(module: Any, args: Any, output: Any) -> None:
        rows = output[0] if isinstance(output, tuple) else output.sample
        heard.extend(row.clone() for row in rows)

    def acting(prompts: Prompts) -> list[PromptDelta]:
        gate = torch.ones(prompts.states.shape[:2])
        return [PromptDelta(delta.factors, gate) for delta in deltas]

    handle = base.denoiser.register_forward_hook(hear)
    try:
        with base.session() as session:
            session.draw(
                [prompt], seeds=[3], said=acting, num_inference_steps=1, guidance_scale=3.0
            )
    finally:
        handle.remove()
    return heard[:2]


def test_a_delta_that_acts_in_prompts_leaves_the_negative_ones_to_the_bit(
    base: perdure.Base,
) -> None:
    generator = torch.Generator().manual_seed(0)
    factors = {
        name: (
            torch.randn(d_out, 2, generator=generator),
            torch.randn(2, d_in, generator=generator),
        )
        for name, (d_out, d_in) in base.shapes.items()
    }
    before = said(base, [])
    after = said(base, [PromptDelta(factors, torch.ones(1, 1))])
    other = said(base, [], "two cats at night")  # what it leaves as it was is the negative one's

    def same_as_before(now: list[Tensor]) -> list[bool]:
        return [torch.equal(one, two) for one, two in zip(before, now, strict=True)]

    assert sorted(same_as_before(other)) == [False, True]
    assert same_as_before(after) == same_as_before(other)


def test_the_name_of_a_pass_is_forgotten_after_it(tmp_path: Path) -> None:
    denoiser = perdure.Base.open(make_flux2(tmp_path / "base"), device="cpu").denoiser
    with named_passes(denoiser) as rows:
        with denoiser.cache_context("uncond"):  # type: ignore[operator]
            assert rows(4) == slice(0, 0)
        assert rows(4) == slice(0, 4)
    assert "cache_context" not in vars(denoiser)


def test_passes_without_names_are_told_apart_by_the_states_that_they_are_given() -> None:
    class Denoiser(nn.Module):
        def forward(self, encoder_hidden_states: Tensor) -> slice:
            return rows(len(encoder_hidden_states))

    denoiser, own, against = Denoiser(), torch.zeros(4, 1), torch.zeros(4, 1)
    with unnamed_passes(denoiser) as rows:
        given = [denoiser(encoder_hidden_states=one) for one in (own, against, own, own, against)]
    all_of, none = slice(0, 4), slice(0, 0)
    assert given == [all_of, none, all_of, all_of, none]
    assert not denoiser._forward_pre_hooks


@pytest.mark.parametrize(("family", "layer", "resting"), WHERE, ids=[case[0] for case in WHERE])
@torch.no_grad()
def test_in_a_batch_of_unequal_prompts_a_delta_acts_at_a_concept_and_what_rests_and_nowhere_else(
    family: str, layer: str, resting: int, tmp_path: Path
) -> None:
    base = perdure.Base.open(MAKERS[family](tmp_path / "base"), device="cpu")
    prompts, module = ["<ada>", f"{PROMPT} next to a person"], base.layers[layer].module
    generator = torch.Generator().manual_seed(0)
    d_out, d_in = base.shapes[layer]
    factors = {layer: (torch.ones(d_out, 1), torch.randn(1, d_in, generator=generator))}
    token = base.tokens.token("state", base.tokens.random("state", generator), 1.0)
    asked: list[Prompts] = []

    def acting(prompts: Prompts) -> list[PromptDelta]:
        asked.append(prompts)
        return [PromptDelta(factors, gate_of(prompts, [("ada",)], "mean")[0])]

    def outputs(said: Callable[[Prompts], list[PromptDelta]]) -> list[Tensor]:
        """Of the layer, with what acts on it, in each pass."""
        heard: list[Tensor] = []
        hearing: list[Any] = []

        def listen(*_: Any) -> None:  # last, and so only when all else is there
            if not hearing:
                hear = lambda module, args, output: heard.append(output)  # noqa: E731
                hearing.append(module.register_forward_hook(hear))

        hearing_soon = base.denoiser.register_forward_pre_hook(listen)
        session.draw(prompts, seeds=[3, 4], said=said, num_inference_steps=1, guidance_scale=3.0)
        for handle in (hearing_soon, *hearing):
            handle.remove()
        return heard

    with base.session(tokens={"ada": token}) as session:
        pairs = zip(outputs(acting), outputs(lambda prompts: []), strict=True)
        changed, changed_negative = ((one != other).any(dim=-1) for one, other in pairs)
    ((_, place),), end = asked[0].spoken[0], asked[0].ends[0]
    assert changed[0].nonzero().flatten().tolist() == [place, *range(end, end + resting)]
    assert not changed[1].any() and not changed_negative.any()
