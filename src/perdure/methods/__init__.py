"""Continual-learning methods: one file, one paper."""

from perdure.methods.protocol import Deltas, Kept, Learner, Method, Shapes
from perdure.methods.registry import DEFAULT, METHODS, build
from perdure.methods.together import Together

__all__ = [
    "DEFAULT",
    "METHODS",
    "Deltas",
    "Kept",
    "Learner",
    "Method",
    "Shapes",
    "Together",
    "build",
]
