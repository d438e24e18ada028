"""Continual-learning methods: one file, one paper."""

from perdure.methods.composed import Composed
from perdure.methods.protocol import Deltas, Kept, Learner, Method, Shapes
from perdure.methods.registry import DEFAULT, METHODS, build

__all__ = [
    "DEFAULT",
    "METHODS",
    "Deltas",
    "Kept",
    "Learner",
    "Method",
    "Shapes",
    "Composed",
    "build",
]
