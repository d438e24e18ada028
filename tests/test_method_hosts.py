"""Every method on real layers: a tiny U-Net that reads tokens, and a tiny vision transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from host_parts import added, every_row
from test_methods import SHARE, small
from torch import Tensor, nn
from transformers import ViTConfig, ViTModel

from perdure.adapters import Prompts
from perdure.hosts.diffusion.host import Base
from perdure.hosts.frozen import Layer, adding, attached, fold_into
from perdure.methods import METHODS, Deltas, Kept, Learner, Method

NEED_TOKENS = ["cidm", "custom-diffusion-merged", "fl2t", "gated", "textual-inversion"]
WEIGHED = ["cidm", "custom-diffusion-merged", "fl2t", "lora-merged"]
"""What is drawn of several tasks is not what any of them trained."""


class UNet:
    """A denoiser whose prompt is four fixed states and, after them, the concept's row."""

    def __init__(self, tiny: Path, targets: str) -> None:
        self.base = Base.open(tiny, device="cpu")
        self.base.aim(targets)
        self.layers, self.width = self.base.layers, 32
        self.pristine = {name: W.clone() for name, W in self.base.pristine.items()}
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(2, 4, 8, 8, generator=generator)
        self.states = torch.randn(1, 4, self.width, generator=generator)

    def rows(self, concept: str) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(len(concept))
        return {concept: torch.randn(1, self.width, generator=generator)}

    def prompts(self, learner: Learner, count: int = 1) -> Prompts:
        ((concept, row),) = learner.tokens().items()
        states = torch.cat([row[None], self.states], dim=1).expand(count, -1, -1)
        return Prompts(states=states, spoken=(((concept, 0),),) * count, ends=(4,) * count)

    def __call__(self, learner: Learner) -> Tensor:
        prompts = self.prompts(learner, 2)
        learner.read(prompts)
        states = prompts.states
        said: Tensor = self.base.denoiser(self.x, 500, encoder_hidden_states=states).sample
        return said


class Transformer:
    """A vision transformer's queries, keys and values; there is no prompt and no token."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        config = ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            image_size=16,
            patch_size=8,
        )
        self.model = ViTModel(config, add_pooling_layer=False).eval().requires_grad_(False)
        self.layers = {
            name: Layer(module)
            for name, module in self.model.named_modules()
            if isinstance(module, nn.Linear) and name.endswith(("q_proj", "k_proj", "v_proj"))
        }
        self.pristine = {name: layer.weight.clone() for name, layer in self.layers.items()}
        self.width = 16
        self.x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    def rows(self, concept: str) -> dict[str, Tensor]:
        return {}

    def __call__(self, learner: Learner) -> Tensor:
        seen: Tensor = self.model(self.x).last_hidden_state
        return seen


Host = UNet | Transformer


def host_of(kind: str, method: Method, tiny: Path) -> Host:
    torch.set_num_threads(1)
    return UNet(tiny, method.targets) if kind == "unet" else Transformer()


def start(method: Method, host: Host, past: Sequence[Kept], concept: str) -> Learner:
    shapes = {name: (len(w), w[0].numel()) for name, w in host.pristine.items()}
    c = torch.randn(100, host.width, generator=torch.Generator().manual_seed(1))
    moments = dict.fromkeys(shapes, c.T @ c / 100) if method.needs_moments else None
    generator = torch.Generator().manual_seed(len(past))
    return method.start(shapes, past, host.rows(concept), generator, moments=moments)


def fold(host: Host, dense: Mapping[str, Tensor]) -> None:
    fold_into(host.layers, host.pristine, dense)


def learn(
    method: Method, host: Host, past: Sequence[Kept], concept: str
) -> tuple[Learner, Kept, list[float]]:
    learner = start(method, host, past, concept)
    wanted = torch.randn(
        host(learner).shape, generator=torch.Generator().manual_seed(7 + len(past))
    )
    fold(host, method.past(past))
    optimizer = torch.optim.AdamW(learner.parameters(), lr=5e-3)
    losses = []
    with attached(host.layers, learner.layer_deltas()):
        for step in range(8):
            learner.begin_step(torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            loss = (host(learner) - wanted).square().mean()
            (loss + learner.penalty()).backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        learner.eval()
        if isinstance(host, UNet):
            with torch.no_grad():
                learner.see(host.prompts(learner))
        learner.look_back((host(learner) - wanted).square().mean() for _ in range(2))
    return learner, Kept((concept,), method.keep(learner)), losses


PAIRS = [
    pytest.param(name, kind, id=f"{name}-{kind}")
    for name in sorted(METHODS)
    for kind in ("unet", "transformer")
    if not (kind == "transformer" and name in NEED_TOKENS)
]


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_on_real_layers_what_is_drawn_is_what_was_trained(name: str, kind: str, tiny: Path) -> None:
    method = small(name)
    host = host_of(kind, method, tiny)
    alone = method.all_at_once or name in WEIGHED
    past = [] if alone else [learn(method, host, [], "rex")[1]]
    learner, task, losses = learn(method, host, past, "ada")
    assert losses[-1] < losses[0]
    fold(host, method.past(past))
    with attached(host.layers, learner.layer_deltas()), torch.no_grad():
        trained = host(learner)
    states = host.prompts(learner).states[0].detach() if isinstance(host, UNet) else None
    mixed = method.mix([*past, task], ["ada"], states)
    fold(host, {layer: dW / SHARE.get(name, 1) for layer, dW in mixed.items()})
    more: Deltas = {}
    if method.acts_in_prompts:
        assert isinstance(host, UNet)
        more = added(method, [*past, task], host.prompts(learner, 2))
    with torch.no_grad(), adding(host.layers, more, every_row):
        drawn = host(learner)
    fold(host, {})
    assert float((drawn - trained).norm() / trained.norm()) < 1e-5


@pytest.mark.parametrize("name", NEED_TOKENS)
def test_a_method_that_lives_on_tokens_says_so_where_there_are_none(name: str, tiny: Path) -> None:
    method = small(name)
    with pytest.raises(ValueError, match=f"{name}.*this task has no token"):
        start(method, Transformer(), [], "rex")


@pytest.mark.parametrize("name", [n for n in sorted(METHODS) if METHODS[n].needs_moments])
def test_a_method_that_needs_one_width_of_features_names_the_layer_that_has_another(
    name: str,
) -> None:
    shapes = {"wide": (4, 6), "narrow": (4, 5)}
    with pytest.raises(ValueError, match=f"{name}.*'narrow' needs .5, 5."):
        small(name).start(
            shapes,
            [],
            {"rex": torch.ones(6)},
            torch.Generator(),
            moments=dict.fromkeys(shapes, torch.eye(6)),
        )


def test_dreambooths_layers_cannot_be_trained_by_a_method_that_reads_text_features(
    tiny: Path,
) -> None:
    """Convolutions and self-attention do not read the text: moments of another width are named."""
    base = Base.open(tiny, device="cpu")
    base.aim("all")
    moments = dict.fromkeys(base.shapes, torch.eye(32))
    with pytest.raises(ValueError, match=r"the shape \(32, 32\), but the layer .* needs"):
        small("feature-space").start(
            base.shapes, [], {"rex": torch.ones(1, 32)}, torch.Generator(), moments=moments
        )
