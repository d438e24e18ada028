"""What several tests need of a host: target layers, what acts in prompts, tokens of one encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from perdure.adapters import Prompts, Token, outputs
from perdure.hosts.frozen import Layer
from perdure.methods import Kept, Method


def layers_of(modules: Mapping[str, nn.Linear | nn.Conv2d]) -> dict[str, Layer]:
    """The modules as target layers."""
    return {name: Layer(module) for name, module in modules.items()}


def added(method: Method, kept: Sequence[Kept], prompts: Prompts) -> dict[str, Tensor]:
    """What the method adds to layers that read the prompts' states: layer -> (N, P, d_out)."""
    return outputs(method.in_prompts(kept, prompts), prompts.states)


def every_row(rows: int) -> slice:
    """All rows of a pass are those of the prompts."""
    return slice(0, rows)


def words(rows: Mapping[str, Any]) -> dict[str, Token]:
    """Rows (n, d) as words of a base with one text encoder."""
    return {name: Token({"word/text_encoder": row}) for name, row in rows.items()}
