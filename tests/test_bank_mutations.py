"""Whatever befalls a bank.json: one sentence, or the same pictures; never a traceback or others."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from bank_mutations import mutations

from perdure.bank import Bank
from perdure.cli.banks import list_concepts, remove, show
from perdure.drawing.painter import Painter
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.learning.learn import learn

OPTIONS = {"gated": {}, "fl2t": {"width": 8, "heads": 2, "together_steps": 2}}
EVERY = 31
"""One mutation of so many is looked at, so that the test takes seconds."""
REMOVALS = ("tasks/0 gone", "tasks/1 gone", "tasks is []")
"""Without a checksum they leave what a removal leaves."""


@pytest.mark.parametrize("method", OPTIONS)
def test_a_mutated_bank_json_is_refused_or_draws_the_same(
    method: str, tiny: Path, drawings: Path, tmp_path: Path
) -> None:
    base, bank, broken = Base.open(tiny, device="cpu"), tmp_path / "bank", tmp_path / "broken"
    options = {"rank": 2, **OPTIONS[method]}
    for names in (("ada", "bo"), ("cy",)):
        sources = {name: drawings / name for name in names}
        learn(base, bank, sources, method=method, options=options, lr=0.1, steps=2)
    prompts = ("a photo of <ada> and <bo>", "<cy>", "a dog")
    prints = {prompt: Painter(base, bank).fingerprint(prompt) for prompt in prompts}
    text = (bank / "bank.json").read_text()
    for what, changed in [*mutations(text)][::3]:
        if not what.startswith("sha256"):  # without its checksum it is a bank from before
            (bank / "bank.json").write_text(changed)
            with pytest.raises(PerdureError):
                Bank.open(bank)
    content = json.loads(text)
    del content["sha256"]
    text = json.dumps(content, indent=2)
    (bank / "bank.json").write_text(text)
    refused, drawn = 0, 0
    befallen = [(what, changed) for what, changed in mutations(text) if what not in REMOVALS]
    for what, changed in befallen[::EVERY]:
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(bank, broken)
        (broken / "bank.json").write_text(changed)
        for look in (
            lambda: list_concepts(broken),
            lambda: show("ada", broken),
            *(partial(_assert_same, base, broken, p, prints[p], what) for p in prompts),
            lambda: remove("cy", broken),
        ):
            try:
                look()
                drawn += 1
            except PerdureError as error:
                assert "\n" not in str(error), what
                refused += 1
    assert refused > 40 and drawn > 40


def _assert_same(base: Base, bank: Path, prompt: str, mark: str, what: str) -> None:
    """All that decides a picture is what it was (`Painter.fingerprint`)."""
    assert Painter(base, bank).fingerprint(prompt) == mark, (what, prompt)
