"""CODA-Prompt: decomposed attention-based prompting (arXiv 2211.13218).

alpha_m = cos(q(x) (.) A_m, K_m),   p = sum_m alpha_m P_m,   q(x) the untouched tower's class token
h       = MSA(h_Q, [p_K; h_K], [p_V; h_V])   in the first blocks; p_K and p_V are the halves of p
L_ortho = mean((K K^T - I)^2) + mean((A A^T - I)^2) + mean((P P^T - I)^2), summed over the blocks

Every task adds components (P, K, A) and freezes the earlier ones; new ones start as random vectors
that Gram-Schmidt has made orthogonal, as in the public code since 2023.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from perdure.errors import PerdureError
from perdure.hosts.vision.backbone import Backbone
from perdure.methods.protocol import (
    Deltas,
    Kept,
    Learner,
    Method,
    Moments,
    Shapes,
)
from perdure.settings import Count, NotNegative

__all__ = [
    "CodaPrompt",
    "CodaPromptLearner",
    "gram_schmidt",
    "orthogonality",
    "prompt_of",
    "prompted",
]

_PREFIXED = "perdure-prefix"
_PARTS = ("P", "K", "A")

Components = dict[str, dict[str, Tensor]]
"""Block -> P (M, length, d), K (M, d), A (M, d)."""


def prompt_of(query: Tensor, P: Tensor, K: Tensor, A: Tensor) -> Tensor:
    """p (N, length, d) of queries (N, d), by equations 3 to 5 of the paper."""
    attended = F.normalize(query[:, None] * A, dim=2)
    alpha = (attended * F.normalize(K, dim=1)).sum(dim=2)
    return torch.einsum("nm,mld->nld", alpha, P)


def orthogonality(vectors: Tensor) -> Tensor:
    """`mean((B B^T - I)^2)` of vectors (M, ...), each taken as one row."""
    B = vectors.flatten(1)
    return (B @ B.T - torch.eye(len(B), device=B.device)).square().mean()


def gram_schmidt(old: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` random vectors of length 1, without their projections on each of the old ones
    (M, ...) and on each other; shaped as the old."""
    made = list(old.flatten(1).float())
    for _ in range(count):
        v = torch.randn(old[0:0].flatten(1).shape[1], generator=generator)
        made.append(v - sum(((v @ w) / (w @ w) * w for w in made), torch.zeros_like(v)))
    new = [u / u.norm() for u in made[len(old) :]]
    return torch.stack(new).view(count, *old.shape[1:])


class CodaPromptLearner(Learner):
    """New components of every prompted block, beside the frozen ones of earlier tasks."""

    def __init__(self, old: Components, new: Components, weight: float) -> None:
        super().__init__({}, {})
        self.blocks, self.weight = tuple(new), weight
        self._new = nn.ParameterList(new[block][part] for block in new for part in _PARTS)
        for index, block in enumerate(new):
            for part in _PARTS:
                self.register_buffer(f"old_{part}_{index}", old[block][part], persistent=False)

    def added(self) -> Components:
        """The components that train."""
        parts = iter(self._new)
        return {block: {part: next(parts) for part in _PARTS} for block in self.blocks}

    def components(self) -> Components:
        """All of them, the frozen ones first."""
        return {
            block: {
                part: torch.cat([getattr(self, f"old_{part}_{index}"), new])
                for part, new in parts.items()
            }
            for index, (block, parts) in enumerate(self.added().items())
        }

    def penalty(self) -> Tensor:
        """`mu * L_ortho`."""
        if not self.weight:
            return super().penalty()
        parts = [vectors for of in self.components().values() for vectors in of.values()]
        return self.weight * torch.stack([orthogonality(vectors) for vectors in parts]).sum()

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"deltas": list(self._new.parameters()), "tokens": []}


class CodaPrompt(Method):
    name = "coda-prompt"
    title = "CODA-Prompt: prompts mixed by attention, put before keys and values of early blocks"
    paper = "Smith et al., CVPR 2023, arXiv 2211.13218"

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        components: Count = 10
        """Components added by every task; 100 over all tasks in the paper, so 10 of 10 tasks."""
        length: Count = 8
        """Positions of a prompt, half of them before the keys and half before the values."""
        blocks: Count = 5
        """How many blocks, from the first, have prompts; all where there are fewer."""
        ortho: NotNegative = 0.0
        """mu, the weight of L_ortho; 0 in the public code since the start is orthogonal, before
        that 0.1 [paper], times 1e-6 in the code of that time."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.length % 2:
                raise ValueError(
                    f"length is {self.length}, but must be even: half of it goes before the keys, "
                    "half before the values"
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
        count, length = self.config.components, self.config.length
        old = self.components(past)
        new: Components = {}
        widths = {layer.rpartition(".")[0]: d_in for layer, (_, d_in) in shapes.items()}
        for block in list(widths)[: self.config.blocks]:
            d = widths[block]
            nothing = {"P": torch.empty(0, length, d), "K": torch.empty(0, d)}
            old.setdefault(block, {**nothing, "A": torch.empty(0, d)})
            new[block] = {part: gram_schmidt(old[block][part], count, generator) for part in _PARTS}
        return CodaPromptLearner(old, new, self.config.ortho)

    def components(self, kept: Sequence[Kept]) -> Components:
        """All components of these tasks, in order."""
        tasks = [task.factors() for task in kept]
        return {
            block: {part: torch.cat([of[block][part] for of in tasks]) for part in _PARTS}
            for block in (tasks[0] if tasks else {})
        }

    def past(self, kept: Sequence[Kept]) -> Deltas:
        return {}

    def keep(self, learner: Learner) -> dict[str, Tensor]:
        assert isinstance(learner, CodaPromptLearner)
        return {
            f"{block}/{part}": vectors.detach().cpu().clone()
            for block, parts in learner.added().items()
            for part, vectors in parts.items()
        }

    def mix(
        self, kept: Sequence[Kept], spoken: Sequence[str], states: Tensor | None = None
    ) -> Deltas:
        return {}  # no weight changes; `prompted` reads with the prompts


def prompted(backbone: Backbone, components: Components, pixels: Tensor) -> Tensor:
    """Features (N, width) with the prompts of these components: two passes through the tower.

    Raises PerdureError where the tower is not one of transformers, whose attention can be replaced.
    """
    if not isinstance(backbone.tower, PreTrainedModel):
        raise PerdureError(
            f"coda-prompt needs a tower of transformers, and {backbone.name} is none: choose "
            "another method or backbone."
        )
    with torch.no_grad():
        query = backbone.features(pixels)
    here = {
        block: {part: vectors.to(query.device) for part, vectors in of.items()}
        for block, of in components.items()
    }
    with _prefixes(backbone.tower, {b: prompt_of(query, **c) for b, c in here.items()}):
        return backbone.features(pixels)


@contextmanager
def _prefixes(tower: PreTrainedModel, prompts: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the block the named attentions read prompts before their keys and values."""
    usual = tower.config._attn_implementation
    modules = {block: tower.get_submodule(block) for block in prompts}
    tower.set_attn_implementation(_PREFIXED)
    for block, module in modules.items():
        module.perdure_prefix = prompts[block].chunk(2, dim=1)
    try:
        yield
    finally:
        for module in modules.values():
            del module.perdure_prefix
        tower.set_attn_implementation(usual)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Scaled dot-product attention, with what the module's prefix adds to keys and values."""
    prefix = getattr(module, "perdure_prefix", None)
    if prefix is not None:
        n, heads, _, width = key.shape
        p_K, p_V = (half.view(n, -1, heads, width).transpose(1, 2).to(key) for half in prefix)
        key, value = torch.cat([p_K, key], dim=2), torch.cat([p_V, value], dim=2)
    # on a CPU the fused attention's gradient is slow with few positions
    plain = sdpa_kernel(SDPBackend.MATH) if key.device.type == "cpu" else nullcontext()
    with plain:
        return sdpa_attention_forward(module, query, key, value, None, **kwargs)


AttentionInterface.register(_PREFIXED, _attention)
