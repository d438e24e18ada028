"""Libraries and models loaded without the libraries' own progress bars, reports and advice."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import diffusers.utils.logging as diffusers_logging
import transformers.utils.logging as transformers_logging

__all__ = ["StableDiffusion3Pipeline", "StableDiffusionPipeline", "quietly"]

_LIBRARIES = (diffusers_logging, transformers_logging)


# Norms of fp32 under bf16 autocast are as they should be; torch's faster kernel alone is not used.
warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")


@contextmanager
def quietly() -> Iterator[None]:
    """Within the block diffusers and transformers show no bar and only errors; then as before."""
    before = [(one, one.get_verbosity(), one.is_progress_bar_enabled()) for one in _LIBRARIES]
    for library in _LIBRARIES:
        library.disable_progress_bar()
        library.set_verbosity_error()
    try:
        yield
    finally:
        for library, level, shown in before:
            library.set_verbosity(level)
            if shown:
                library.enable_progress_bar()


with quietly():  # transformers says so where torchvision is missing, which is no fault here
    from diffusers import StableDiffusion3Pipeline, StableDiffusionPipeline
