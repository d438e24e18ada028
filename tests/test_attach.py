"""A bank on a pipeline that somebody else made: the pictures of `perdure.draw`, and no trace."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_pipelines import MAKERS

import perdure
from perdure import PerdureError, precision

SETTINGS: dict[str, dict[str, Any]] = {
    "pixart": {"use_resolution_binning": False, "guidance_scale": 3.0},
    "sana": {"use_resolution_binning": False, "guidance_scale": 3.0},
    "qwen-image": {"negative_prompt": " ", "true_cfg_scale": 3.0},
}
"""How a pipeline is called where its call differs from the others'."""
ADA, NOBODY = "a photo of <ada>", "a photo of a dog"
LEARN: dict[str, Any] = {"steps": 1, "lr": 0.5, "options": {"rank": 2}}


@dataclass(frozen=True)
class Tiny:
    family: str
    folder: Path
    bank: Path
    base: perdure.Base

    def open(self, kind: Any = None, **parts: Any) -> Any:
        """A pipeline as anyone opens it, that computes attention as `Base.open` does."""
        kind = kind or type(self.base.pipeline)
        pipeline = kind.from_pretrained(self.folder, **parts)
        pipeline.set_progress_bar_config(disable=True)
        self.base.family.prepare(pipeline, torch.device("cpu"))
        return pipeline

    def draw(self, prompt: str = ADA, seed: int = 3, **settings: Any) -> np.ndarray:
        """`perdure.draw`'s picture."""
        drawn = perdure.draw(
            self.base, self.bank, prompt, seeds=seed, steps=2, guidance=3.0, **settings
        )
        return np.asarray(drawn[0], int)


@pytest.fixture(scope="module", params=list(MAKERS))
def tiny(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, drawings: Path
) -> Tiny:
    return made(request.param, tmp_path_factory.mktemp("attach"), drawings)


def made(family: str, folder: Path, drawings: Path) -> Tiny:
    """A base and a bank of two concepts."""
    torch.set_num_threads(1)
    base = perdure.Base.open(MAKERS[family](folder / "base"), device="cpu")
    with pytest.MonkeyPatch.context() as patch:  # a bank also keeps what encoders said
        patch.setattr(precision, "fast_bf16", lambda device: False)
        for name in ("ada", "bo"):
            perdure.learn(base, folder / "bank", {name: drawings / name}, **LEARN)
    base.need_encoders()
    return Tiny(family, folder / "base", folder / "bank", base)


def of_call(pipeline: Any, family: str, prompt: Any = ADA, **given: Any) -> list[np.ndarray]:
    """An ordinary call."""
    known = inspect.signature(type(pipeline).__call__).parameters
    usual = {"num_inference_steps": 2, "height": 32, "width": 32, "prompt": prompt}
    usual |= SETTINGS.get(family, {"guidance_scale": 3.0})
    given = {key: value for key, value in {**usual, **given}.items() if key in known}
    return [np.asarray(picture, int) for picture in pipeline(**given).images]


def call(
    pipeline: Any, family: str, prompt: Any = ADA, seed: int = 3, **given: Any
) -> np.ndarray:
    """The one picture of a call with a seed."""
    (drawn,) = of_call(
        pipeline, family, prompt, generator=torch.Generator().manual_seed(seed), **given
    )
    return drawn


def everything(pipeline: Any) -> list[Any]:
    """What a pipeline is: weights, flags, hooks, tokenizers, configurations."""
    found: list[Any] = [type(pipeline), dict(pipeline.config)]
    for name, part in sorted(pipeline.components.items()):
        found.append((name, id(part)))
        if isinstance(part, torch.nn.Module):
            digest = hashlib.sha256()
            for key, tensor in part.state_dict().items():
                digest.update(key.encode() + tensor.contiguous().numpy().tobytes())
            found.append(digest.hexdigest())
            found.append([(path, id(module)) for path, module in part.named_modules()])
            found.append([(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in part.modules()])
            found.append([p.requires_grad for p in part.parameters()])
            found.append([getattr(m, "eos_token_id", None) for m in (part.config, *part.modules())])
        if hasattr(part, "get_vocab"):
            found.append((part.get_vocab(), part.get_added_vocab()))
    return found


@pytest.mark.usefixtures("fp32")
def test_an_attached_pipeline_draws_what_the_bank_draws_and_detached_it_is_what_it_was(
    tiny: Tiny,
) -> None:
    pipeline = tiny.open()
    plain, before = call(pipeline, tiny.family, NOBODY), everything(pipeline)
    unknown = call(pipeline, tiny.family)
    with perdure.attach(pipeline, tiny.bank):
        drawn = call(pipeline, tiny.family)
        assert np.array_equal(drawn, tiny.draw())
        assert not np.array_equal(drawn, unknown)
        assert np.array_equal(call(pipeline, tiny.family, NOBODY), plain)
        both = "<bo> and <ada> at night"
        assert np.array_equal(call(pipeline, tiny.family, both, 4), tiny.draw(both, 4))
    assert everything(pipeline) == before
    assert np.array_equal(call(pipeline, tiny.family), unknown)


@pytest.mark.usefixtures("fp32")
def test_several_prompts_several_pictures_a_negative_prompt_and_prompts_encoded_before(
    tiny: Tiny,
) -> None:
    pipeline, family = tiny.open(), tiny.base.family
    known = inspect.signature(type(pipeline).__call__).parameters
    pair = {"generator": [torch.Generator().manual_seed(seed) for seed in (3, 4)]}
    with perdure.attach(pipeline, tiny.bank):
        drawn = [
            np.asarray(picture, int)
            for picture in perdure.draw(
                tiny.base, tiny.bank, [NOBODY, ADA], seeds=[3, 4], steps=2, guidance=3.0
            )
        ]
        both = of_call(pipeline, tiny.family, [NOBODY, ADA], **pair)
        assert all(near(*of) for of in zip(both, drawn, strict=True))

        pair = {"generator": [torch.Generator().manual_seed(seed) for seed in (3, 4)]}
        twice = of_call(pipeline, tiny.family, ADA, num_images_per_prompt=2, **pair)
        assert all(near(one, tiny.draw(seed=seed)) for one, seed in zip(twice, (3, 4), strict=True))

        with torch.no_grad():
            positive = family.encode(pipeline, [ADA])
            guided = family.guides(pipeline)
            against = family.encode_negative(pipeline, [""], positive) if guided else None
        call(pipeline, tiny.family, "<bo>")
        again = family.draw(
            pipeline,
            positive,
            against,
            generator=torch.Generator().manual_seed(3),
            width=32,
            height=32,
            num_inference_steps=2,
            guidance_scale=3.0,
        )
        if tiny.family != "lumina2":  # whose padding perdure itself makes zeros of
            assert near(np.asarray(again[0], int), tiny.draw())

        if "negative_prompt" not in known or not guided:
            return
        avoided = {"negative_prompt": "<bo> at night"}
        if family.negatives_alone:
            with pytest.raises(PerdureError, match="leave <bo> out"):
                call(pipeline, tiny.family, **avoided)
        else:
            drawn_so = tiny.draw(negative="<bo> at night")
            assert near(call(pipeline, tiny.family, **avoided), drawn_so)
            assert not np.array_equal(drawn_so, tiny.draw())


def near(one: np.ndarray, other: np.ndarray) -> bool:
    """The same but for rounding, of which a batch of other rows has another."""
    return bool(np.abs(one - other).max() <= 1)
