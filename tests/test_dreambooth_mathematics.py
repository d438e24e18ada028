"""DreamBooth: every linear and convolution of a real, tiny U-Net is trained and folded exactly."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from perdure.hosts.diffusion.host import Base
from perdure.hosts.frozen import attached
from perdure.methods import Kept, Learner, build


@pytest.fixture(scope="module")
def base(tiny: Path) -> Base:
    torch.set_num_threads(1)
    opened = Base.open(tiny, device="cpu")
    opened.aim(build("dreambooth").targets)
    return opened


def drawn(base: Base) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    states = torch.randn(2, 5, 32, generator=generator)
    t = torch.tensor([3, 700])
    with torch.no_grad():
        said: Tensor = base.denoiser(x, t, encoder_hidden_states=states).sample
    return said


def moved(base: Base) -> Learner:
    """A learner whose every dW is a hundredth as large as its weight."""
    rows = {"rex": torch.ones(1, 32)}
    learner = build("dreambooth").start(base.shapes, [], rows, torch.Generator())
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for layer, delta in learner.layer_deltas().items():
            noise = torch.randn(base.shapes[layer], generator=generator)
            delta.get_parameter("dW").copy_(0.1 * base.pristine[layer].std() * noise)
    return learner


def test_every_weight_of_the_denoiser_trains_but_biases_and_norms(base: Base) -> None:
    kinds = {type(layer.module) for layer in base.layers.values()}
    assert kinds == {nn.Linear, nn.Conv2d}
    trained = {f"{name}.weight" for name in base.layers}
    left = {name for name, _ in base.denoiser.named_parameters()} - trained
    modules = dict(base.denoiser.named_modules())
    for name in left:
        module = modules[name.rpartition(".")[0]]
        assert name.endswith(".bias") or isinstance(module, nn.GroupNorm | nn.LayerNorm)


def test_folding_all_layers_draws_what_the_trained_model_draws(base: Base) -> None:
    learner, method = moved(base), build("dreambooth")
    untouched = drawn(base)
    with attached(base.layers, learner.layer_deltas()):
        trained = drawn(base)
    task = Kept(("rex",), method.keep(learner))
    base.fold(method.mix([task], ["rex"]))
    folded = drawn(base)
    base.fold({})
    assert float((trained - untouched).norm() / untouched.norm()) > 1e-2
    assert float((folded - trained).norm() / trained.norm()) < 1e-5
    assert torch.equal(drawn(base), untouched)


def test_the_whole_dw_is_kept_in_fp32_and_the_next_task_goes_on_from_it(base: Base) -> None:
    learner, method = moved(base), build("dreambooth")
    task = Kept(("rex",), method.keep(learner))
    assert {tensor.dtype for tensor in task.tensors.values()} == {torch.float32}
    held = sum(tensor.numel() for tensor in task.tensors.values())
    assert held == sum(layer.weight.numel() for layer in base.layers.values())
    rows = {"ada": torch.ones(1, 32)}
    again = method.start(base.shapes, [task], rows, torch.Generator())
    assert all(torch.equal(d, task.tensors[k]) for k, d in method.keep(again).items())
