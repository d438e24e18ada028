"""Teach one text-to-image model concept after concept; it keeps them all.

The public names are imported when they are first used, so that `perdure list` need not wait for
all of torch.
"""

import builtins
import logging
from typing import TYPE_CHECKING

from perdure.lazily import lazily

if TYPE_CHECKING:
    from perdure.bank import Bank
    from perdure.bank_listing import list_concepts as list
    from perdure.bank_listing import show
    from perdure.drawing.again import draw_like
    from perdure.drawing.attach import attach
    from perdure.drawing.facts import facts_of, read_facts, save_picture
    from perdure.drawing.modular import ConceptsStep
    from perdure.drawing.painter import Painter, draw
    from perdure.drawing.settings import DrawSettings
    from perdure.errors import PerdureError
    from perdure.exchange.adopt import adopt
    from perdure.exchange.export import export
    from perdure.exchange.push import push
    from perdure.exchange.settings import ExportSettings, PushSettings
    from perdure.hosts.diffusion.host import Base
    from perdure.learning.learn import learn, resume
    from perdure.learning.many import learn_many, resume_many
    from perdure.learning.removal import remove
    from perdure.learning.settings import LearnSettings
    from perdure.learning.weighted import Source
    from perdure.measuring.evaluate import evaluate
    from perdure.measuring.features import MetricEncoder
    from perdure.measuring.settings import EvaluateSettings
    from perdure.methods import METHODS
    from perdure.suggestions import suggest

# Where torchao is installed, diffusers imports it, and all three talk to everyone.
for _talks in ("torchao", "torch.utils._pytree", "diffusers.quantizers.torchao"):
    logging.getLogger(_talks).setLevel(logging.ERROR)

__all__ = [
    "METHODS",
    "Bank",
    "Base",
    "ConceptsStep",
    "DrawSettings",
    "EvaluateSettings",
    "ExportSettings",
    "LearnSettings",
    "MetricEncoder",
    "Painter",
    "PerdureError",
    "attach",
    "PushSettings",
    "Source",
    "adopt",
    "draw",
    "draw_like",
    "evaluate",
    "export",
    "facts_of",
    "learn",
    "learn_many",
    "list",
    "push",
    "read_facts",
    "remove",
    "resume",
    "resume_many",
    "save_picture",
    "show",
    "suggest",
]

__getattr__ = lazily(
    __name__,
    {
        "METHODS": "perdure.methods",
        "Bank": "perdure.bank",
        "Base": "perdure.hosts.diffusion.host",
        "ConceptsStep": "perdure.drawing.modular",
        "DrawSettings": "perdure.drawing.settings",
        "EvaluateSettings": "perdure.measuring.settings",
        "LearnSettings": "perdure.learning.settings",
        "ExportSettings": "perdure.exchange.settings",
        "MetricEncoder": "perdure.measuring.features",
        "Painter": "perdure.drawing.painter",
        "PerdureError": "perdure.errors",
        "attach": "perdure.drawing.attach",
        "PushSettings": "perdure.exchange.settings",
        "Source": "perdure.learning.weighted",
        "adopt": "perdure.exchange.adopt",
        "draw": "perdure.drawing.painter",
        "evaluate": "perdure.measuring.evaluate",
        "export": "perdure.exchange.export",
        "draw_like": "perdure.drawing.again",
        "facts_of": "perdure.drawing.facts",
        "read_facts": "perdure.drawing.facts",
        "save_picture": "perdure.drawing.facts",
        "learn": "perdure.learning.learn",
        "learn_many": "perdure.learning.many",
        "list": "perdure.bank_listing:list_concepts",
        "push": "perdure.exchange.push",
        "remove": "perdure.learning.removal",
        "resume": "perdure.learning.learn",
        "resume_many": "perdure.learning.many",
        "show": "perdure.bank_listing",
        "suggest": "perdure.suggestions",
    },
)


def __dir__() -> "builtins.list[str]":
    return __all__
