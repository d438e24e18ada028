"""Names in training captions: what they are made from, and where they stand."""

import numpy as np
import torch
from torch import nn

from perdure.smallworld import world
from perdure.smallworld.captions import tokens
from perdure.smallworld.identities import identity
from perdure.smallworld.train.names import NAMES, Names, code_of, code_width
from perdure.smallworld.vocabulary import DOMAINS


def test_a_code_holds_the_parameters_of_its_domain_alone() -> None:
    codes = {
        domain: np.stack([code_of(identity(domain, seed)) for seed in range(400)])
        for domain in DOMAINS
    }
    used = {domain: (code != 0).any(0) for domain, code in codes.items()}
    assert sum(part.astype(int) for part in used.values()).max() == 1
    for domain, code in codes.items():
        assert code.shape == (400, code_width()) and np.isfinite(code).all()
        own = code[:, used[domain]][:, 1:]  # the first number says the domain
        assert np.abs(own.mean(0)).max() < 0.25 and np.abs(own.std(0) - 1).max() < 0.4
        assert len(np.unique(code.round(4), axis=0)) == 400


def test_a_colour_is_three_numbers_and_a_kind_one_for_each_name() -> None:
    one, other = identity("person", 3), identity("person", 4)
    changed = dict(one.parameters) | {"skin": other.parameters["skin"]}
    copy = identity("person", 3)
    copy.__dict__["parameters"] = changed  # a cached property
    assert 1 <= (code_of(one) != code_of(copy)).sum() <= 3
    copy.__dict__["parameters"] = dict(one.parameters) | {"beard": "full"}
    assert (code_of(one) != code_of(copy)).sum() == (2 if one.parameters["beard"] != "full" else 0)


def test_a_name_takes_the_subjects_place_in_a_caption() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        scene = world.sample(rng)
        text = world.caption(scene.identities, scene.context, rng, names=NAMES)
        assert [token for token in tokens(text) if token in NAMES] == list(
            NAMES[: len(scene.identities)]
        )
        assert not set(tokens(text)) & {"person", "cat", "dog", "hair", "eyes", "shirt"}


def test_names_change_the_states_of_their_own_places_alone() -> None:
    torch.manual_seed(0)
    norm = nn.LayerNorm(6)
    names = Names(6, norm, (7, 9))
    states = torch.randn(2, 4, 6)
    ids = torch.tensor([[1, 7, 2, 9], [1, 9, 7, 3]])
    codes = torch.randn(2, 2, code_width())
    out = names(states, ids, codes)
    assert torch.equal(out[:, 0], states[:, 0])
    assert torch.equal(out[0, 2], states[0, 2]) and torch.equal(out[1, 3], states[1, 3])
    made = nn.functional.layer_norm(names.read(codes), (6,), norm.weight, norm.bias)
    for (n, p), place in {(0, 1): 0, (0, 3): 1, (1, 2): 0, (1, 1): 1}.items():
        torch.testing.assert_close(out[n, p], made[n, place])
    assert norm.weight not in set(names.parameters())
