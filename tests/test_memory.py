"""What learning needs of a card: computed from shapes, compared with a pass that really runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from tiny_pipelines import MAKERS, make_flux, make_z_image
from torch import Tensor

import perdure
from perdure.adapters import Prompts
from perdure.adapters.delta import LowRank
from perdure.doctor import describe
from perdure.hosts.diffusion.conditioning import Conditioning
from perdure.hosts.diffusion.memory import CARDS, Needs, fitting, needs

SIZE = (64, 32)


UNFUSED = {"chroma"}
"""Under a mask that is added, a CPU's attention keeps all scores, as a card's does not."""


@pytest.mark.parametrize("family", [name for name in MAKERS if name not in UNFUSED])
def test_what_is_computed_from_shapes_is_what_a_real_pass_keeps(
    family: str, tmp_path: Path
) -> None:
    base = perdure.Base.open(MAKERS[family](tmp_path / "base"), device="cpu", dtype="bfloat16")
    if family in {"sd", "sdxl"}:  # as on a card: a CPU runs plain attention on small pictures
        base.pipeline.unet.set_attn_processor(AttnProcessor2_0())
    found = needs(base, SIZE, rank=4)
    weights = [p for p in base.denoiser.parameters()]
    own, kept = {p.untyped_storage().data_ptr() for p in weights}, dict[int, int]()
    held: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        held.append(tensor)  # so that no memory is used twice
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    blank = base.family.blank(base.pipeline)
    states = torch.randn(blank.states.shape).bfloat16()
    with torch.no_grad():
        features = base.family.features(base.pipeline, states)
        noised, _ = base.encode(torch.zeros(1, 3, SIZE[1], SIZE[0]))
    beside = {
        n: torch.randn_like(t) if t.is_floating_point() else t for n, t in blank.beside.items()
    }
    said = Conditioning(
        states=states,
        beside=beside,
        prompts=Prompts(features, ((),), (0,)),
        by_layer=features[None],
    )
    generator = torch.Generator().manual_seed(0)
    with base.session() as session:
        deltas = {n: LowRank(*shape, 4, generator=generator) for n, shape in base.shapes.items()}
        with (
            session.attached(deltas),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        ):
            session.predict(noised.bfloat16(), torch.tensor([500.0]), said, SIZE)
    assert found.kept == pytest.approx(sum(kept.values()), rel=0.03)
    modules = base.denoiser.modules()
    assert found.linear == sum(m.weight.numel() for m in modules if isinstance(m, torch.nn.Linear))
    autoencoder = sum(p.numel() for p in base.pipeline.vae.parameters())
    assert found.linear + found.other == sum(p.numel() for p in weights) + autoencoder
    assert found.trained == 16 * 4 * sum(a + b for a, b in base.shapes.values())


def test_a_card_takes_the_first_setting_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = perdure.Base.open(make_flux(tmp_path / "base"), device="cpu")
    large = Needs(linear=9 * 10**9, other=10**9, encoders=2 * 10**9, trained=10**9, kept=2 * 10**9)
    said = "perdure.hosts.diffusion.memory.needs"
    monkeypatch.setattr(said, lambda base, size: large)
    found = dict(fitting(base, (1024, 1024)))
    assert list(found) == [f"{card} GB" for card in CARDS]
    # bf16: 18 + 2 + 3 + 1 = 24; int8: 9 + 2 + 3 + 1 = 15; nf4: 5.0625 + 2 + 3 + 1 = 11.1
    assert "does not fit at 1024x1024 (11.1 GB with --quantize bnb-nf4)" in found["8 GB"]
    assert "fits with --quantize bnb-nf4: 11.1 GB in a step" in found["12 GB"]
    assert "fits with --quantize int8: 15.0 GB in a step, 14.0 GB while" in found["16 GB"]
    assert "fits with --dtype bfloat16: 24.0 GB in a step, 23.0 GB while" in found["24 GB"]
    heavy = replace(large, encoders=30 * 10**9)
    monkeypatch.setattr(said, lambda base, size: heavy)
    assert "does not fit" in dict(fitting(base, (1024, 1024)))["24 GB"]


def test_doctor_says_what_fits_without_reading_an_encoder(tmp_path: Path) -> None:
    lines = dict(describe(str(make_z_image(tmp_path / "base", shift=3.0)), device="cpu"))
    assert "fits with --dtype bfloat16" in lines["8 GB"]
    assert "Turbo" in lines["distilled"] and lines["family"] == "Z-Image"
