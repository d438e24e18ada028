"""Banks and bases on the hub, by a stand-in of its API that keeps repositories in folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import diffusers
import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import perdure
from perdure import hub
from perdure.errors import PerdureError
from perdure.exchange import push as pushing
from perdure.hosts.diffusion import opening
from perdure.measuring.matrix import TaskMatrix

ASKED = {"consent": "My own dog.", "licence": "openrail"}


class Hub:
    """Repositories in folders; calls are held to the real signatures."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.private: dict[str, bool] = {}
        self.calls: list[str] = []

    def files(self, repository: str) -> list[str]:
        home = self.folder / repository
        return [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]

    def api(self) -> Any:
        api = create_autospec(huggingface_hub.HfApi, instance=True)
        api.repo_exists.side_effect = lambda name: (self.folder / name).is_dir()
        api.list_repo_files.side_effect = self.files
        api.create_repo.side_effect = self.create
        api.upload_folder.side_effect = self.upload
        return api

    def create(self, name: str, *, private: bool, exist_ok: bool) -> None:
        if not (self.folder / name).is_dir():
            self.private[name] = private
        (self.folder / name).mkdir(parents=True, exist_ok=exist_ok)

    def upload(
        self, *, repo_id: str, folder_path: Path, commit_message: str, delete_patterns: list[str]
    ) -> Any:
        self.calls.append(commit_message)
        for name in self.files(repo_id):
            if any(fnmatch(name, pattern) for pattern in delete_patterns):
                (self.folder / repo_id / name).unlink()
        shutil.copytree(folder_path, self.folder / repo_id, dirs_exist_ok=True)
        return SimpleNamespace(repo_url=f"hub/{repo_id}")

    def snapshot(self, repo_id: str, *, revision: str | None, allow_patterns: Sequence[str]) -> str:
        if not (self.folder / repo_id).is_dir():
            raise huggingface_hub.errors.LocalEntryNotFoundError("there is no such repository")
        cache = self.folder / "cache" / repo_id / (revision or "main")
        for name in self.files(repo_id):
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                (cache / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.folder / repo_id / name, cache / name)
        cache.mkdir(parents=True, exist_ok=True)
        return str(cache)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    torch.set_num_threads(1)
    stand_in = Hub(tmp_path / "hub")
    monkeypatch.setattr(pushing, "HfApi", stand_in.api)
    one = create_autospec(huggingface_hub.hf_hub_download)
    one.side_effect = lambda repository, name: str(stand_in.folder / repository / name)
    monkeypatch.setattr(pushing, "hf_hub_download", one)
    whole = create_autospec(huggingface_hub.snapshot_download, side_effect=stand_in.snapshot)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", whole)
    return stand_in


@pytest.fixture(scope="module")
def base(tiny: Path) -> perdure.Base:
    return perdure.Base.open(tiny, device="cpu")


@pytest.fixture(scope="module")
def learned(base: perdure.Base, drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bank = tmp_path_factory.mktemp("learned") / "pets"
    for name in ("ada", "bo"):
        perdure.learn(base, bank, {name: drawings / name}, options={"rank": 2}, steps=2)
    return bank


@pytest.fixture
def bank(learned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(learned, tmp_path / "pets"))


def test_a_bank_is_sent_with_a_card_and_drawn_from_by_its_name_on_the_hub(
    base: perdure.Base, bank: Path, there: Hub
) -> None:
    matrix = TaskMatrix(tasks=(("ada",), ("bo",)), scores={"identity": ((0.5, None), (0.25, 0.75))})
    matrix.save(bank / "evaluation" / "matrix.json")
    assert perdure.push(base, bank, "ada/pets", **ASKED) == "hub/ada/pets"
    assert there.private == {"ada/pets": True}
    assert sorted(there.files("ada/pets")) == [
        "README.md",
        "bank.json",
        "concepts/ada/concept.safetensors",
        "concepts/bo/concept.safetensors",
        "samples/ada.png",
        "samples/bo.png",
    ]
    text = (there.folder / "ada/pets/README.md").read_text()
    about = huggingface_hub.ModelCard(text).data.to_dict()
    assert about["license"] == "openrail" and about["library_name"] == "perdure"
    assert "perdure" in about["tags"] and "gated" in about["tags"]
    for said in (
        "`<ada>` | 3 pictures, 2 steps | ![ada](samples/ada.png)",
        "My own dog.",
        "--bank hf://ada/pets",
        base.identity.hash[:16],
        "| ada | 0.250 |",
    ):
        assert said in text
    size = Image.open(there.folder / "ada/pets/samples/ada.png").size
    assert size == base.size

    prompt = "a photo of <ada>"
    far = perdure.draw(base, "hf://ada/pets", prompt, seeds=3, steps=2)[0]
    near = perdure.draw(base, bank, prompt, seeds=3, steps=2)[0]
    assert np.array_equal(np.asarray(far), np.asarray(near))
    assert [one.concept for one in perdure.list("hf://ada/pets@v1")] == ["ada", "bo"]
    assert perdure.show(Path("hf://ada/pets"), "bo")["concept"] == "bo"  # a path has one slash less


def test_what_is_forgotten_leaves_the_hub_and_a_card_that_people_wrote_stays(
    base: perdure.Base, bank: Path, there: Hub
) -> None:
    perdure.push(base, bank, "ada/pets", public=True, **ASKED)
    assert there.private == {"ada/pets": False}
    perdure.remove(bank, "ada")
    mine = "---\nlicense: mit\n---\n\nWritten by hand.\n"
    (there.folder / "ada/pets/README.md").write_text(mine)
    notes: list[str] = []
    perdure.push(base, bank, "hf://ada/pets", note=notes.append, **ASKED)
    assert not [name for name in there.files("ada/pets") if "ada" in name]
    assert (there.folder / "ada/pets/README.md").read_text() == mine
    assert notes == ["The card there was not written by perdure, so it is left as it is."]
    assert there.calls == ["2 concepts, learned with gated", "1 concepts, learned with gated"]


def test_what_lies_there_already_is_not_touched(base: perdure.Base, bank: Path, there: Hub) -> None:
    other = there.folder / "ada" / "model"
    other.mkdir(parents=True)
    (other / "model.safetensors").write_bytes(b"x")
    with pytest.raises(PerdureError, match="holds other files already"):
        perdure.push(base, bank, "ada/model", **ASKED)
    content = json.loads((bank / "bank.json").read_text())
    (other / "bank.json").write_text(json.dumps({**content, "method": "c-lora"}))
    with pytest.raises(PerdureError, match="holds another bank, of c-lora"):
        perdure.push(base, bank, "ada/model", **ASKED)
    assert there.calls == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"licence": "openrail"}, "who agreed that they are published"),
        ({"consent": "Mine."}, "The licence of tiny binds what is learned on it"),
        ({**ASKED, "repository": "pets"}, "is no name on the hub"),
    ],
)
def test_a_push_without_consent_licence_or_name_is_refused_before_the_hub_is_asked(
    asked: dict[str, str], said: str, base: perdure.Base, bank: Path, there: Hub
) -> None:
    given = dict(asked)
    with pytest.raises(PerdureError, match=said):
        perdure.push(base, bank, given.pop("repository", "ada/pets"), **given)
    assert not there.folder.exists()


def test_a_bank_on_the_hub_is_only_read(
    base: perdure.Base,
    bank: Path,
    there: Hub,
    drawings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    perdure.push(base, bank, "ada/pets", **ASKED)
    for name in ("hf://ada/pets", Path("hf://ada/pets")):
        with pytest.raises(PerdureError, match="a bank on the hub, which is only read"):
            perdure.learn(base, name, {"cy": drawings / "cy"}, steps=1)
        with pytest.raises(PerdureError, match="which is only read"):
            perdure.remove(name, "ada")
    assert not list(tmp_path.glob("hf*"))
    perdure.export(base, "hf://ada/pets", tmp_path / "out", format="kohya", check=False)
    assert load_file(tmp_path / "out" / "ada" / "ada.safetensors")


def test_what_the_hub_does_not_have_is_one_sentence(there: Hub) -> None:
    with pytest.raises(PerdureError, match="hf://ada/none cannot be reached on the hub"):
        perdure.Bank.open("hf://ada/none")
    (there.folder / "ada" / "empty").mkdir(parents=True)
    with pytest.raises(PerdureError, match="hf://ada/empty holds no bank"):
        perdure.Bank.open("hf://ada/empty")
    with pytest.raises(PerdureError, match="is no name on the hub"):
        perdure.Bank.open("hf://ada")


def test_a_base_by_its_name_on_the_hub_is_never_a_folder(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ada" / "base").mkdir(parents=True)
    asked: list[Any] = []

    def download(name: str, *, variant: Any, revision: Any, use_safetensors: bool) -> str:
        asked.append((name, revision))
        return str(tiny)

    pipeline = create_autospec(diffusers.DiffusionPipeline)
    pipeline.load_config.return_value = {"_class_name": "StableDiffusionPipeline"}
    pipeline.download.side_effect = download
    monkeypatch.setattr(opening, "DiffusionPipeline", pipeline)
    opened = perdure.Base.open("hf://ada/base@v2", device="cpu")
    assert asked == [("ada/base", "v2")]
    assert opened.name == "ada/base"
    assert hub.spelt("ada/base") is None
