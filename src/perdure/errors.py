"""The one error that is meant for the user."""

__all__ = ["PerdureError"]


class PerdureError(Exception):
    """A sentence for the user: what is wrong, where, the mend. The CLI prints it and exits 2."""
