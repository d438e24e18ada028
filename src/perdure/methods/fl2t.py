"""FL2T: concepts learned apart, in any order or at once, then composed (arXiv 2601.01963).

Step 1, each concept alone:   dW_g = A_g B_g, its token, C_g = mean of its encoded tokens
Step 2, the adapters frozen:  P^  = decoder(tgt = {P_g}, memory = states of the prompt)
                              s_g = max over positions of cos(P^_g, state),   w = psi(s)
                              P_g, C_g and states less the mean of all C_g
                              dW^ = sum_g w_g dW_g
L = L_diff + mu InfoNCE(P^_g, C_g; C_j) + nu || K/V(prompt of g; dW^) - K/V(same; dW_g) ||^2
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perdure.adapters.delta import Delta, without_autocast
from perdure.adapters.prompts import Prompts
from perdure.methods.cidm import psi, weighted
from perdure.methods.composed import Composed
from perdure.methods.protocol import (
    Deltas,
    Kept,
    Learner,
    Moments,
    Shapes,
    keep_encoded,
    keep_factors,
    low_rank_deltas,
)
from perdure.settings import Count, Limits, NotNegative

Relevance = Literal["softmax", "paper", "code"]

OWN_PROMPTS = 16
"""Prompts of one concept each in one step of the term nu: with few, concepts whose C_g nearly
coincide stay mixed."""

_PROXY, _MODULE, _CENTRE = "proxy/", "module/", "centre"


class Proxies(nn.Module):
    """P^ (N, G, d), unit length, of G proxies and the states (N, P, d) of N prompts.

    One decoder layer at a small width: self-attention among the proxies, cross-attention to the
    prompt, no positional code. Its output is added to the proxies and starts at zero: P^ = P.
    """

    def __init__(self, d: int, width: int, heads: int, generator: torch.Generator) -> None:
        super().__init__()
        self.down = nn.Linear(d, width, bias=False)
        self.decoder = nn.TransformerDecoderLayer(
            width, heads, dim_feedforward=2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.up = nn.Linear(width, d, bias=False)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.dim() > 1:
                    bound = (6 / sum(parameter.shape)) ** 0.5
                    parameter.uniform_(-bound, bound, generator=generator)
                else:
                    parameter.fill_(float("norm" in name and name.endswith("weight")))
            self.up.weight.zero_()

    def forward(self, P: Tensor, states: Tensor) -> Tensor:
        with without_autocast(P):
            states = states.float()
            scale = P.shape[-1] ** 0.5  # entries of unit size for the decoder
            tgt = self.down(F.normalize(P, dim=-1) * scale).expand(len(states), -1, -1)
            memory = self.down(F.normalize(states, dim=-1) * scale)
            moved = self.up(self.decoder(tgt, memory))
            return F.normalize(F.normalize(P, dim=-1) + moved, dim=-1)


class Mixture(Delta):
    """`sum_g w_g A_g B_g` of frozen factors A (G, d_out, r), B (G, r, d_in), for weights w (N, G).

    The weights are set before a pass: the same for all layers, one row for each of the N prompts.
    """

    def __init__(self, A: Tensor, B: Tensor) -> None:
        super().__init__()
        self.A: Tensor
        self.B: Tensor
        self.register_buffer("A", A.permute(1, 0, 2).flatten(1).contiguous(), persistent=False)
        self.register_buffer("B", B.flatten(0, 1), persistent=False)
        self.rank = B.shape[1]
        self.w: Tensor | None = None

    def of(self, x: Tensor, w: Tensor) -> Tensor:
        """`sum_g w_ng dW_g x_n` (N, P, d_out) for x (N, P, d_in) and w (N, G)."""
        each = w.repeat_interleave(self.rank, dim=1).to(x.dtype)
        return F.linear(F.linear(x, self.B.to(x.dtype)) * each[:, None], self.A.to(x.dtype))

    def forward(self, x: Tensor) -> Tensor:
        if self.w is None:
            raise ValueError("the mixture has no weights: let the learner read the prompts first")
        return self.of(x, self.w)

    def dense(self) -> Tensor:
        """For the mean weights of the prompts that were read last; zero before any."""
        w = self.A.new_zeros(1, len(self.B) // self.rank) if self.w is None else self.w
        with without_autocast(self.A):
            return (self.A * w.mean(dim=0).repeat_interleave(self.rank)) @ self.B

    def factors(self) -> dict[str, Tensor]:
        return {}  # the tasks hold them


class ApartLearner(Learner):
    """Step 1: a fresh adapter and token, and what the token came to mean."""

    def __init__(self, deltas: Mapping[str, Delta], rows: Mapping[str, Tensor]) -> None:
        super().__init__(deltas, rows)
        self.encoded: dict[str, Tensor] = {}

    def see(self, prompts: Prompts) -> None:
        self.encoded = prompts.encoded()


class ComposeLearner(Learner):
    """Step 2: the proxies and their decoder train, everything else is frozen."""

    def __init__(
        self,
        deltas: Mapping[str, Mixture],
        module: Proxies,
        proxies: Mapping[str, Tensor],
        C: Tensor,
        own: Tensor,
        own_concepts: Tensor,
        config: "FL2T.Config",
    ) -> None:
        super().__init__(deltas, {})
        self.config = config
        self.names = tuple(proxies)
        self.module = module
        self.P = nn.ParameterList(nn.Parameter(P.clone().float()) for P in proxies.values())
        self.C: Tensor
        self.centre: Tensor
        self.own: Tensor
        self.own_concepts: Tensor
        self.register_buffer("centre", centre(C), persistent=False)
        self.register_buffer("C", C - self.centre, persistent=False)
        self.register_buffer("own", own, persistent=False)
        self.register_buffer("own_concepts", own_concepts, persistent=False)
        self.chosen: Tensor = torch.arange(min(OWN_PROMPTS, len(own)))
        self.states: Tensor | None = None

    def moved(self, states: Tensor) -> Tensor:
        """P^ (N, G, d) for prompts' states (N, P, d)."""
        return self.module(torch.stack(list(self.P)) - self.centre, states - self.centre)

    def weigh(self, states: Tensor) -> Tensor:
        """w (N, G) for prompts' states (N, P, d)."""
        return weights(self.moved(states), states - self.centre, self.config)

    def begin_step(self, generator: torch.Generator) -> None:
        """The single concepts' prompts of this step."""
        self.chosen = torch.randperm(len(self.own), generator=generator)[:OWN_PROMPTS]

    def read(self, prompts: Prompts) -> None:
        """The weights of the prompts, once for all layers."""
        self.states = prompts.states.detach().float()
        w = self.weigh(self.states)
        for delta in self._deltas:
            assert isinstance(delta, Mixture)
            delta.w = w

    def contrast(self) -> Tensor:
        """InfoNCE over the prompts that were read last."""
        return (
            super().penalty()
            if self.states is None
            else info_nce(self.moved(self.states), self.C, self.config.contrast_tau)
        )

    def preservation(self) -> Tensor:
        """How far a concept's own prompt is from being drawn with its own adapter alone: the mean
        over prompts and layers of `|(dW^ - dW_g) c|^2 / |dW_g c|^2`, c at all positions."""
        index = self.chosen.to(self.own.device)
        states = self.own[index]
        w = self.weigh(states)
        alone = F.one_hot(self.own_concepts[index], len(self.names)).to(w)
        ratios = []
        with without_autocast(states):
            for delta in self.layer_deltas().values():
                assert isinstance(delta, Mixture)
                own = delta.of(states, alone).square().sum(dim=(1, 2)).clamp(min=1e-12)
                ratios.append((delta.of(states, w - alone).square().sum(dim=(1, 2)) / own).mean())
        return torch.stack(ratios).mean()

    def penalty(self) -> Tensor:
        """`mu InfoNCE + nu preservation`."""
        total = super().penalty()
        if self.config.mu:
            total = total + self.config.mu * self.contrast()
        if self.config.nu:
            total = total + self.config.nu * self.preservation()
        return total

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"deltas": list(self.parameters()), "tokens": []}


class FL2T(Composed):
    name = "fl2t"
    title = "FL2T: adapters learned apart, composed by proxies that attend to the prompt"
    paper = "arXiv 2601.01963, WACV 2026; our completion, see docs/methods/fl2t.md"
    mixes_by = "prompt"
    independent = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Composed.Config):
        rank: Count = 16
        """Rank of every `A_g B_g`."""
        proxies: bool = True
        """Off: no second step, and the weights come from C_g itself."""
        width: Count = 64
        """Width of the decoder."""
        heads: Count = 4
        """Its attention heads."""
        relevance: Relevance = "softmax"
        """psi: softmax(s / tau), or one of CIDM's forms `paper` and `code`."""
        tau: Annotated[float, Limits(least=1e-6)] = 0.05
        """Temperature of the softmax."""
        mu: NotNegative = 0.1
        """Weight of InfoNCE; 0 switches it off."""
        contrast_tau: Annotated[float, Limits(least=1e-6)] = 0.1
        """Temperature of InfoNCE."""
        nu: NotNegative = 1.0
        """Weight of the preservation of each concept's own keys and values; 0 switches it off."""
        together_steps: Count = 200
        """Optimiser steps of the second step."""
        together_lr: NotNegative = 3e-4
        """Its learning rate."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.width % self.heads:
                raise ValueError(
                    f"width is {self.width}, but must be a multiple of heads ({self.heads})"
                )

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
            raise ValueError(
                "fl2t weighs its concepts by the words of a prompt, and this task has no token"
            )
        return ApartLearner(low_rank_deltas(shapes, self.config.rank, generator), rows)

    def needs_prompt_layers(self) -> str:
        if self.config.nu and self.config.proxies:
            return "its preservation of keys and values is not known from prompts: set nu=0"
        return ""

    def past(self, kept: Sequence[Kept]) -> Deltas:
        return {}  # every concept trains on the untouched base

    def keep(self, learner: Learner) -> dict[str, Tensor]:
        assert isinstance(learner, ApartLearner)
        return {**keep_factors(learner), **keep_encoded(learner.encoded)}

    def composition_settings(self) -> dict[str, Any] | None:
        config = self.config
        return (
            {"steps": config.together_steps, "lr": config.together_lr} if config.proxies else None
        )

    def start_composition(
        self,
        shapes: Shapes,
        kept: Sequence[Kept],
        composition: Mapping[str, Tensor],
        prompts: Prompts,
        generator: torch.Generator,
    ) -> Learner:
        C = encoded(kept)
        factors = [task.factors() for task in kept for _ in task.encoded()]
        deltas = {
            layer: Mixture(
                torch.stack([f[layer]["A"].float() for f in factors]),
                torch.stack([f[layer]["B"].float() for f in factors]),
            )
            for layer in shapes
        }
        names = list(C)
        of = [prompts.concepts(index)[0] for index in range(len(prompts.spoken))]
        return ComposeLearner(
            deltas,
            self._module(composition, len(C[names[0]]), generator),
            {name: composition.get(_PROXY + name, e) for name, e in C.items()},
            torch.stack(list(C.values())),
            prompts.states.float().cpu(),
            torch.tensor([names.index(name) for name in of]),
            self.config,
        )

    def keep_composition(self, learner: Learner) -> dict[str, Tensor]:
        assert isinstance(learner, ComposeLearner)
        module = {_MODULE + name: tensor for name, tensor in learner.module.state_dict().items()}
        proxies = {_PROXY + name: P for name, P in zip(learner.names, learner.P, strict=True)}
        kept = {**module, **proxies, _CENTRE: learner.centre}
        return {key: t.detach().cpu().clone() for key, t in kept.items()}

    def without(self, composition: Mapping[str, Tensor], concept: str) -> dict[str, Tensor]:
        return {key: tensor for key, tensor in composition.items() if key != _PROXY + concept}

    @torch.no_grad()
    def mix_composed(
        self,
        kept: Sequence[Kept],
        composition: Mapping[str, Tensor],
        spoken: Sequence[str],
        states: Tensor | None = None,
    ) -> Deltas:
        if not kept:
            return {}
        if states is None:
            raise ValueError("fl2t weighs its concepts by the prompt: pass the states of its words")
        C = encoded(kept)
        middle = composition.get(_CENTRE, centre(torch.stack(list(C.values())))).float()
        states = states.float().cpu()[None] - middle
        P = (
            torch.stack([composition.get(_PROXY + name, e).float() for name, e in C.items()])
            - middle
        )
        if self.config.proxies and composition:
            module = self._module(composition, P.shape[1], torch.Generator()).eval()
            moved = module(P, states)
        else:
            moved = F.normalize(P, dim=-1)[None]
        w = dict(zip(C, weights(moved, states, self.config)[0], strict=True))
        return weighted(kept, torch.stack([sum_of(w, task) for task in kept]))

    def _module(
        self, composition: Mapping[str, Tensor], d: int, generator: torch.Generator
    ) -> Proxies:
        module = Proxies(d, self.config.width, self.config.heads, generator)
        trained = {
            key.removeprefix(_MODULE): t
            for key, t in composition.items()
            if key.startswith(_MODULE)
        }
        if trained:
            module.load_state_dict(trained)
        return module


def encoded(kept: Sequence[Kept]) -> dict[str, Tensor]:
    """Concept -> C_g (d,), fp32, in the order of the tasks."""
    return {name: C.float() for task in kept for name, C in task.encoded().items()}


def centre(C: Tensor) -> Tensor:
    """The mean of C (G, d): what the states of a text encoder share, and cosines should not see.

    Zero for one concept, of which nothing would be left.
    """
    return C.mean(dim=0) if len(C) > 1 else torch.zeros_like(C[0])


def sum_of(w: Mapping[str, Tensor], task: Kept) -> Tensor:
    """The weight of a task: that of all its concepts."""
    return torch.stack([w[name] for name in task.encoded()]).sum()


def weights(moved: Tensor, states: Tensor, config: FL2T.Config) -> Tensor:
    """w (N, G) of P^ (N, G, d), unit length, and the prompts' states (N, P, d), less the centre."""
    with without_autocast(moved):
        s = (moved @ F.normalize(states, dim=-1).mT).amax(dim=-1)
    return (
        torch.softmax(s / config.tau, -1)
        if config.relevance == "softmax"
        else psi(s, config.relevance)
    )


def info_nce(moved: Tensor, C: Tensor, tau: float) -> Tensor:
    """`-log exp(cos(P^_g, C_g) / tau) / sum_j exp(cos(P^_g, C_j) / tau)`, the mean over g and
    prompts, of P^ (N, G, d) and C (G, d), less the centre."""
    with without_autocast(moved):
        logits = F.normalize(moved, dim=-1) @ F.normalize(C, dim=-1).T / tau
    own = torch.arange(len(C), device=C.device).expand(len(moved), -1)
    return F.cross_entropy(logits.flatten(0, 1), own.flatten())
