"""What a continual-learning method answers, and what passes between it and the loop.

A method sees named linear layers and token rows, nothing else: no diffusion, no files, no pictures.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from perdure.adapters.delta import Delta, FullRank, LowRank, low_rank_sum
from perdure.adapters.prompts import PromptDelta, Prompts
from perdure.settings import Settings

Shapes = Mapping[str, tuple[int, int]]
"""Layer name -> (d_out, d_in)."""

Deltas = dict[str, Tensor]
"""Layer name -> dense `dW` (d_out, d_in), fp32."""

LowRankPairs = dict[str, list[tuple[Tensor, Tensor]]]
"""Layer name -> A_t (d_out, r_t), B_t (r_t, d_in), whose products add up."""

Moments = Mapping[str, Tensor]
"""Layer name -> C (d_in, d_in), fp32: the mean of `c c^T` over those inputs c of the layer that a
task should leave alone. Layers that read the same inputs have the same tensor."""

SHARED = "*"
"""Stands for the layer in the key of a kept tensor that all layers share, e.g. `*/features`."""

_ENCODED = "encoded/"


@dataclass(frozen=True, eq=False)
class Kept:
    """What one task left behind. It never changes."""

    concepts: tuple[str, ...]
    """Names of the task's concepts, without brackets."""
    tensors: Mapping[str, Tensor]
    """`<layer>/<factor>` -> tensor, e.g. `mid_block.attn2.to_k/A`; `encoded/<concept>` is not of a
    layer. Token rows are not in here."""

    def __post_init__(self) -> None:
        if isinstance(self.tensors, MutableMapping):  # a bank's own is read when it is touched
            object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))

    def factors(self) -> dict[str, dict[str, Tensor]]:
        """Layer name -> factor name -> tensor."""
        by_layer: dict[str, dict[str, Tensor]] = {}
        for key, tensor in self.tensors.items():
            if key.startswith(_ENCODED):
                continue
            layer, slash, factor = key.rpartition("/")
            if not slash:
                raise ValueError(f"the kept tensor {key!r} has no layer: name it <layer>/<factor>")
            by_layer.setdefault(layer, {})[factor] = tensor
        return by_layer

    def encoded(self) -> dict[str, Tensor]:
        """Concept -> mean of its encoded tokens (d,), where the method kept it (`encoded/rex`)."""
        return {
            key.removeprefix(_ENCODED): tensor
            for key, tensor in self.tensors.items()
            if key.startswith(_ENCODED)
        }


class Learner(nn.Module):
    """The trainable state of one task: one delta a target layer, one row a new concept token.

    `rows` maps the concept's name to its initial embedding, of any shape; each becomes an fp32
    parameter of its own. Layer and concept names may be any text (they hold dots, which
    `nn.ModuleDict` refuses), so deltas and rows sit in lists, in the order they were given.
    """

    sees_tokens_alone: ClassVar[bool] = False
    """Is each concept's token by itself among the prompts that `see` is given?"""

    def __init__(self, deltas: Mapping[str, Delta], rows: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.layers = tuple(deltas)
        self.concepts = tuple(rows)
        self._deltas = nn.ModuleList(deltas.values())
        self._rows = nn.ParameterList(
            nn.Parameter(row.detach().clone().float()) for row in rows.values()
        )

    def layer_deltas(self) -> dict[str, Delta]:
        """Layer name -> the delta that trains."""
        deltas = {}
        for layer, delta in zip(self.layers, self._deltas, strict=True):
            assert isinstance(delta, Delta)
            deltas[layer] = delta
        return deltas

    def tokens(self) -> dict[str, Tensor]:
        """Concept name -> row of its token, fp32, differentiable."""
        return dict(zip(self.concepts, self._rows, strict=True))

    def begin_step(self, generator: torch.Generator) -> None:
        """Called once before every optimiser step, with the step's own CPU generator.

        Whatever is random in a learner is drawn here, from this generator alone: it depends on the
        seed and the step's number, so a resumed run draws the same. It holds for all passes of the
        step, and counts only while the learner is in training mode; `eval()` ends it. By default
        nothing is random and nothing is drawn.
        """

    def read(self, prompts: Prompts) -> None:
        """Called before every pass through the layers, with the prompts they are about to read.

        By default a delta acts alike at every position and nothing is noted.
        """

    def see(self, prompts: Prompts) -> None:
        """Called once, after the last step and before `look_back`, in evaluation mode.

        ``prompts`` are every training template filled with each new concept, encoded with the
        trained tokens: states in fp32, without a graph. Where the learner `sees_tokens_alone`,
        each concept's token by itself comes first. By default nothing is noted.
        """

    def look_back(self, losses: Iterable[Tensor]) -> None:
        """Called once, after the last step, in evaluation mode.

        ``losses`` are denoising losses of single pictures of the task, each with its graph, in an
        order that the seed decides: what a Fisher information is estimated from. By default
        nothing is looked at, and then none is computed.
        """

    def penalty(self) -> Tensor:
        """Scalar fp32, weighted: the loss is `L_diff + penalty()`. Zero unless overridden."""
        device = next((parameter.device for parameter in self.parameters()), None)
        return torch.zeros((), device=device)

    @torch.no_grad()
    def norm(self) -> float:
        """Frobenius norm of the current `dW`, all layers together: `sqrt(sum_l ||dW_l||_F^2)`."""
        squares = [delta.square() for delta in self.layer_deltas().values()]
        return math.sqrt(float(torch.stack(squares).sum())) if squares else 0.0

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by learning-rate group: `deltas` and `tokens`; either may be empty."""
        return {"deltas": list(self._deltas.parameters()), "tokens": list(self._rows.parameters())}


class Method(ABC):
    """One paper. Holds a configuration and no state; everything learned is in `Kept`s."""

    name: ClassVar[str]
    """The name on the command line and in a bank."""
    title: ClassVar[str]
    """One line for a table."""
    paper: ClassVar[str]
    """Where the method comes from."""
    mixes_by: ClassVar[Literal["bank", "concepts", "prompt"]] = "bank"
    """What prompts must share to be drawn with one `mix`: nothing but the bank, the concepts that
    they speak of, or every word."""
    acts_in_prompts: ClassVar[bool] = False
    """Does `in_prompts` say something, so that one model cannot be folded for all prompts?"""
    token: ClassVar[Literal["word", "state"]] = "word"
    """What a concept's token is unless the user says otherwise."""
    targets: str = "keys-values"
    """Which layers train: the name of a set that the host knows."""
    trains_weights: ClassVar[bool] = True
    """False where only tokens train."""
    independent: ClassVar[bool] = False
    """Does no task depend on another: do `start` and `past` leave the past alone? Then concepts
    can be learned in any order, or at once, and the tasks come out the same."""
    takes_adapters: ClassVar[bool] = False
    """Can a task be a LoRA that was trained elsewhere, on the base alone?"""
    layerwise: bool = False
    """Has a concept's token a row for every cross-attention layer? Then `rows` are (L, d)."""
    needs_moments: ClassVar[bool] = False
    """Does `start` need `moments`? Where not, none are computed and none are passed."""
    moments_of_past: ClassVar[bool] = True
    """Are the prompts of past concepts among the moments, or ordinary captions alone?"""
    moments_are: Literal["mean", "sum"] = "mean"
    """How moments gather what was learned: a mean, in which each counts less the more there are, or
    a sum, in which each counts what it always did."""
    all_at_once: ClassVar[bool] = False
    """Are all concepts learned in the one task that a bank can have?"""

    @dataclass(frozen=True, kw_only=True)
    class Config(Settings):
        """The method's options."""

    config: Config

    def __init__(self, config: Config | None = None) -> None:
        self.config = type(self).Config() if config is None else config

    @property
    def replays(self) -> int:
        """Pictures of each past concept that the bank draws before a task, to be learned again with
        the new ones; none unless a method says otherwise."""
        return 0

    def needs_prompt_layers(self) -> str:
        """Why layers must read the encoders' states as they are, and what helps where none does;
        empty where they need not."""
        if self.needs_moments:
            return "what it reads of past concepts is not known from prompts: choose another method"
        return ""

    @abstractmethod
    def start(
        self,
        shapes: Shapes,
        past: Sequence[Kept],
        rows: Mapping[str, Tensor],
        generator: torch.Generator,
        *,
        moments: Moments | None = None,
    ) -> Learner:
        """What is trained for a task whose new concepts have the initial token rows `rows`.

        Made on the CPU from a CPU generator, so that a seed means the same on every device; move
        the learner afterwards. Its step costs the same however many tasks lie in `past`.

        `moments` is for a method that `needs_moments`.
        """

    @abstractmethod
    def past(self, kept: Sequence[Kept]) -> Deltas:
        """`dW` to fold into the weights while the next task trains on top."""

    @abstractmethod
    def keep(self, learner: Learner) -> dict[str, Tensor]:
        """The task's tensors, `<layer>/<factor>` -> detached copy."""

    @abstractmethod
    def mix(
        self, kept: Sequence[Kept], spoken: Sequence[str], states: Tensor | None = None
    ) -> Deltas:
        """`dW` to draw a prompt with that speaks of the concepts `spoken`.

        `states` (P, d) are the prompt's, for a method that mixes by the prompt, else None.
        """

    def low_rank(self, kept: Sequence[Kept], spoken: Sequence[str]) -> LowRankPairs | None:
        """Layer -> pairs A (d_out, r), B (r, d_in) whose products add up to what `mix` returns;
        None where that is no such sum.

        ``kept`` are all tasks, each by itself. Of a method that acts in prompts it is what that
        adds to a prompt that speaks of these concepts, without its gate.
        """
        return None

    def in_prompts(self, kept: Sequence[Kept], prompts: Prompts) -> list[PromptDelta]:
        """What acts at some positions of these prompts, on top of `mix`; how is the host's.

        Empty unless the method `acts_in_prompts`.
        """
        return []

    def kept_entries(self, factors: Mapping[str, Tensor]) -> tuple[int, int] | None:
        """How many entries of one layer's `dW` its mask keeps, and of how many; None without one.

        ``factors`` are what was kept of the layer.
        """
        return None

    def check_removable(self, kept: Sequence[Kept], concept: str) -> None:
        """ValueError, with the reason, where the concept's task cannot be taken out of `kept`.

        Unless a method says otherwise any task can go that holds no other concept: concepts learned
        in one task share its matrices.
        """
        task = kept[task_of(kept, concept)]
        if len(task.concepts) > 1 and task.tensors:
            others = ", ".join(f"<{other}>" for other in task.concepts if other != concept)
            raise ValueError(
                f"<{concept}> cannot be removed alone: it was learned in one task with {others} "
                "and shares its matrices"
            )

    def describe(self) -> dict[str, Any]:
        """JSON-ready; `build(description["method"], **description["config"])` makes it again."""
        return {"method": self.name, "config": self.config.to_json()}


def task_of(kept: Sequence[Kept], concept: str) -> int:
    """Index of the task that learned the concept; ValueError where none did."""
    for index, task in enumerate(kept):
        if concept in task.concepts:
            return index
    known = ", ".join(f"<{name}>" for task in kept for name in task.concepts)
    raise ValueError(f"there is no concept <{concept}>: there are {known or 'none yet'}")


def tasks_of(kept: Sequence[Kept], spoken: Sequence[str]) -> list[Kept]:
    """The tasks that learned these concepts, each once, in order; ValueError as `task_of`."""
    return [kept[index] for index in sorted({task_of(kept, concept) for concept in spoken})]


def checked_moments(method: str, shapes: Shapes, moments: Moments | None) -> dict[str, Tensor]:
    """Layer -> its C as an fp32 copy, one copy for layers that were given one tensor.

    ValueError where C is missing, does not fit a layer, or is not finite.
    """
    if moments is None:
        raise ValueError(
            f"{method} needs the moments C = mean of c c^T of the features that it should leave "
            "alone: pass moments="
        )
    copies: dict[int, Tensor] = {}
    for layer, (_, d_in) in shapes.items():
        given = moments.get(layer)
        if given is None:
            raise ValueError(f"{method}: there are no moments of the layer {layer!r}")
        if given.shape != (d_in, d_in):
            raise ValueError(
                f"{method}: the moments have the shape {tuple(given.shape)}, but the layer "
                f"{layer!r} needs {(d_in, d_in)}"
            )
        if id(given) not in copies:
            if not torch.isfinite(given).all():
                raise ValueError(f"{method}: the moments hold a number that is not finite")
            copies[id(given)] = given.detach().to("cpu", torch.float32, copy=True)
    return {layer: copies[id(moments[layer])] for layer in shapes}


def full_rank_deltas(shapes: Shapes) -> dict[str, FullRank]:
    """A `FullRank` of zeros for every layer."""
    if not shapes:
        raise ValueError("there is no target layer, so there is nothing to train")
    return {layer: FullRank(d_out, d_in) for layer, (d_out, d_in) in shapes.items()}


def low_rank_deltas(shapes: Shapes, rank: int, generator: torch.Generator) -> dict[str, LowRank]:
    """A fresh `LowRank` for every layer, drawn in the order of `shapes`."""
    if not shapes:
        raise ValueError("there is no target layer, so there is nothing to train")
    return {
        layer: LowRank(d_out, d_in, rank, generator=generator)
        for layer, (d_out, d_in) in shapes.items()
    }


def keep_factors(learner: Learner) -> dict[str, Tensor]:
    """Every delta's factors as `<layer>/<factor>`, copied to the CPU."""
    return {
        f"{layer}/{factor}": tensor.cpu()
        for layer, delta in learner.layer_deltas().items()
        for factor, tensor in delta.factors().items()
    }


def keep_encoded(encoded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `Kept.encoded` reads: concept -> (d,), as `encoded/<concept>`, copied to the CPU."""
    return {f"{_ENCODED}{name}": e.detach().float().cpu().clone() for name, e in encoded.items()}


def low_rank_pairs(kept: Sequence[Kept]) -> LowRankPairs:
    """Every task's `A_t`, `B_t` by layer."""
    pairs: LowRankPairs = {}
    for task in kept:
        for layer, factors in task.factors().items():
            pairs.setdefault(layer, []).append((factors["A"], factors["B"]))
    return pairs


def sum_low_rank(kept: Sequence[Kept]) -> Deltas:
    """`sum_t A_t B_t` by layer, fp32: one dense matrix a layer, however many tasks."""
    return {layer: low_rank_sum(of_layer) for layer, of_layer in low_rank_pairs(kept).items()}
