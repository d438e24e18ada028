"""The denoising objective: how latents are noised, at which times, and what is predicted."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor

from perdure.errors import PerdureError

__all__ = ["Epsilon", "Flow", "Objective", "Velocity", "flow_of", "of_schedule"]


class Objective(ABC):
    """What the denoiser predicts from noised latents, by the base's own schedule."""

    prediction: str
    """Its name in a scheduler's configuration; part of a base's identity."""

    @abstractmethod
    def times(self, places: Tensor) -> Tensor:
        """Times (N,) of places (N,) in [0, 1], uniform places giving the times to train at."""

    @abstractmethod
    def noised(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Noised latents for x and noise (N, ...) and t (N,)."""

    @abstractmethod
    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the denoiser should say of `noised(x, noise, t)`, shaped like x."""


class Epsilon(Objective):
    """`alpha_t x + sigma_t noise`; predicts the noise (arXiv 2006.11239)."""

    prediction = "epsilon"

    def __init__(self, alphas_cumprod: Tensor) -> None:
        self.alpha = alphas_cumprod.double().sqrt().float()
        self.sigma = (1 - alphas_cumprod.double()).sqrt().float()

    def times(self, places: Tensor) -> Tensor:
        last = len(self.alpha) - 1  # a place in [0, 1) may have been rounded to 1
        return (places * len(self.alpha)).long().clamp(max=last)

    def noised(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        a, s = self._at(t, x)
        return a * x + s * noise

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise

    def _at(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        index = t.to(self.alpha.device)
        shape = (-1, *(1,) * (x.dim() - 1))
        return self.alpha[index].to(x).view(shape), self.sigma[index].to(x).view(shape)


class Velocity(Epsilon):
    """As `Epsilon`; predicts `alpha noise - sigma x` (arXiv 2202.00512)."""

    prediction = "v_prediction"

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        a, s = self._at(t, x)
        return a * noise - s * x


class Flow(Objective):
    """`(1 - s) x + s noise`; predicts `noise - x` (rectified flow, arXiv 2209.03003).

    Times are `scale * s`. s is uniform or, with ``logit_normal``, the sigmoid of a standard normal
    variable, and then shifted: `shift s / (1 + (shift - 1) s)` (arXiv 2403.03206, sections 3.1 and
    5.3.2).
    """

    prediction = "flow"

    def __init__(
        self, *, shift: float = 1.0, logit_normal: bool = False, scale: float = 1000.0
    ) -> None:
        self.shift, self.logit_normal, self.scale = shift, logit_normal, scale

    def times(self, places: Tensor) -> Tensor:
        s = torch.sigmoid(torch.special.ndtri(places)) if self.logit_normal else places
        return self.scale * self.shift * s / (1 + (self.shift - 1) * s)

    def noised(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        s = (t.to(x) / self.scale).view(-1, *(1,) * (x.dim() - 1))
        return (1 - s) * x + s * noise

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise - x


def flow_of(scheduler: Any, positions: int = 0) -> Flow:
    """Rectified flow at logit-normal times, shifted as the scheduler shifts those of pictures with
    so many positions (arXiv 2403.03206, section 5.3.2)."""
    config = scheduler.config
    if not config.get("use_dynamic_shifting"):
        shift = config.get("flow_shift") or config.get("shift") or 1.0
        return Flow(shift=float(shift), logit_normal=True)
    mu = calculate_shift(
        positions,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )
    return Flow(shift=shift_by(scheduler, mu), logit_normal=True)


def shift_by(scheduler: Any, mu: float) -> float:
    """The shift of times that a scheduler makes of mu."""
    return mu if scheduler.config.get("time_shift_type") == "linear" else math.exp(mu)


def of_schedule(alphas_cumprod: Tensor, prediction: str) -> Objective:
    """The objective of a scheduler with such alphas; PerdureError for another prediction."""
    for kind in (Epsilon, Velocity):
        if kind.prediction == prediction:
            return kind(alphas_cumprod)
    raise PerdureError(
        f"The base predicts {prediction!r}, but perdure trains bases that predict 'epsilon' or "
        "'v_prediction'."
    )
