"""Numbers that the user gives: one sentence names what is out of its range, and the range."""

from __future__ import annotations

import math
from numbers import Integral, Real

from perdure.errors import PerdureError

__all__ = ["SEEDS", "check_number", "check_whole"]

SEEDS = 2**32 - 1
"""The greatest seed: torch's CPU generator reads 32 bits of one."""


def check_whole(name: str, value: object, least: int, most: int | None = None) -> None:
    """PerdureError unless ``value`` is a whole number from ``least`` to ``most``."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or int(value) < least or (most is not None and int(value) > most):  # type: ignore[call-overload]
        to = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise PerdureError(f"{name} is {value!r}, but must be a whole number {to}.")


def check_number(name: str, value: object, least: float) -> None:
    """PerdureError unless ``value`` is a finite number of at least ``least``."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not math.isfinite(float(value)) or float(value) < least:  # type: ignore[arg-type]
        raise PerdureError(
            f"{name} is {value!r}, but must be a finite number of at least {least:g}."
        )
