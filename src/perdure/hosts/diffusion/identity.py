"""What tells one base from another."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BaseIdentity"]


@dataclass(frozen=True, kw_only=True)
class BaseIdentity:
    """A base by name and by the hash of the weights that matter to what is learned on it."""

    name: str
    hash: str

    def __str__(self) -> str:
        return f"{self.name} (weights {self.hash[:16]})"
