"""Every number counts in a seed, also beyond 32 bits, which torch's CPU generator would drop."""

import itertools

import torch

from perdure.randomness import generator_of, seed_of


def test_torch_drops_what_is_above_32_bits_and_seed_of_does_not() -> None:
    one, other = (torch.rand(3, generator=generator_of(seed, 7)) for seed in (0, 1))
    assert not torch.equal(one, other)
    low = torch.rand(3, generator=torch.Generator().manual_seed(7))
    high = torch.rand(3, generator=torch.Generator().manual_seed((5 << 32) + 7))
    assert torch.equal(low, high)  # the trap; once torch reads all 64 bits, this file can go


def test_seeds_differ_for_every_seed_and_step_and_are_always_the_same() -> None:
    pairs = list(itertools.product(range(50), range(50)))
    assert len({seed_of(*pair) for pair in pairs}) == len(pairs)
    assert seed_of(3, 4) == seed_of(3, 4)
    assert all(0 <= seed_of(*pair) < 2**32 for pair in pairs)
