"""Teach one text-to-image model concept after concept; it keeps them all.

The public names are imported when they are first used, so that `perdure list` need not wait for
torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perdure.bank import Bank
    from perdure.drawing.painter import Painter, draw
    from perdure.errors import PerdureError
    from perdure.hosts.diffusion.host import Base
    from perdure.learning.learn import learn, resume
    from perdure.learning.many import learn_many, resume_many
    from perdure.learning.settings import LearnSettings
    from perdure.measuring.evaluate import evaluate
    from perdure.measuring.features import MetricEncoder
    from perdure.methods import METHODS

__all__ = [
    "METHODS",
    "Bank",
    "Base",
    "LearnSettings",
    "MetricEncoder",
    "Painter",
    "PerdureError",
    "draw",
    "evaluate",
    "learn",
    "learn_many",
    "resume",
    "resume_many",
]

_HOMES = {
    "METHODS": "perdure.methods",
    "Bank": "perdure.bank",
    "Base": "perdure.hosts.diffusion.host",
    "LearnSettings": "perdure.learning.settings",
    "MetricEncoder": "perdure.measuring.features",
    "Painter": "perdure.drawing.painter",
    "PerdureError": "perdure.errors",
    "draw": "perdure.drawing.painter",
    "evaluate": "perdure.measuring.evaluate",
    "learn": "perdure.learning.learn",
    "learn_many": "perdure.learning.many",
    "resume": "perdure.learning.learn",
    "resume_many": "perdure.learning.many",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'perdure' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
