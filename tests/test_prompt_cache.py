"""Encoded prompts on disk: found again, and never taken for another's."""

from __future__ import annotations

from pathlib import Path

import torch

from perdure.hosts.diffusion.conditioning import Encoded
from perdure.hosts.diffusion.prompt_cache import PromptCache


def encoded() -> Encoded:
    states = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    return Encoded(states=states, beside={"mask": torch.tensor([[1, 1, 1, 0, 0]])})


def test_a_prompt_is_found_as_it_was_put(tmp_path: Path) -> None:
    PromptCache(tmp_path, base="one", write=True).put("a dog", encoded())
    found = PromptCache(tmp_path, base="one").get("a dog")
    assert found is not None
    assert torch.equal(found.states, encoded().states)
    assert torch.equal(found.beside["mask"], encoded().beside["mask"])


def test_another_prompt_or_base_is_not_found(tmp_path: Path) -> None:
    PromptCache(tmp_path, base="one", write=True).put("a dog", encoded())
    assert PromptCache(tmp_path, base="one").get("a cat") is None
    assert PromptCache(tmp_path, base="two").get("a dog") is None
    assert PromptCache(tmp_path / "nowhere", base="one").get("a dog") is None


def test_a_broken_file_and_one_under_anothers_name_are_none(tmp_path: Path) -> None:
    cache = PromptCache(tmp_path, base="one", write=True)
    cache.put("a dog", encoded())
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    cache.put("a cat", encoded())
    (other,) = set(tmp_path.iterdir()) - {file}
    other.write_bytes(whole)
    assert cache.get("a cat") is None
    file.write_bytes(whole[: len(whole) // 2])
    assert cache.get("a dog") is None


def test_nothing_is_written_unless_asked(tmp_path: Path) -> None:
    PromptCache(tmp_path / "new", base="one").put("a dog", encoded())
    assert not (tmp_path / "new").exists()
