"""Seeds from several numbers. torch's CPU generator reads the low 32 bits of a seed alone."""

import numpy as np
import torch

__all__ = ["generator_of", "seed_of"]


def seed_of(*numbers: int) -> int:
    """A seed of 32 bits that every one of ``numbers`` (each at least 0) changes."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def generator_of(*numbers: int) -> torch.Generator:
    """A CPU generator that starts from `seed_of(*numbers)`."""
    return torch.Generator().manual_seed(seed_of(*numbers))
