"""The denoising objective, one function for every parameterisation."""

from __future__ import annotations

from torch import Tensor

from perdure.errors import PerdureError

__all__ = ["Objective"]


class Objective:
    """What the denoiser predicts from noised latents, by the base's own schedule.

    epsilon: the noise (arXiv 2006.11239). v: `alpha * noise - sigma * x` (arXiv 2202.00512).
    """

    def __init__(self, alphas_cumprod: Tensor, prediction: str) -> None:
        if prediction not in ("epsilon", "v_prediction"):
            raise PerdureError(
                f"The base predicts {prediction!r}, but perdure trains bases that predict "
                "'epsilon' or 'v_prediction'."
            )
        self.prediction = prediction
        self.alpha = alphas_cumprod.double().sqrt().float()
        self.sigma = (1 - alphas_cumprod.double()).sqrt().float()

    @property
    def steps(self) -> int:
        """Number of training timesteps."""
        return len(self.alpha)

    def noised(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """`alpha_t x + sigma_t noise` for x (N, C, h, w) and t (N,)."""
        a, s = self._at(t, x)
        return a * x + s * noise

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the denoiser should say of `noised(x, noise, t)`, shaped like x."""
        if self.prediction == "epsilon":
            return noise
        a, s = self._at(t, x)
        return a * noise - s * x

    def _at(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        index = t.to(self.alpha.device)
        shape = (-1, *(1,) * (x.dim() - 1))
        return self.alpha[index].to(x).view(shape), self.sigma[index].to(x).view(shape)
