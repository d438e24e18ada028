"""Can a small network tell drawings from renders? An AUC of 0.5 is what a perfect base would get.

A metric encoder can be blind to a fault that it was never shown; a network that is trained to see
any difference is not. Renders go through the base's autoencoder first, so that only what the
denoiser does wrong is told apart.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perdure.measuring.scores import auc
from perdure.randomness import generator_of

__all__ = ["discriminator_auc"]

_STEPS, _BATCH, _FOLDS = 300, 64, 2


def _network() -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((3, 24), (24, 48), (48, 96), (96, 96)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after)]
        layers += [nn.SiLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 1))


def discriminator_auc(drawn: Tensor, rendered: Tensor, *, seed: int = 0) -> float:
    """AUC of a network that tells ``drawn`` from ``rendered``, on pictures that it wasn't shown.

    Both are uint8 (N, H, W, 3), best of one kind of subject, of the same prompts and with two
    hundred pictures or more: the fewer, the nearer to 0.5 whatever they show. Each half of the
    pictures is judged by a network trained for 300 steps of 64 on the other half (about a minute
    on two cores). Row k of both is held out together, so that prompts can't be recognised. Raises
    ValueError for sets of other shapes than each other's, or of fewer than four.
    """
    if drawn.shape != rendered.shape or len(drawn) < 4:
        raise ValueError(
            f"drawn and rendered: shapes {tuple(drawn.shape)} and {tuple(rendered.shape)}; "
            "give as many of both, four or more, of one size"
        )
    pixels = torch.stack([drawn, rendered]).permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    judged = torch.empty(2, len(drawn))
    for fold in range(_FOLDS):
        held = torch.arange(len(drawn)) % _FOLDS == fold
        judged[:, held] = _judged(pixels[:, ~held], pixels[:, held], seed, fold)
    return auc(judged[0], judged[1])


def _judged(shown: Tensor, held: Tensor, seed: int, fold: int) -> Tensor:
    """Train on ``shown`` (2, N, 3, H, W); logits (2, M) of being drawn for ``held``."""
    generator = generator_of(seed, fold)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        network = _network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    truth = torch.arange(2 * shown.shape[1]) < shown.shape[1]
    flat = shown.flatten(0, 1)
    with torch.enable_grad():
        for step in range(_STEPS):
            index = torch.randint(len(flat), (_BATCH,), generator=generator)
            batch = flat[index]
            if step % 2:
                batch = batch.flip(-1)
            loss = F.binary_cross_entropy_with_logits(network(batch)[:, 0], truth[index].float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return torch.stack([network(part)[:, 0] for part in held])
