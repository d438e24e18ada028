"""Checks of options: a ValueError names the method, the option, its value and the mend."""

import math
from collections.abc import Sequence


def check_whole(method: str, option: str, value: object, least: int) -> None:
    """ValueError unless `value` is an int of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(
            f"{method}: {option} is {value!r}, but must be a whole number of at least {least}"
        )


def check_number(method: str, option: str, value: object, least: float) -> None:
    """ValueError unless `value` is a finite number of at least `least`."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < least:  # type: ignore[arg-type,operator]
        raise ValueError(
            f"{method}: {option} is {value!r}, but must be a finite number of at least {least:g}"
        )


def check_flag(method: str, option: str, value: object) -> None:
    """ValueError unless `value` is true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{method}: {option} is {value!r}, but must be true or false")


def check_form(method: str, option: str, value: object, forms: Sequence[str]) -> None:
    """ValueError unless `value` is one of the named forms."""
    if value not in forms:
        raise ValueError(
            f"{method}: {option} is {value!r}, but must be {' or '.join(map(repr, forms))}"
        )
