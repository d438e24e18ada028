"""InfLoRA: interference-free low-rank adaptation (arXiv 2404.00228). For layers that see pictures.

dW_t = A_t B_t,   A_t trained from zero, B_t fixed:
B_t  = first r left singular vectors of P C_t, as rows, over sqrt(3)
P    = I - M M^T  or, once M holds more than half of the space,  N N^T with N its complement
C_t  = mean of x x^T over the inputs x of the layer on the task's own pictures, before it trains

M is DualGPM's memory (arXiv 2303.15935): after task t the directions of C_t, measured again, are
added that bring the energy which M holds up to eps_t = (eps_T - eps_0) t / T + eps_0, t from 0.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from perdure.adapters.delta import LowRank
from perdure.methods.protocol import (
    Deltas,
    Kept,
    Learner,
    Method,
    Moments,
    Shapes,
    checked_moments,
    keep_factors,
    low_rank_deltas,
    sum_low_rank,
)
from perdure.settings import Count, Limits


@dataclass(frozen=True, eq=False)
class Memory:
    """Orthonormal columns (d, k): the old directions, or where `complement` the free ones."""

    basis: Tensor
    complement: bool

    def free(self, C: Tensor) -> Tensor:
        """C without its part in the old directions."""
        held = self.basis @ (self.basis.T @ C)
        return held if self.complement else C - held

    def grown(self, C: Tensor, share: float) -> "Memory":
        """With the fewest directions of C added (for a complement: taken out) that bring the held
        part of its energy, the sum of squared singular values, to `share`."""
        energy = torch.linalg.svdvals(C).square().sum()
        outside = self.free(C)
        U, S, _ = torch.linalg.svd(outside, full_matrices=False)
        left = float(outside.square().sum() / energy)
        more = 0
        for value in (S.square() / energy).tolist():
            enough = left < 1 - share if self.complement else 1 - left >= share
            if enough:
                break
            left, more = left - value, more + 1
        if not more:
            return self
        if not self.complement:
            basis = torch.cat([self.basis, U[:, :more]], dim=1)[:, : len(C)]
            return Memory(basis, False).turned()
        kept = self.basis - U[:, :more] @ (U[:, :more].T @ self.basis)
        left_over = max(self.basis.shape[1] - more, 0)
        return Memory(torch.linalg.svd(kept)[0][:, :left_over], True)

    def turned(self) -> "Memory":
        """The complement instead, where the old directions fill more than half of the space."""
        d, k = self.basis.shape
        if self.complement or k <= d / 2:
            return self
        return Memory(torch.linalg.svd(self.basis)[0][:, k:], True)


def first_memory(C: Tensor, share: float) -> Memory:
    """Of the first task: the leading directions that hold less than `share`, at least one."""
    U, S, _ = torch.linalg.svd(C)
    energy = S.square()
    count = int(((energy / energy.sum()).cumsum(0) < share).sum())
    return Memory(U[:, : max(count, 1)], False).turned()


def design(C: Tensor, rank: int, memory: Memory | None) -> Tensor:
    """B (rank, d), fp32; its rows are zero where no direction is free any more."""
    U, S, _ = torch.linalg.svd(C if memory is None else memory.free(C), full_matrices=False)
    real = torch.linalg.matrix_norm(C, 2) * 1e-6 < S  # the rest is rounding
    B = torch.zeros(rank, len(C), dtype=C.dtype)
    rows = (U * real).T[:rank]
    B[: len(rows)] = rows / math.sqrt(3)
    return B.float()


class InfLoRALearner(Learner):
    """`A_t` trains from zero, `B_t` stays as designed; `memories` are by leading layer."""

    def __init__(
        self,
        deltas: Mapping[str, LowRank],
        rows: Mapping[str, Tensor],
        memories: Mapping[str, Memory],
        share: float,
    ) -> None:
        super().__init__(deltas, rows)
        for delta in deltas.values():
            delta.B.requires_grad_(False)
        self.memories, self.share = dict(memories), share
        self.absorbed = False

    def absorb(self, moments: Mapping[str, Tensor]) -> None:
        """Called once after the last step, with C_t measured again on the trained layers."""
        for layer, C in _leaders(checked_moments("inflora", self._shapes(), moments)).items():
            old = self.memories.get(layer)
            new = first_memory(C, self.share) if old is None else old.grown(C, self.share)
            self.memories[layer] = new
        self.absorbed = True

    def _shapes(self) -> dict[str, tuple[int, int]]:
        made = {name: delta.factors() for name, delta in self.layer_deltas().items()}
        return {name: (len(f["A"]), f["B"].shape[1]) for name, f in made.items()}


class InfLoRA(Method):
    name = "inflora"
    title = "InfLoRA: a low-rank delta a task, in directions that earlier pictures hardly use"
    paper = "Liang and Li, CVPR 2024, arXiv 2404.00228"
    needs_moments: ClassVar[bool] = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        rank: Count = 10
        """r, the rank of every `A_t B_t` [code]."""
        share: Annotated[float, Limits(least=0, most=1)] = 0.95
        """eps_0, the share of the inputs' energy that the first task's memory holds; `lamb` in the
        public code, 0.95 for CIFAR-100 and 0.98 for ImageNet-R."""
        final_share: Annotated[float, Limits(least=0, most=1)] = 1.0
        """eps_T, which it rises to after `tasks` tasks; `lame` in the public code."""
        tasks: Count = 10
        """T, how many tasks are expected. The share reaches no more than `final_share`."""

    config: Config

    def start(
        self,
        shapes: Shapes,
        past: Sequence[Kept],
        rows: Mapping[str, Tensor],
        generator: torch.Generator,
        *,
        moments: Moments | None = None,
    ) -> Learner:
        """As `Method.start`; `moments` are C_t, by layer, and layers that read the same inputs are
        given the same tensor: they share a memory."""
        by_layer = checked_moments(self.name, shapes, moments)
        deltas = low_rank_deltas(shapes, self.config.rank, generator)
        memories = _remembered(past[-1]) if past else {}
        designed = {
            id(by_layer[layer]): design(C, self.config.rank, memories.get(layer))
            for layer, C in _leaders(by_layer).items()
        }
        with torch.no_grad():
            for layer, delta in deltas.items():
                delta.B.copy_(designed[id(by_layer[layer])])
        config = self.config
        done = min(len(past) / config.tasks, 1)
        share = config.share + (config.final_share - config.share) * done
        return InfLoRALearner(deltas, rows, memories, share)

    def past(self, kept: Sequence[Kept]) -> Deltas:
        return sum_low_rank(kept)

    def keep(self, learner: Learner) -> dict[str, Tensor]:
        assert isinstance(learner, InfLoRALearner)
        if not learner.absorbed:
            raise ValueError("inflora: the memory is not known yet: call absorb after training")
        tensors = keep_factors(learner)
        for layer, memory in learner.memories.items():
            tensors[f"{layer}/free" if memory.complement else f"{layer}/old"] = memory.basis.float()
        return tensors

    def mix(
        self, kept: Sequence[Kept], spoken: Sequence[str], states: Tensor | None = None
    ) -> Deltas:
        return sum_low_rank(kept)


def _leaders(by_layer: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The first of the layers that share a tensor -> that tensor, fp64."""
    first: dict[int, str] = {}
    for layer, C in by_layer.items():
        first.setdefault(id(C), layer)
    return {layer: by_layer[layer].double() for layer in first.values()}


def _remembered(task: Kept) -> dict[str, Memory]:
    return {
        layer: Memory(factors[kind].double(), kind == "free")
        for layer, factors in task.factors().items()
        for kind in ("old", "free")
        if kind in factors
    }
