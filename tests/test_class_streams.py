"""Streams of classes, their readers and preprocessing, on small trees that the tests make."""

from __future__ import annotations

import json
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from classifying import make_backbone, make_tower, save_backbone, write_tree
from PIL import Image
from torch import nn
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from perdure.classification import Backbone
from perdure.classification.drawn import drawn_identities
from perdure.classification.labelled import Split
from perdure.classification.streams import ClassStream, open_stream
from perdure.errors import PerdureError
from perdure.hosts.vision.backbone import EMBEDDED, PHOTOGRAPHS
from perdure.hosts.vision.preprocessing import Preprocessing, coda_prompt, from_config

STREAM_100 = Path(__file__).parents[2] / "shared" / "data" / "tiny-imagenet" / "stream-100.zip"


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3)).astype(np.uint8)


def zipped(tree: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(tree.rglob("*.png")):
            archive.write(file, file.relative_to(tree))
        archive.writestr("classes.json", "{}")
    return path


def cifar(folder: Path, records: int = 6) -> Path:
    """Fine labels 0, 1, 2, 0, 1, 2 beside coarse ones; red is 10, green 20, blue 30 + number."""
    folder.mkdir()
    (folder / "fine_label_names.txt").write_text("apple\nbaby\nbear\n")
    for name in ("train.bin", "test.bin"):
        data = b""
        for k in range(records):
            planes = [bytes([value]) * 1024 for value in (10, 20, 30 + k)]
            data += bytes([19, k % 3]) + b"".join(planes)
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("test", ["test", "val"])
@pytest.mark.parametrize("archived", [False, True])
def test_a_tree_of_classes_is_read_from_a_folder_or_a_zip(
    test: str, archived: bool, tmp_path: Path
) -> None:
    tree = write_tree(tmp_path / "tree", test=test)
    path = zipped(tree, tmp_path / "tree.zip") if archived else tree
    stream = open_stream("tiny-imagenet-100" if archived else "folders", path)
    assert stream.classes == ("class0", "class1", "class2", "class3")
    assert len(stream.train.pictures) == 32 and len(stream.test.pictures) == 16
    first = np.asarray(Image.open(tree / "train" / "class1" / "08.png"))
    own = stream.train.of([1])
    assert np.array_equal(own.pictures[0], first) and set(own.labels.tolist()) == {1}


def test_a_tree_without_a_split_is_split_by_class(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree")
    stream = open_stream("folders", tree / "train")
    assert stream.classes == ("class0", "class1", "class2", "class3")
    assert np.array_equal(np.bincount(stream.train.labels), [6] * 4)
    assert np.array_equal(np.bincount(stream.test.labels), [2] * 4)
    known = [p.tobytes() for split in (stream.train, stream.test) for p in split.pictures]
    whole = [p.tobytes() for p in open_stream("folders", tree).train.pictures]
    assert sorted(known) == sorted(whole)
    for file in list((tree / "train" / "class0").iterdir())[1:]:
        file.unlink()
    with pytest.raises(PerdureError, match="the class class0 has one picture"):
        open_stream("folders", tree / "train")


def test_broken_trees_are_one_sentence(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree")
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.zip").write_text("no zip")
    for path, sentence in (
        (tmp_path / "empty", "is no tree of classes"),
        (tmp_path / "no.zip", "is not a readable zip file"),
        (tmp_path / "nowhere", "There is no"),
        (None, "say where its data is"),
    ):
        with pytest.raises(PerdureError, match=sentence):
            open_stream("folders", path)
    (tree / "train" / "class1" / "08.png").write_text("no picture")
    stream = open_stream("folders", tree)
    with pytest.raises(PerdureError, match="class1/08.png cannot be read as a picture"):
        list(stream.train.pictures)
    for file in (tree / "test" / "class3").iterdir():
        file.unlink()
    with pytest.raises(PerdureError, match="the class class3 is in train alone"):
        open_stream("folders", tree)
    with pytest.raises(PerdureError, match="no stream 'mnist': choose from smallworld"):
        open_stream("mnist")
    with pytest.raises(PerdureError, match="is drawn as needed"):
        open_stream("smallworld-classes-100", tree)


def test_cifar_100_is_read_in_its_binary_version(tmp_path: Path) -> None:
    stream = open_stream("cifar-100", cifar(tmp_path / "cifar-100-binary"))
    assert stream.classes == ("apple", "baby", "bear")
    assert stream.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert stream.train.pictures[4].shape == (32, 32, 3)
    assert stream.train.pictures[4][7, 9].tolist() == [10, 20, 34]
    assert open_stream("cifar-100", tmp_path).classes == stream.classes


def test_cifars_pickles_and_cut_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p" / "cifar-100-python").mkdir(parents=True)
    with pytest.raises(PerdureError, match="pickles are not opened here: take the binary version"):
        open_stream("cifar-100", tmp_path / "p")
    with pytest.raises(PerdureError, match="has no train.bin"):
        (tmp_path / "n").mkdir()
        open_stream("cifar-100", tmp_path / "n")
    folder = cifar(tmp_path / "c")
    (folder / "test.bin").write_bytes(b"short")
    with pytest.raises(PerdureError, match="has 5 bytes, which is no number of records"):
        open_stream("cifar-100", folder)
    (folder / "test.bin").write_bytes(bytes([0, 7]) + bytes(3072))
    with pytest.raises(PerdureError, match="test picture of the class number 7, but there are 3"):
        open_stream("cifar-100", folder)


def test_imagenet_r_is_split_with_a_fixed_seed_or_by_coda_prompts_lists(tmp_path: Path) -> None:
    names = [f"n0{c}/art_{k}.jpg" for c in (1, 2) for k in range(10)]
    for name in names:
        file = tmp_path / "imagenet-r" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(9, 7)).save(file)
    stream = open_stream("imagenet-r", tmp_path)
    assert len(stream.train.pictures) == 16 and len(stream.test.pictures) == 4
    shuffled = sorted(names)
    random.Random(0).shuffle(shuffled)
    assert list(stream.test.pictures.names) == shuffled[16:]  # type: ignore[attr-defined]
    listed = {"train": names[:5] + names[10:], "test": names[5:10] + names[10:11]}
    for kind, some in listed.items():
        lines = [f"- data/imagenet-r/test/{name}" for name in some]
        text = "\n".join(["data:", *lines, "targets:", *["- 0" for _ in some]])
        (tmp_path / "imagenet-r" / f"imagenet-r_{kind}.yaml").write_text(text)
    stream = open_stream("imagenet-r", tmp_path)
    assert list(stream.train.pictures.names) == listed["train"]  # type: ignore[attr-defined]
    assert stream.test.labels.tolist() == [0] * 5 + [1]
    (tmp_path / "imagenet-r" / names[5]).unlink()
    with pytest.raises(PerdureError, match="lists n01/art_5.jpg, which is not in"):
        open_stream("imagenet-r", tmp_path)


def test_drawn_identities_are_of_all_domains_and_no_picture_is_in_both_halves() -> None:
    classes, train, test = drawn_identities(each=2, train=3, test=2)
    assert classes[:3] == ("person 2000000", "person 2000001", "pet 2000000")
    assert len(classes) == 8 and len(train.pictures) == 24 and len(test.pictures) == 16
    assert train.labels.tolist() == [c for c in range(8) for _ in range(3)]
    pixels = {p.tobytes() for p in train.pictures}
    assert len(pixels) == 24 and not pixels & {p.tobytes() for p in test.pictures}
    again = drawn_identities(each=2, train=3, test=2)[1]
    assert all(np.array_equal(a, b) for a, b in zip(train.pictures, again.pictures, strict=True))
    tuning = drawn_identities(each=2, split="tuning", train=3, test=2)
    assert not set(tuning[0]) & set(classes)
    assert not {p.tobytes() for p in tuning[1].pictures} & pixels


def stream_of(classes: int) -> ClassStream:
    pictures, labels = [picture(4, 4)] * classes, np.arange(classes)
    split = Split(pictures=pictures, labels=labels)
    names = tuple(f"c{k}" for k in range(classes))
    return ClassStream(name="toy", classes=names, train=split, test=split)


def test_tasks_share_out_all_classes_in_an_order_that_the_seed_decides() -> None:
    stream = stream_of(100)
    tasks = stream.tasks(20, 1)
    assert len(tasks) == 20 and {len(task) for task in tasks} == {5}
    assert sorted(c for task in tasks for c in task) == list(range(100))
    order = list(range(100))
    random.seed(1)  # as trainer.py of CODA-Prompt does
    random.shuffle(order)
    assert [c for task in tasks for c in task] == order
    assert stream.tasks(20, 1) == tasks != stream.tasks(20, 2)
    with pytest.raises(ValueError, match="100 classes cannot be shared out among 7 tasks"):
        stream.tasks(7, 0)


def test_a_stream_with_a_class_twice_or_without_pictures_is_refused() -> None:
    one = Split(pictures=[picture(4, 4)], labels=np.array([0]))
    with pytest.raises(ValueError, match="two classes named 'a'"):
        ClassStream(name="toy", classes=("a", "a"), train=one, test=one)
    with pytest.raises(ValueError, match="no train picture of the class 'b'"):
        ClassStream(name="toy", classes=("a", "b"), train=one, test=one)
    with pytest.raises(ValueError, match="1 pictures came with 2 labels"):
        Split(pictures=[picture(4, 4)], labels=np.array([0, 1]))


@pytest.mark.parametrize("shape", [(64, 64), (90, 70), (50, 81)])
def test_preprocessing_is_that_of_transformers_own_processors(shape: tuple[int, int]) -> None:
    one = picture(*shape)
    for processor in (
        CLIPImageProcessorPil(
            size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}, resample=3
        ),
        ViTImageProcessorPil(size={"height": 32, "width": 32}),
    ):
        config = json.dumps(processor.to_dict(), default=str)
        wanted = processor(images=Image.fromarray(one), return_tensors="pt")["pixel_values"]
        assert torch.allclose(from_config(config).plain([one]), wanted, atol=1e-5)


def test_coda_prompts_preprocessing_only_divides_by_255() -> None:
    pixels = coda_prompt(8).plain([np.full((5, 9, 3), 51, np.uint8)])
    assert pixels.shape == (1, 3, 8, 8) and torch.allclose(pixels, torch.tensor(0.2))


def test_crops_are_within_the_picture_and_of_the_asked_area_and_the_seed_decides() -> None:
    ramp = np.zeros((40, 60, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(60)[None] * 4, np.arange(40)[:, None] * 6
    scheme = Preprocessing(size=20, mean=(0.0,) * 3, std=(1 / 255,) * 3)  # type: ignore[arg-type]

    def crops(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return scheme.augmented([ramp] * 64, generator, crop=0.3, flip=True)

    found = crops(0)
    wide = (found[:, 0].amax((1, 2)) - found[:, 0].amin((1, 2))) / 4 / 60
    high = (found[:, 1].amax((1, 2)) - found[:, 1].amin((1, 2))) / 6 / 40
    area = wide * high
    assert 0.2 < area.min() < 0.45 and 0.75 < area.max() <= 1.01
    falls = found[:, 0, 0, 0] > found[:, 0, 0, -1]
    assert 15 < int(falls.sum()) < 49
    assert torch.equal(crops(0), found) and not torch.equal(crops(1), found)
    whole = scheme.augmented([ramp], torch.Generator(), crop=1, flip=False)
    assert torch.equal(whole, scheme.plain([ramp]))


def test_a_backbone_is_opened_from_a_folder_by_its_own_preprocessing(tmp_path: Path) -> None:
    folder = save_backbone(tmp_path / "vit")
    backbone = Backbone.open(folder)
    assert backbone.width == 16 and backbone.preprocessing.mean == (0.5, 0.4, 0.3)
    assert [name.rpartition(".")[2] for name in backbone.layers][:3] == [
        "q_proj",
        "k_proj",
        "v_proj",
    ]
    assert backbone.hash == make_backbone().hash != make_backbone("clip").hash
    assert Backbone.open(folder, preprocessing="coda-prompt").preprocessing == coda_prompt(16)
    clip = Backbone.open(save_backbone(tmp_path / "clip", "clip"))
    assert len(clip.layers) == 6


def test_a_tower_with_query_key_value_or_one_fused_layer_is_aimed_at() -> None:
    assert list(make_backbone("fused").shapes.values()) == [(48, 16), (48, 16)]

    class Older(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in ("query", "key", "value", "dense"):
                setattr(self, name, nn.Linear(3, 3))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.dense(self.value(pixels.mean((2, 3))))

    older = Backbone(Older(), name="older", preprocessing=Preprocessing(size=4))
    assert list(older.layers) == ["query", "key", "value"]
    before = older.layers["key"].weight.clone()
    older.fold({"key": torch.ones(3, 3)})
    older.aim("all")
    assert list(older.layers) == ["query", "key", "value", "dense"]
    assert torch.equal(older.layers["key"].weight, before)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    with pytest.raises(PerdureError, match="laid out in a way that is not known"):
        Backbone(plain, name="plain", preprocessing=Preprocessing(size=4))


def test_backbones_that_cannot_be_opened_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(PerdureError, match="a hub id, or smallworld or photographs"):
        Backbone.open(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PerdureError, match="cannot be opened"):
        Backbone.open(tmp_path / "empty")
    make_tower().save_pretrained(tmp_path / "bare")
    with pytest.raises(PerdureError, match="no preprocessor_config.json that can be followed"):
        Backbone.open(tmp_path / "bare")
    with pytest.raises(ValueError, match="preprocessing is 'imagenet'"):
        Backbone.open("smallworld", preprocessing="imagenet")
    odd = save_backbone(tmp_path / "odd")
    config = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps(config | {"model_type": "swin"}))
    with pytest.raises(PerdureError, match="is of the type 'swin'"):
        Backbone.open(odd)


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_towers_open_by_their_names(name: str) -> None:
    backbone = Backbone.open(name)
    assert backbone.name == name and backbone.preprocessing.size == 64
    assert len(backbone.layers) == 12 and backbone.width == 192
    assert len({Backbone.open(other).hash for other in EMBEDDED}) == len(EMBEDDED)
    assert sum(file.stat().st_size for file in EMBEDDED[PHOTOGRAPHS].iterdir()) < 12e6


def test_settings_are_chosen_on_pictures_to_train_alone(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree")
    whole = open_stream("tiny-imagenet-100", tree)
    tuning = open_stream("tiny-imagenet-40-tuning", tree)
    known = {picture.tobytes() for picture in whole.train.pictures}
    for split, count in ((tuning.train, 26), (tuning.test, 6)):
        own = {picture.tobytes() for picture in split.pictures}
        assert len(own) == count and not own - known
        known -= own
    assert not known
    assert np.array_equal(tuning.test.labels, [0, 1, 1, 2, 3, 3])


@pytest.mark.skipif(not STREAM_100.exists(), reason="needs tiny-imagenet/stream-100.zip")
def test_tiny_imagenets_hundred_classes_are_read_from_their_zip() -> None:
    stream = open_stream("tiny-imagenet-100", STREAM_100)
    assert len(stream.classes) == 100 and stream.classes[0] == "n01443537"
    assert len(stream.train.pictures) == 20_000 and len(stream.test.pictures) == 5_000
    assert stream.train.pictures[3].shape == (64, 64, 3)
