"""The one error that is meant for the user."""

__all__ = ["PerdureError"]


class PerdureError(Exception):
    """A sentence for the user: what is wrong, where, the mend. The CLI prints it and exits 2.

    It is one line, whatever names and texts stand in it: what a terminal would obey is escaped.
    """

    def __init__(self, sentence: str) -> None:
        shown = (
            c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(sentence)
        )
        super().__init__("".join(shown))
