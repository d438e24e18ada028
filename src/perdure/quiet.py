"""Loading a model without the libraries' own progress bars and reports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import diffusers.utils.logging as diffusers_logging
import transformers.utils.logging as transformers_logging

__all__ = ["quietly"]


@contextmanager
def quietly() -> Iterator[None]:
    """Within the block diffusers and transformers show no bar and only errors."""
    levels = diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()
    shown = transformers_logging.is_progress_bar_enabled()
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(levels[0])
        transformers_logging.set_verbosity(levels[1])
        diffusers_logging.enable_progress_bar()
        if shown:
            transformers_logging.enable_progress_bar()
