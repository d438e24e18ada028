"""Gated: an adapter a task, that acts only where its concept is spoken of. Ours.

k_p = W_init c_p + sum_t g_t(p) A_t B_t c_p      (and the values alike), c_p the state at position p

g_t(p) = 1      at the token of a concept of t
       = 1/n    at the end token and the padding, of a prompt that speaks of n tasks' concepts
       = 0      elsewhere, and so wherever no concept of t is spoken of

With `ends=none` this is, at drawing, the token mask of TARA (arXiv 2508.08812).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from perdure.adapters.delta import LowRank
from perdure.adapters.prompts import PromptDelta, Prompts
from perdure.methods.apart import Apart
from perdure.methods.protocol import (
    Deltas,
    Kept,
    Learner,
    LowRankPairs,
    Method,
    Moments,
    Shapes,
    low_rank_pairs,
    tasks_of,
)
from perdure.settings import Count

Ends = Literal["mean", "sum", "none"]


class GatedLowRank(LowRank):
    """`A B` whose output is multiplied by a gate a position, set anew for every pass."""

    positional = True
    gate: Tensor | None = None
    """(N, P); None before the first prompts are read, and then nothing is gated."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out if self.gate is None else out * self.gate.to(out)[..., None]


class GatedLearner(Learner):
    """One gated `A_t B_t` a layer; the gate is that of the task's own concepts."""

    def __init__(
        self, deltas: Mapping[str, GatedLowRank], rows: Mapping[str, Tensor], ends: Ends
    ) -> None:
        super().__init__(deltas, rows)
        self.ends: Ends = ends

    def read(self, prompts: Prompts) -> None:
        gate = gate_of(prompts, [self.concepts], self.ends)[0]
        for delta in self.layer_deltas().values():
            assert isinstance(delta, GatedLowRank)
            delta.gate = gate


class Gated(Apart):
    name = "gated"
    title = "Gated: an adapter a task, acting only where its concept is spoken of"
    paper = "this project's own; see docs/methods/gated.md"
    acts_in_prompts = True
    takes_adapters = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        rank: Count = 16
        """Rank of every task's adapter."""
        ends: Ends = "mean"
        """What happens at the end token and the padding, which every picture attends to: the mean
        of the adapters of the tasks that are spoken of, their sum, or none of them."""

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
        if not rows:
            raise ValueError("gated acts where a token is spoken of, and this task has no token")
        if not shapes:
            raise ValueError("there is no target layer, so there is nothing to train")
        deltas = {
            layer: GatedLowRank(d_out, d_in, self.config.rank, generator=generator)
            for layer, (d_out, d_in) in shapes.items()
        }
        return GatedLearner(deltas, rows, self.config.ends)

    def mix(
        self, kept: Sequence[Kept], spoken: Sequence[str], states: Tensor | None = None
    ) -> Deltas:
        return {}  # the weights stay the base's

    def low_rank(self, kept: Sequence[Kept], spoken: Sequence[str]) -> LowRankPairs:
        return low_rank_pairs(tasks_of(kept, spoken))

    def in_prompts(self, kept: Sequence[Kept], prompts: Prompts) -> list[PromptDelta]:
        names = {name for said in prompts.spoken for name, _ in said}
        spoken = [task for task in kept if names.intersection(task.concepts)]
        gates = gate_of(prompts, [task.concepts for task in spoken], self.config.ends)
        return [
            PromptDelta({layer: (f["A"], f["B"]) for layer, f in task.factors().items()}, gate)
            for task, gate in zip(spoken, gates, strict=True)
        ]


def gate_of(prompts: Prompts, tasks: Sequence[tuple[str, ...]], ends: Ends) -> Tensor:
    """g (tasks, N, P) in [0, 1] or, for the sum, {0, 1}, on the states' device, fp32."""
    count, length = prompts.states.shape[:2]
    gate = torch.zeros(len(tasks), count, length)
    task_of = {name: index for index, names in enumerate(tasks) for name in names}
    for n, spoken in enumerate(prompts.spoken):
        if not spoken:
            continue
        speaks = set()
        for name, place in spoken:
            if name in task_of:
                gate[task_of[name], n, place] = 1.0
                speaks.add(task_of[name])
        share = {"mean": 1 / max(1, len(speaks)), "sum": 1.0, "none": 0.0}[ends]
        for task in speaks:
            gate[task, n, prompts.rest(n)] = share
    return gate.to(prompts.states.device)
