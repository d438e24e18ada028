"""A bank on the hub: what it is drawn from, pictures of its concepts, and a card that says so."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download

from perdure.bank import BANK_FILES, Bank
from perdure.drawing.painter import Painter
from perdure.errors import PerdureError
from perdure.exchange.card import CARD_MARK, card
from perdure.exchange.settings import PushSettings
from perdure.hosts.diffusion.host import Base
from perdure.hub import refusing, spelt
from perdure.untrusted import read_json

__all__ = ["push"]

MOST = 20
"""Concepts that are drawn for the card."""
_SIDE = "samples"
_OF_HUB = {".gitattributes", "README.md"}
"""What a repository may have that holds nothing yet."""


def push(
    base: Base,
    bank: Bank | Path | str,
    repository: str,
    *,
    note: Callable[[str], None] = lambda sentence: None,
    **settings: Any,
) -> str:
    """Send a bank to the hub, with a model card; returns the address.

    Logs and previews stay here. A repository that is there must hold this bank as it was, or
    nothing; a card that was not written by this is left as it is.

    Args:
        base: the bank's base, which draws the card's pictures.
        bank: what was learned.
        repository: `user/name`, with or without `hf://`; made where it is missing.
        note: told sentences for the user.
        **settings: fields of `PushSettings`.

    Raises PerdureError where consent or licence are not told, another thing lies there, or the hub
    cannot be reached.
    """
    chosen = PushSettings.of(settings)
    bank = bank if isinstance(bank, Bank) else Bank.open(bank)
    bank.check_base(base.identity)
    if not bank.concepts:
        raise PerdureError(f"The bank {bank.path} has no concept yet: learn one first.")
    if not chosen.consent:
        raise PerdureError(
            "Whose pictures taught these concepts, and who agreed that they are published? Say so "
            "with --consent, such as --consent 'My own dog.'"
        )
    licence = chosen.licence or ("apache-2.0" if base.name == "smallworld" else "")
    if not licence:
        raise PerdureError(
            f"The licence of {base.name} binds what is learned on it: name it with --licence, such "
            "as --licence creativeml-openrail-m."
        )
    name = spelt(repository if repository.startswith("hf:") else f"hf://{repository}")
    assert name is not None
    api = HfApi()
    with refusing(str(name)):
        there = name.repository if api.repo_exists(name.repository) else None
        files = set(api.list_repo_files(there)) if there else set()
        _check_ours(bank, name.repository, files)
        own_card = _is_ours(name.repository) if "README.md" in files else True
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        _stage(bank, folder)
        drawn = _draw(base, bank, folder / _SIDE)
        if own_card:
            (folder / "README.md").write_text(
                card(bank, name.repository, licence=licence, consent=chosen.consent, drawn=drawn),
                encoding="utf-8",
            )
        else:
            note("The card there was not written by perdure, so it is left as it is.")
        with refusing(str(name)):
            api.create_repo(name.repository, private=not chosen.public, exist_ok=True)
            address = api.upload_folder(
                repo_id=name.repository,
                folder_path=folder,
                commit_message=f"{len(bank.concepts)} concepts, learned with {bank.method}",
                delete_patterns=[*BANK_FILES, f"{_SIDE}/*"],
            )
    return str(getattr(address, "repo_url", address))


def _check_ours(bank: Bank, repository: str, files: set[str]) -> None:
    """PerdureError where something else lies there than this bank as it was."""
    if not files - _OF_HUB:
        return
    if "bank.json" not in files:
        raise PerdureError(f"{repository} holds other files already: choose another name.")
    there = read_json(Path(hf_hub_download(repository, "bank.json")))
    own = (bank.base.hash, bank.method)
    if (there.get("base", {}).get("hash"), there.get("method")) != own:
        raise PerdureError(
            f"{repository} holds another bank, of {there.get('method')} on "
            f"{there.get('base', {}).get('name')}: choose another name."
        )


def _is_ours(repository: str) -> bool:
    text = Path(hf_hub_download(repository, "README.md")).read_text(encoding="utf-8")
    # a new repository has a card of metadata alone
    return CARD_MARK in text or not text.rpartition("---")[2].strip()


def _stage(bank: Bank, folder: Path) -> None:
    """What bank.json lists, verified, and no more; PerdureError where it changes meanwhile."""
    before = bank.fingerprint
    for concept in bank.concepts:
        bank.metadata(concept)
    bank.composition()
    for file in [*bank.listed(), bank.path / "bank.json"]:
        target = folder / file.relative_to(bank.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    bank.reload()
    if bank.fingerprint != before:
        raise PerdureError(f"The bank {bank.path} has changed meanwhile: push it again.")


def _draw(base: Base, bank: Bank, folder: Path) -> dict[str, str]:
    """Concept -> its picture's name in the repository."""
    names = bank.concepts[:MOST]
    pictures = Painter(base, bank).draw([f"a photo of <{name}>" for name in names])
    folder.mkdir()
    for name, picture in zip(names, pictures, strict=True):
        picture.save(folder / f"{name}.png")
    return {name: f"{_SIDE}/{name}.png" for name in names}
