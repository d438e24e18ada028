"""`--steps auto`: at a constant rate until the concept is learned, then down to rest.

What is watched is the loss of the concept's pictures at noises and times that stay the same and
that no step learns from: the loss of a step tells nothing, since its times decide it (Voronov et
al. 2023, arXiv 2302.04841, who stop textual inversion by it). Of three pictures none can be spared,
so what is held out are the noises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["MOST", "Plateau"]

MOST = 4000
"""Steps at most."""
_FIRST = 10
"""Steps before the first look; the next ones come after a tenth of what was made by then."""
_LATE = 0.5
"""The share of the steps so far, the latest of them, that is asked what it has brought."""
_LITTLE = 0.1
"""Of all that was won over the base: less than this in the late steps is the end."""
_REST = 0.25
"""Steps of the rate's way down to zero, as a share of those before."""
_LATEST = int(MOST / (1 + _REST))


class Plateau:
    """Watches ``measure``, lower is better, and says when a run ends.

    It depends on what was measured alone, so a run that is gone on with decides as one that was
    never cut short.
    """

    def __init__(self, measure: Callable[[], float]) -> None:
        self._measure = measure
        self.seen: list[tuple[int, float]] = []
        """(steps made, measure), of the base first."""
        self.turn: int | None = None
        """After how many steps the rate goes down; None while that is not known."""

    @property
    def steps(self) -> int:
        """In all, at most where it is not known yet."""
        return MOST if self.turn is None else self.turn + max(1, round(_REST * self.turn))

    @property
    def known(self) -> bool:
        """Is the end known?"""
        return self.turn is not None

    def share_of_rate(self, step: int) -> float:
        """What the rates are multiplied by at a step, counted from 0; in (0, 1]."""
        if self.turn is None or step < self.turn:
            return 1.0
        return (self.steps - step) / (self.steps - self.turn + 1)

    def after(self, made: int) -> None:
        """Look, where it is time to."""
        if self.turn is not None or (self.seen and made < self._next):
            return
        self.seen.append((made, self._measure()))
        if ended(self.seen) or made >= _LATEST:
            self.turn = made

    @property
    def _next(self) -> int:
        last = self.seen[-1][0]
        return min(max(_FIRST, last + 5, round(1.1 * last)), _LATEST)

    def state(self) -> dict[str, Any]:
        """JSON-ready; `restore` takes it."""
        return {"seen": self.seen, "turn": self.turn}

    def restore(self, state: Any) -> None:
        """Go on from what `state` told; ValueError, TypeError or KeyError where it is none."""
        self.seen = [(int(made), float(value)) for made, value in state["seen"]]
        self.turn = None if state["turn"] is None else int(state["turn"])


def ended(seen: Sequence[tuple[int, float]]) -> bool:
    """Have the late steps brought less than a tenth of all that was won?

    >>> ended([(0, 1.0), (10, 0.5), (15, 0.4), (20, 0.3)])
    False
    >>> ended([(0, 1.0), (10, 0.5), (15, 0.5), (20, 0.48)])
    True
    """
    made = seen[-1][0]
    early = [value for step, value in seen if step <= (1 - _LATE) * made]
    late = [value for step, value in seen if step > (1 - _LATE) * made]
    if made < 2 * _FIRST or not early or not late:
        return False
    won = seen[0][1] - min(value for _, value in seen)
    return min(early) - min(late) < _LITTLE * won if won > 0 else True
