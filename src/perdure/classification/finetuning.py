"""FT and FT++: every linear layer and convolution of the backbone, trained on and on.

W_t = W_init + dW,   dW dense, continues from the task before

The baselines of CODA-Prompt (arXiv 2211.13218). FT's cross-entropy is over all classes seen, so
the rows of old classes are trained down; FT++ masks them.
"""

from dataclasses import dataclass
from typing import ClassVar

from perdure.methods.protocol import Method
from perdure.methods.sequential import SequentialFull
from perdure.settings import Count

__all__ = ["FineTuning", "MaskedFineTuning", "Replay"]


class FineTuning(SequentialFull):
    name = "ft"
    title = "FT: the whole backbone trained on and on, all classes seen competing"
    paper = "as a baseline in Smith et al., CVPR 2023, arXiv 2211.13218"
    targets = "all"
    masked: ClassVar[bool] = False
    """Does a task's cross-entropy leave the classes of earlier tasks out?"""


class MaskedFineTuning(FineTuning):
    name = "ft++"
    title = "FT++: the whole backbone trained on and on, old classes masked in the loss"
    masked: ClassVar[bool] = True


class Replay(FineTuning):
    """FT that keeps pictures and learns them again: a reference, not rehearsal-free."""

    name = "replay"
    title = "Replay (not rehearsal-free): FT with a few kept pictures of every earlier class"
    paper = "Chaudhry et al., 2019, arXiv 1902.10486 (ER); a reference that keeps pictures"

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        pictures: Count = 10
        """Pictures of every class that are kept; each batch has as many old as new ones."""

    config: Config
