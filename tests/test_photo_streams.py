"""Streams of photographs: every layout on small trees, and what a broken tree is told."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import PHOTOS
from PIL import Image
from typer.testing import CliRunner

from perdure.benchmarks.grid import cells_of
from perdure.benchmarks.photos import LAYOUTS, photographed
from perdure.benchmarks.records import read_records
from perdure.benchmarks.runner import finish
from perdure.benchmarks.runs import run
from perdure.cli import app
from perdure.cli.bench import _stream
from perdure.errors import PerdureError


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "green").save(path)


def folders(root: Path) -> None:
    for name, count in (("rex", 3), ("bo_2", 17), (".thumbs", 1)):
        for k in range(count):
            picture(root / name / f"{k:02d}.png")
    (root / "rex" / "notes.txt").write_text("not a picture")
    (root / "concepts.json").write_text('{"rex": "dog"}')


def cifc(root: Path) -> None:
    images = root / "datasets" / "images"
    for name in ("backpack", "cat", "cat2", "dog", "dog2", "drawing", "duck_toy"):
        for k in range(4):
            picture(images / name / f"0{k}.jpg")
    for name in ("ink_painting", "painting", "teddybear"):
        for k in range(5):
            picture(images / name / f"0{k}.jpg")


def celeba(root: Path) -> None:
    """Identities 1 to 12; 3 has 17 pictures, 9 has 14, the others 15; numbered the wrong way."""
    owners = [who for who in range(12, 0, -1) for _ in range({3: 17, 9: 14}.get(who, 15))]
    people, mapping = [], ["idx     orig_idx    orig_file   "]
    for k, who in enumerate(owners):
        original = f"{k + 5:06d}.jpg"
        people.append(f"{original} {who}")
        mapping.append(f"{k:<8}{k + 4:<12}{original}   ")
        picture(root / "CelebA-HQ-img" / f"{k}.jpg")
    (root / "identity_CelebA.txt").write_text("\n".join(people) + "\n000001.jpg 77\n")
    (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(mapping) + "\n")


def landmarks(root: Path) -> None:
    """Waterfalls 96 to 106, 15 pictures each and 16 of 106, and a church with twenty."""
    kinds = ["landmark_id,category,supercategory,hierarchical_label,natural_or_human_made"]
    kinds += [f'{k},"http://c.org/Category:Fall,_{k}",Fall,waterfall,natural' for k in (96, 97)]
    kinds += [f"{k},http://c.org/Category:{k},Waterfall,river,natural" for k in range(98, 107)]
    kinds += ["7,http://c.org/Category:Church,Church,church,human-made"]
    rows = ["id,url,landmark_id"]
    for landmark, count in {7: 20, **{k: 15 for k in range(96, 106)}, 106: 16}.items():
        for k in reversed(range(count)):
            name = f"{landmark:03d}{k:013x}"
            rows.append(f'{name},"http://upload.org/a,b.jpg",{landmark}')
            if landmark != 7:
                picture(root / "train" / name[0] / name[1] / name[2] / f"{name}.jpg")
    (root / "train_label_to_hierarchical.csv").write_text("\n".join(kinds) + "\n")
    (root / "train.csv").write_text("\n".join(rows) + "\n")


def custom101(root: Path) -> None:
    entries = [("scene_barn", "barn"), ("transport_car10", "car"), ("transport_car2", "car")]
    for name, _ in entries:
        for k in range(3):
            picture(root / "benchmark_dataset" / name / f"{k}.jpeg")
    (root / "dataset.json").write_text(
        json.dumps(
            [
                {
                    "instance_prompt": f"photo of a <new1> {noun}",
                    "class_prompt": noun,
                    "instance_data_dir": f"./benchmark_dataset/{name}",
                }
                for name, noun in entries
            ]
        )
    )


TREES: dict[str, Callable[[Path], None]] = {
    "folders": folders,
    "cifc": cifc,
    "celeba-hq": celeba,
    "landmarks-v2": landmarks,
    "custom-concept-101": custom101,
}


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[str], Path]:
    def make(layout: str) -> Path:
        root = tmp_path / layout
        root.mkdir()
        TREES[layout](root)
        return root

    return make


def test_every_layout_has_a_tree_here() -> None:
    assert set(TREES) == set(LAYOUTS)


@pytest.mark.parametrize("layout", TREES)
def test_a_stream_is_the_same_each_time_and_copies_nothing(
    layout: str, tree: Callable[[str], Path], tmp_path: Path
) -> None:
    root = tree(layout)
    stream = photographed(layout, root)
    assert stream == photographed(layout, root) and json.dumps(stream.to_json())
    sources = stream.sources(tmp_path / "copies")
    assert not (tmp_path / "copies").exists()
    for one in stream.concepts:
        files = sources[one.name]
        assert 3 <= len(files) <= 15 and len(set(files)) == len(files)
        assert all(file.is_relative_to(root) and file.is_file() for file in files)


def test_folders_have_the_nouns_that_the_index_says(tree: Callable[[str], Path]) -> None:
    stream = photographed("folders", tree("folders"))
    assert stream.name == "folders-folders"  # the second is the folder's own name
    assert stream.nouns == {"bo_2": "subject", "rex": "dog"} and stream.pictures == 15
    assert [Path(file).name for file in stream.concepts[1].files] == ["00.png", "01.png", "02.png"]


def test_cifc_has_its_ten_tasks_in_order(tree: Callable[[str], Path]) -> None:
    stream = photographed("cifc", tree("cifc"))
    assert list(stream.nouns.items())[4:8] == [
        ("teddybear", "teddy bear"),
        ("painting", "painting"),
        ("dog2", "dog"),
        ("drawing", "drawing"),
    ]
    assert len(stream.concepts) == 10 and stream.pictures == 5
    assert stream.styles == ("painting", "drawing", "ink_painting")


def test_celeba_has_the_ten_most_pictured_of_equals_the_lowest(tree: Callable[[str], Path]) -> None:
    stream = photographed("celeba-hq", tree("celeba-hq"))
    assert list(stream.nouns) == [f"person-{k}" for k in (3, 1, 2, 4, 5, 6, 7, 8, 10, 11)]
    assert set(stream.nouns.values()) == {"person"} and stream.pictures == 15
    numbers = [int(Path(file).stem) for file in stream.concepts[-1].files]  # of 11: after 12's
    assert numbers == list(range(15, 30))


def test_landmarks_are_the_most_pictured_waterfalls(tree: Callable[[str], Path]) -> None:
    stream = photographed("landmarks-v2", tree("landmarks-v2"))
    assert list(stream.nouns) == [f"waterfall-{k}" for k in (106, *range(96, 105))]
    first = stream.concepts[0].files
    assert first == tuple(sorted(first)) and len(first) == 15
    assert first[0].endswith("train/1/0/6/1060000000000000.jpg")


def test_custom_concept_101_is_as_its_index_lists_it(tree: Callable[[str], Path]) -> None:
    stream = photographed("custom-concept-101", tree("custom-concept-101"))
    assert list(stream.nouns.items()) == [
        ("scene_barn", "barn"),
        ("transport_car10", "car"),
        ("transport_car2", "car"),
    ]


def edit(path: str, old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        text = (root / path).read_text()
        assert old in text
        (root / path).write_text(text.replace(old, new, 1))

    return change


def remove(path: str) -> Callable[[Path], None]:
    return lambda root: (root / path).unlink()


def rename(old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / old).rename(root / new)

    return change


def twin(root: Path) -> None:
    for k in range(3):
        picture(root / "other" / "Scene_Barn" / f"{k}.jpg")
    edit("dataset.json", "./benchmark_dataset/transport_car2", "other/Scene_Barn")(root)


MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
LABELS = "train_label_to_hierarchical.csv"


@pytest.mark.parametrize(
    ("layout", "damage", "sentence"),
    [
        ("folders", edit("concepts.json", "rex", "max"), r"names max, which has no folder"),
        ("folders", edit("concepts.json", '"dog"', "3"), r"has no noun for rex: write"),
        ("folders", edit("concepts.json", "}", ""), r"concepts\.json is not JSON"),
        ("folders", edit("concepts.json", '{"rex": "dog"}', "[]"), r"holds no object of names"),
        ("folders", rename("bo_2", "2 bo"), r"'2 bo' cannot be a concept's name: take letters"),
        ("folders", remove("rex/01.png"), r"rex has 2 pictures, and a concept .* needs 3: add"),
        ("cifc", rename("datasets/images/cat2", "cat2"), r"pictures of cat2 are missing: put them"),
        ("celeba-hq", remove("identity_CelebA.txt"), r"identity_CelebA\.txt is missing: put it"),
        ("celeba-hq", edit("identity_CelebA.txt", "000005.jpg 12\n", ""), r"not say .*000005\.jpg"),
        ("celeba-hq", edit("identity_CelebA.txt", "000006.jpg 12", "000006.jpg"), r"Line 2 of"),
        ("celeba-hq", edit(MAPPING, "orig_file", "file"), r"has no column orig_file"),
        ("celeba-hq", remove("CelebA-HQ-img/20.jpg"), r"names a picture that is not there, .*20"),
        ("landmarks-v2", remove(LABELS), r"train_label_to_hierarchical\.csv is missing"),
        ("landmarks-v2", edit("train.csv", "landmark_id", "label"), r"no column landmark_id"),
        ("landmarks-v2", remove("train/0/9/7/0970000000000000.jpg"), r"train\.csv names a picture"),
        ("landmarks-v2", edit(LABELS, "waterfall", "pond"), None),
        ("custom-concept-101", remove("dataset.json"), r"dataset\.json is missing"),
        ("custom-concept-101", edit("dataset.json", "class_prompt", "noun"), r"Entry 1 of"),
        ("custom-concept-101", edit("dataset.json", "scene_barn", "barn"), r"pictures of barn are"),
        ("custom-concept-101", twin, r"two concepts of one name, scene_barn and Scene_Barn"),
    ],
)
def test_a_broken_tree_gets_one_sentence(
    layout: str,
    damage: Callable[[Path], None],
    sentence: str | None,
    tree: Callable[[str], Path],
) -> None:
    root = tree(layout)
    damage(root)
    if sentence is None:  # one waterfall fewer: there are eleven
        assert "waterfall-96" not in photographed(layout, root).nouns
        return
    with pytest.raises(PerdureError, match=sentence) as caught:
        photographed(layout, root)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_too_few_pictures_of_a_person_are_told(tree: Callable[[str], Path]) -> None:
    root = tree("celeba-hq")
    people = (root / "identity_CelebA.txt").read_text()
    (root / "identity_CelebA.txt").write_text(people.replace(" 12\n", " 8\n"))
    assert len(photographed("celeba-hq", root).concepts) == 10  # 9 is not needed yet
    (root / "identity_CelebA.txt").write_text(
        people.replace(" 12\n", " 8\n").replace(" 11\n", " 8\n")
    )
    with pytest.raises(
        PerdureError, match=r"9 people with 15 pictures, and 10 .*; number 9 comes next with 14:"
    ):
        photographed("celeba-hq", root)


def test_a_folder_that_is_none_and_an_empty_one_are_told(tmp_path: Path) -> None:
    with pytest.raises(PerdureError, match="is no folder: give --photos"):
        photographed("folders", tmp_path / "nowhere")
    with pytest.raises(PerdureError, match="has no folders in it"):
        photographed("folders", tmp_path)
    with pytest.raises(PerdureError, match="no layout 'people-5': choose from folders"):
        photographed("people-5", tmp_path)


@pytest.mark.skipif(
    not PHOTOS.is_dir(), reason="the folder of photographs is not beside the project"
)
def test_the_folder_of_photographs_is_a_stream_of_ten() -> None:
    stream = photographed("folders", PHOTOS)
    assert stream.name == "folders-photos" and len(stream.concepts) == 10
    assert {"backpack", "cat2", "teapot"} <= set(stream.nouns)


def test_layouts_are_listed() -> None:
    result = CliRunner().invoke(app, ["bench", "--list"])
    lines = result.output.splitlines()
    assert result.exit_code == 0
    assert [line.split()[0] for line in lines[-len(LAYOUTS) :]] == list(LAYOUTS)
    assert all(line.endswith("(needs --photos)") for line in lines[-len(LAYOUTS) :])


def test_photos_go_with_photographed_streams_alone(tree: Callable[[str], Path]) -> None:
    root = tree("folders")
    assert _stream("folders", root) == photographed("folders", root)
    with pytest.raises(PerdureError, match="folders is of photographs: give their folder"):
        _stream("folders", None)
    with pytest.raises(PerdureError, match="--photos has no effect on 'people-5'"):
        _stream("people-5", root)


def test_a_run_over_folders_writes_its_record(tiny: Path, drawings: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    root = tmp_path / "mine"
    root.mkdir()
    for name in ("ada", "bo"):
        (root / name).symlink_to(drawings / name, target_is_directory=True)
    (root / "concepts.json").write_text('{"ada": "person"}')
    stream = photographed("folders", root)
    (cell,) = cells_of(
        stream,
        method=["lora"],
        out=tmp_path / "out",
        work=tmp_path / "work",
        vary={"steps": [2]},
        pictures=2,
        pairs=1,
        base=str(tiny),
    )
    finish(replace(cell, options={"rank": 2}), run)
    (record,) = read_records(tmp_path / "out")
    told = record.data["stream"]
    assert told["name"] == "folders-mine" and record.matrix.concepts == ("ada", "bo")
    assert [one["noun"] for one in told["concepts"]] == ["person", "subject"]
    assert told["concepts"][0]["files"][0] == str(root / "ada" / "0.png")
    assert not (tmp_path / "work" / "lora-steps=2-seed0" / "photos").exists()
