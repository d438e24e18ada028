"""Every family with every method: learned twice, cut and resumed, drawn, removed, exported."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import family_matrix
import numpy as np
import pytest
import torch
from conftest import make_pipeline
from PIL import Image
from tiny_pipelines import (
    MAKERS,
    STREAMS,
    make_flux,
    make_flux2,
    make_krea2,
    make_sd3,
    make_z_image,
)

import perdure
from perdure.drawing.painter import Painter
from perdure.errors import PerdureError
from perdure.hosts.diffusion.encoders import Source
from perdure.learning import loop, moments
from perdure.methods import METHODS

FAMILIES = {
    **MAKERS,
    "sd3-without-t5": lambda folder: make_sd3(folder, t5=False),
    "flux-schnell": lambda folder: make_flux(folder, guided=False),
    "flux2-distilled": lambda folder: make_flux2(folder, distilled=True),
    "z-image-turbo": lambda folder: make_z_image(folder, shift=3.0),
    "krea2-turbo": lambda folder: make_krea2(folder, distilled=True),
}
VARIANTS = {"sd3-without-t5", "flux-schnell", "flux2-distilled", "z-image-turbo", "krea2-turbo"}
"""Of a family that stands here already: one method is enough."""
WORDS = {"sd", "sdxl"}
"""Families whose token is a word where the method does not say otherwise."""
MEANINGLESS = {
    "custom-diffusion-merged": "choose another method",
    "feature-space": "choose another method",
    "fl2t": "nu=0",
    "cidm": "layerwise_tokens=false",
}
REFUSED = {(family, m): why for family in sorted(STREAMS) for m, why in MEANINGLESS.items()}
"""What means nothing on a family, and what is said of it."""
FREED: dict[str, dict[str, Any]] = {"fl2t": {"nu": 0.0}, "cidm": {"layerwise_tokens": False}}
"""With these options some of them can be learned."""
STOCK: dict[str, dict[str, Any]] = {
    "PixArtSigmaPipeline": {
        "use_resolution_binning": False,
        "clean_caption": False,
        "guidance_scale": 3.0,
    },
    "SanaPipeline": {"use_resolution_binning": False, "guidance_scale": 3.0},
    "QwenImagePipeline": {"negative_prompt": [" "], "true_cfg_scale": 3.0},
}
"""How a pipeline is called where its call differs from the others'."""
UNTOUCHED = {"gated", "lora-independent", "textual-inversion"}
"""Methods with which a prompt that speaks of nobody is the base's own, to the bit."""
SMALL = {"rank": 2, "mask_rank": 2, "shared": 2, "width": 8, "heads": 2, "together_steps": 2}
SMALL |= {"replay": 1}
BOTH_KINDS = {"gated", "c-lora", "textual-inversion"}
"""Methods that are tried with words and with states."""
BOTH = "a photo of <ada> and <bo>"
NOBODY = "a photo of a dog"
DRAWING: dict[str, Any] = {"steps": 2, "guidance": 3.0}

SIBLINGS = {"flux2-dev"}
"""Families whose denoiser is another's; with most methods they are tried in the long run alone."""

CELLS = [
    pytest.param(
        family,
        method,
        kind,
        id=f"{family}-{method}-{kind}",
        marks=pytest.mark.slow if family in SIBLINGS and method not in BOTH_KINDS else (),
    )
    for family in FAMILIES
    for method in sorted(METHODS)
    for kind in ("word", "state")
    if (family not in VARIANTS or (method == "gated" and kind == "state"))
    and ((kind == "word") is (family in WORDS) or method in BOTH_KINDS)
    and ((family, method) not in REFUSED or method in FREED)
]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, perdure.Base]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("families")
    return {
        name: perdure.Base.open(make(folder / name), device="cpu")
        for name, make in FAMILIES.items()
    }


def options(method: str) -> dict[str, Any]:
    known = {field.name for field in fields(METHODS[method].Config)}
    return {key: value for key, value in SMALL.items() if key in known}


def weights(base: perdure.Base) -> str:
    """All that the pipeline holds."""
    digest = hashlib.sha256()
    base.need_encoders()
    for module in base.family.frozen(base.pipeline):
        for name, tensor in module.state_dict().items():
            digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def pixels(pictures: Sequence[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(picture, int) for picture in pictures])


def stock(base: perdure.Base, prompt: str, seed: int) -> np.ndarray:
    """The pipeline called as anyone calls it."""
    base.need_encoders()
    with torch.no_grad(), base.autocast():
        drawn = base.pipeline(
            prompt=[prompt],
            num_inference_steps=2,
            height=32,
            width=32,
            generator=[torch.Generator().manual_seed(seed)],
            **STOCK.get(type(base.pipeline).__name__, {"guidance_scale": 3.0}),
        ).images
    return pixels(drawn)


def made_matrix() -> str:
    """What of families and methods runs here, for the documentation."""
    cells = [tuple(str(value) for value in cell.values) for cell in CELLS]
    known = [cell for cell in cells if cell[0] not in VARIANTS]
    return family_matrix.matrix(known, REFUSED, FREED, STREAMS)


def test_the_matrix_of_the_documentation_is_what_these_tests_run() -> None:
    assert family_matrix.on_page() == made_matrix()


class PlugPulled(Exception):
    pass


@pytest.mark.parametrize(("family", "method", "kind"), CELLS)
def test_a_family_and_a_method_from_the_first_picture_to_the_export(
    family: str,
    method: str,
    kind: str,
    bases: dict[str, perdure.Base],
    drawings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "LOOKS", 2)
    monkeypatch.setattr(moments, "CAPTIONS", moments.CAPTIONS[::64])
    base, before = bases[family], weights(bases[family])
    freed = options(method) | (FREED.get(method, {}) if family in STREAMS else {})
    known = {"method": method, "options": freed, "token": kind}
    short = {"steps": 2, "checkpoint_every": 1, "lr": 0.05}
    both = {name: drawings / name for name in ("ada", "bo")}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    tasks = [both] if METHODS[method].all_at_once else [{n: path} for n, path in both.items()]

    def pull(progress: Any) -> None:
        if progress.step == 2:
            raise PlugPulled

    for task in tasks[:-1]:
        for bank in (whole, cut):
            perdure.learn(base, bank, task, **known, **short)
    early = (
        perdure.draw(base, whole, "a photo of <ada>", seeds=3, **DRAWING)
        if len(tasks) > 1
        else None
    )
    perdure.learn(base, whole, tasks[-1], **known, **short)
    with pytest.raises(PlugPulled):
        perdure.learn(base, cut, tasks[-1], report=pull, **known, **short)
    perdure.resume(base, cut)

    one, other = perdure.Bank.open(whole), perdure.Bank.open(cut)
    for record, again in zip(one.tasks, other.tasks, strict=True):
        (tensors, tokens), (same, its) = one.read(record), other.read(again)
        assert tensors.keys() == same.keys()
        assert all(torch.equal(tensors[key], same[key]) for key in tensors)
        for name, token in tokens.items():
            assert token.kind == kind
            assert torch.equal(token.rows, its[name].rows)

    painter = Painter(base, one)
    drawn = painter.draw(["a photo of <ada>", BOTH], seeds=[3, 4], **DRAWING)
    assert pixels(drawn).std() > 0
    assert (
        np.array_equal(pixels(painter.draw([NOBODY], seeds=[5], **DRAWING)), stock(base, NOBODY, 5))
        or method not in UNTOUCHED
    )
    if early is not None and method in UNTOUCHED:
        late = painter.draw(["a photo of <ada>"], seeds=[3], **DRAWING)
        assert np.array_equal(pixels(late), pixels(early))

    fixed = METHODS[method].mixes_by == "prompt" or METHODS[method].acts_in_prompts
    spoken = ["ada"] if METHODS[method].mixes_by == "concepts" else []
    if fixed or kind == "state":
        with pytest.raises(PerdureError, match="draw from the bank itself"):
            painter.save_folded(tmp_path / "folded", spoken=spoken)
    else:
        painter.save_folded(tmp_path / "folded", spoken=spoken)
        export = perdure.Base.open(tmp_path / "folded", device="cpu")
        own = pixels(painter.draw(["a photo of <ada>"], seeds=[3], **DRAWING))
        assert np.abs(stock(export, "a photo of <ada>", 3) - own).max() <= 3

    try:
        perdure.remove(whole, "bo")
    except PerdureError as error:
        assert "cannot be removed" in str(error) and method not in UNTOUCHED
    else:
        left = Painter(base, whole).draw(["a photo of <ada>"], seeds=[3], **DRAWING)
        assert (
            early is None or method not in UNTOUCHED or np.array_equal(pixels(left), pixels(early))
        )
        with pytest.raises(PerdureError, match="<bo>, which this bank has not learned"):
            Painter(base, whole).draw([BOTH], seeds=[4], **DRAWING)
    assert weights(base) == before


@pytest.mark.parametrize(("family", "method"), [pytest.param(*r, id="-".join(r)) for r in REFUSED])
def test_what_means_nothing_on_a_family_is_refused_before_anything_is_written(
    family: str, method: str, bases: dict[str, perdure.Base], drawings: Path, tmp_path: Path
) -> None:
    with pytest.raises(PerdureError, match=REFUSED[family, method]):
        perdure.learn(
            bases[family],
            tmp_path / "bank",
            {"ada": drawings / "ada"},
            method=method,
            options=options(method),
            steps=1,
        )
    assert not (tmp_path / "bank").exists()


@pytest.mark.parametrize("family", [name for name in MAKERS if name not in WORDS])
def test_large_encoders_leave_memory_and_are_not_read_again_for_prompts_that_are_cached(
    family: str, drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, bank = FAMILIES[family](tmp_path / "base"), tmp_path / "bank"
    read: list[str] = []
    load = Source.load

    def counted(source: Source, *where: Any) -> Any:
        read.append(source.kind)
        return load(source, *where)

    monkeypatch.setattr(Source, "load", counted)
    templates = ("a photo of {}", "{} at night")
    base = perdure.Base.open(folder, device="cpu")
    encoders = sorted(base.family.encoders)

    def pull(progress: Any) -> None:
        assert all(getattr(base.pipeline, name) is None for name in encoders)
        if progress.step == 2:
            raise PlugPulled

    known = {"templates": templates, "steps": 3, "checkpoint_every": 1}
    with pytest.raises(PlugPulled):
        perdure.learn(base, bank, {"ada": drawings / "ada"}, report=pull, **known)
    assert len(read) == len(encoders)

    read.clear()
    base = perdure.Base.open(folder, device="cpu")
    perdure.resume(base, bank)
    assert perdure.Bank.open(bank).tokens()["ada"].kind == "state"  # the family's own
    cached = perdure.draw(
        base, bank, ["a photo of <ada>", "<ada> at night"], seeds=[3, 4], **DRAWING
    )
    assert read == []
    shutil.rmtree(perdure.Bank.open(bank).derived)
    fresh = perdure.draw(
        base, bank, ["a photo of <ada>", "<ada> at night"], seeds=[3, 4], **DRAWING
    )
    assert len(read) == len(encoders)
    assert np.abs(pixels(cached) - pixels(fresh)).max() <= 3  # one by one and as a batch


def test_a_pooled_vector_is_the_end_tokens_also_where_a_word_was_added(
    bases: dict[str, perdure.Base],
) -> None:
    """The published configurations name end token 2, with which the highest id would be taken."""
    base = bases["sdxl"]
    rows = base.tokens.random("word", torch.Generator().manual_seed(0))
    with (
        torch.no_grad(),
        base.session(tokens={"ada": base.tokens.token("word", rows, 1.0)}) as session,
    ):
        one, other = (
            session.conditioning([text]).beside["pooled_prompt_embeds"]
            for text in ("a photo of <ada>", "a photo of <ada> in the snow")
        )
    assert not torch.allclose(one, other)  # at the word itself the two would be the same


def test_a_family_is_refused_by_name_and_a_missing_part_too(tmp_path: Path) -> None:
    folder = make_pipeline(tmp_path / "base")
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace('"StableDiffusionPipeline"', '"LuminaPipeline"'))
    with pytest.raises(PerdureError, match="is a LuminaPipeline, which perdure cannot teach yet"):
        perdure.Base.open(folder, device="cpu")
