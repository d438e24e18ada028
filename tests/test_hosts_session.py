"""A session: one at a time on a base, and afterwards the base is what it was, to the bit."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillWaiting
from pathlib import Path
from typing import Any

import pytest
import torch
from host_parts import words
from torch import Tensor

from perdure.adapters import LowRank, Token
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.hosts.diffusion.regional import Place
from perdure.hosts.diffusion.session import Session

NAMES = ("ada", "bo")
STOCK = "a photo of a cat"


@pytest.fixture(scope="module")
def base(tiny: Path) -> Base:
    torch.set_num_threads(1)
    return Base.open(tiny, device="cpu")


@pytest.fixture(autouse=True)
def in_fp32(fp32: None) -> Iterator[None]:
    """Stock pictures are compared to the bit."""
    yield


def token(base: Base, name: str, kind: str = "word") -> dict[str, Token]:
    generator = torch.Generator().manual_seed(NAMES.index(name))
    rows = base.tokens.random("word", generator) * 20
    return words({name: rows}) if kind == "word" else {name: Token({"state": rows})}


def deltas(base: Base, name: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(10 + NAMES.index(name))
    return {
        layer: 0.3 * torch.randn(shape, generator=generator) for layer, shape in base.shapes.items()
    }


def pictures(session: Session, prompt: str) -> list[bytes]:
    drawn = session.draw([prompt] * 2, seeds=[0, 1], num_inference_steps=2, guidance_scale=3.0)
    return [picture.tobytes() for picture in drawn]


def concept(base: Base, name: str) -> list[bytes]:
    with base.session(tokens=token(base, name), deltas=deltas(base, name)) as session:
        return pictures(session, f"a photo of <{name}>")


def stock(base: Base) -> list[bytes]:
    """By the pipeline's own call, without any session."""
    out = base.pipeline(
        [STOCK] * 2,
        generator=[torch.Generator().manual_seed(seed) for seed in (0, 1)],
        num_inference_steps=2,
        guidance_scale=3.0,
    ).images
    return [picture.tobytes() for picture in out]


def state_of(base: Base) -> dict[str, Any]:
    """All that a session could leave behind: weights, tables, tokenizers, processors, hooks."""
    pipeline, state = base.pipeline, dict[str, Any]()
    for part in ("unet", "text_encoder", "vae"):
        module = getattr(pipeline, part)
        state[f"{part} weights"] = {k: v.clone() for k, v in module.state_dict().items()}
        state[f"{part} hooks"] = {
            name: (len(of._forward_hooks), len(of._forward_pre_hooks))
            for name, of in module.named_modules()
        }
        state[f"{part} config"] = dict(module.config.to_dict() if part == "text_encoder" else {})
        state[f"{part} training"] = module.training
    state["processors"] = {n: id(p) for n, p in pipeline.unet.attn_processors.items()}
    state["tokenizer"] = (id(pipeline.tokenizer), len(pipeline.tokenizer))
    state["vocabulary"] = dict(pipeline.tokenizer.get_vocab())
    state["table"] = id(pipeline.text_encoder.get_input_embeddings())
    state["targets"] = {name: (id(of.module), of.reads) for name, of in base.layers.items()}
    state["ids"] = pipeline.tokenizer("a photo of <ada> and <bo>")["input_ids"]
    return state


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    return bool(one == other)


def check_untouched(base: Base, before: dict[str, Any], drawn: list[bytes]) -> None:
    after = state_of(base)
    assert after.keys() == before.keys()
    for what in before:
        assert same(before[what], after[what]), what
    assert stock(base) == drawn


def use(session: Session, base: Base, name: str) -> None:
    """All that a session can do."""
    prompt = f"a photo of <{name}>"
    live = {
        layer: LowRank(*shape, 2, generator=torch.Generator().manual_seed(0))
        for layer, shape in session.shapes.items()
    }
    pictures(session, prompt)
    with session.attached(live):
        said = session.conditioning([prompt, STOCK])
        noised = torch.randn(2, 4, 8, 8)
        session.predict(noised, torch.tensor([5, 700]), said, base.size)
    layers = torch.stack([said.states] * base.readers)
    session.draw([prompt, STOCK], seeds=[0, 1], by_layer=layers, num_inference_steps=1)
    boxed = session.region(Place(box=(0.0, 0.0, 0.5, 1.0)), prompt, lambda prompts: ())
    session.draw([STOCK], seeds=[0], regions=[boxed], num_inference_steps=1)
    session.encode_ahead([prompt])


@pytest.mark.parametrize("kind", ["word", "state"])
@pytest.mark.parametrize("targets", ["keys-values", "cross-attention", "all"])
def test_after_a_session_the_base_is_what_it_was(targets: str, kind: str, base: Base) -> None:
    before, drawn = state_of(base), stock(base)
    known = token(base, "ada", kind)
    with base.session(targets=targets, tokens=known) as session:
        session.fold(deltas(base, "ada"))
        use(session, base, "ada")
    base.aim("keys-values")  # which set is aimed at is no part of the base itself
    check_untouched(base, before, drawn)


def test_after_a_session_that_raised_the_base_is_what_it_was(base: Base) -> None:
    before, drawn = state_of(base), stock(base)
    for spot in range(3):
        with (
            pytest.raises(ZeroDivisionError),
            base.session(tokens=token(base, "ada"), deltas=deltas(base, "ada")) as session,
        ):
            if spot == 1:
                use(session, base, "ada")
            if spot == 2:
                with session.attached({}):
                    raise ZeroDivisionError
            raise ZeroDivisionError
        check_untouched(base, before, drawn)


def test_a_picture_that_fails_half_way_leaves_the_base_as_it_was(base: Base) -> None:
    before, drawn = state_of(base), stock(base)

    def fail(*args: object) -> None:
        raise ZeroDivisionError

    for module in (base.pipeline.unet.mid_block, base.pipeline.text_encoder, base.pipeline.vae):
        handle = module.register_forward_pre_hook(fail)
        try:
            with pytest.raises(ZeroDivisionError):
                if module is base.pipeline.vae:  # which is decoded with, not called
                    with base.session(tokens=token(base, "ada")) as session:
                        session.draw(
                            ["<ada>"], seeds=[0], num_inference_steps=1, callback_on_step_end=fail
                        )
                else:
                    concept(base, "ada")
        finally:
            handle.remove()
        check_untouched(base, before, drawn)


def test_a_session_that_cannot_begin_leaves_the_base_free_and_as_it_was(base: Base) -> None:
    before, drawn = state_of(base), stock(base)
    wide = words({"ada": torch.zeros(1, 7)})
    with (
        pytest.raises(PerdureError, match="was learned on another base"),
        base.session(tokens=wide),
    ):
        pass
    wrong = {"no such layer": torch.zeros(2, 2)}
    with pytest.raises(ValueError, match="no layer is named"), base.session(deltas=wrong):
        pass
    with pytest.raises(KeyError), base.session(targets="no such set"):
        pass
    check_untouched(base, before, drawn)
    assert concept(base, "ada") == concept(base, "ada")


def test_a_word_of_an_earlier_session_is_plain_text_again(base: Base) -> None:
    prompt = "a photo of <ada>"
    with base.session() as session:
        plain = session.conditioning([prompt])
        first = pictures(session, prompt)
    with base.session(tokens=token(base, "ada")) as session:
        assert session.conditioning([prompt]).prompts.spoken == ((("ada", 4),),)
        assert pictures(session, prompt) != first
    with base.session(tokens=token(base, "bo")) as session:
        said = session.conditioning([prompt])
    assert said.prompts.spoken == ((),)
    with base.session() as session:
        again = session.conditioning([prompt])
        assert pictures(session, prompt) == first
    assert again.prompts.spoken == plain.prompts.spoken == ((),)
    assert again.prompts.ends == plain.prompts.ends
    assert torch.equal(again.states, plain.states) and torch.equal(said.states, plain.states)


def test_a_session_of_no_concept_draws_the_stock_pipelines_picture(base: Base) -> None:
    drawn = stock(base)
    concept(base, "ada")
    with base.session(tokens=token(base, "ada")) as session:
        assert pictures(session, STOCK) == drawn


def test_the_second_thread_waits_and_each_gets_its_own_pictures(base: Base) -> None:
    alone = {name: concept(base, name) for name in NAMES}
    assert alone["ada"] != alone["bo"]
    inside, go_on = threading.Event(), threading.Event()

    def first() -> list[bytes]:
        with base.session(tokens=token(base, "ada"), deltas=deltas(base, "ada")) as session:
            inside.set()
            assert go_on.wait(60)
            return pictures(session, "a photo of <ada>")

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first)
        assert inside.wait(60)
        two = pool.submit(concept, base, "bo")
        try:
            with pytest.raises(StillWaiting):
                two.result(timeout=0.5)
        finally:
            go_on.set()
        assert one.result(60) == alone["ada"]
        assert two.result(60) == alone["bo"]


def test_a_waiting_thread_goes_on_where_the_first_one_raised(base: Base) -> None:
    alone = concept(base, "bo")
    inside, go_on = threading.Event(), threading.Event()

    def first() -> None:
        with base.session(tokens=token(base, "ada"), deltas=deltas(base, "ada")):
            inside.set()
            assert go_on.wait(60)
            raise ZeroDivisionError

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first)
        assert inside.wait(60)
        two = pool.submit(concept, base, "bo")
        go_on.set()
        with pytest.raises(ZeroDivisionError):
            one.result(60)
        assert two.result(60) == alone


def test_many_threads_that_take_turns_never_mix(base: Base) -> None:
    alone = {name: concept(base, name) for name in NAMES}
    turns = list(NAMES) * 4
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda name: concept(base, name), turns))
    assert drawn == [alone[name] for name in turns]


def test_a_session_within_a_session_of_the_same_thread_is_refused(base: Base) -> None:
    alone = concept(base, "ada")
    with base.session(tokens=token(base, "ada"), deltas=deltas(base, "ada")) as session:
        with pytest.raises(RuntimeError, match="in use by a session of this very thread"):
            concept(base, "bo")
        assert pictures(session, "a photo of <ada>") == alone  # the outer one is not disturbed
    assert concept(base, "ada") == alone
