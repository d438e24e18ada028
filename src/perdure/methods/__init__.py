"""Continual-learning methods: one file, one paper."""

from perdure.methods.protocol import Deltas, Kept, Learner, Method, Shapes, config_to_json
from perdure.methods.registry import METHODS, build

__all__ = [
    "METHODS",
    "Deltas",
    "Kept",
    "Learner",
    "Method",
    "Shapes",
    "build",
    "config_to_json",
]
