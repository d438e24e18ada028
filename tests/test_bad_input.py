"""Whatever comes in, from anyone: a result, or one sentence that is meant for the user.

`PERDURE_FUZZ=20000 pytest tests/test_bad_input.py` tries so many of each; what was found once
stands beside the searches as a test of its own.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_bank_agreement import made
from test_bench_report import record
from test_classify_report import write
from test_report import Page

from perdure.adapters import Token
from perdure.bank import Bank
from perdure.bank_checking import check_bank
from perdure.bank_names import caseless, check_concept_name, is_name
from perdure.bank_repair import rebuild
from perdure.benchmarks.photos import photographed
from perdure.benchmarks.records import read_record
from perdure.benchmarks.report import write_results
from perdure.classification.datasets import folder_tree
from perdure.classification.labelled import decode
from perdure.errors import PerdureError
from perdure.hosts.diffusion.files import single_kind
from perdure.hosts.diffusion.host import Base
from perdure.learning.learn import resume
from perdure.learning.photos import read_pictures
from perdure.learning.request import interrupted
from perdure.measuring.matrix import TaskMatrix
from perdure.measuring.report import (
    Concept,
    Definition,
    Figure,
    MethodResult,
    Report,
    Shot,
    Strip,
    render_report,
)
from perdure.totals import running_total

EXAMPLES = int(os.environ.get("PERDURE_FUZZ", "25"))
many = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="PERDURE_FUZZ" not in os.environ,
    suppress_health_check=list(HealthCheck),
)

EDITS = st.lists(
    st.tuples(
        st.sampled_from(("put", "cut", "grow", "drop", "copy")),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=6,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


def edited(data: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    """The bytes after these edits, whose places are shares of the length."""
    for what, share, piece in edits:
        at = int(share * len(data))
        if what == "put":
            data = data[:at] + piece + data[at + len(piece) :]
        elif what == "cut":
            data = data[:at] or piece
        elif what == "grow":
            data = data[:at] + piece * 8 + data[at:]
        elif what == "drop":
            data = data[:at] + data[at + len(piece) :]
        else:
            data = data[:at] + data[: 4 * len(piece)] + data[at:]
    return data


def sentence(call: Callable[[], object]) -> bool:
    """Did it refuse? Then in one line; any other error is a fault."""
    try:
        call()
    except PerdureError as error:
        assert "\n" not in str(error), str(error)
        return True
    return False


# Pictures


def encoded(kind: str) -> bytes:
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    file = io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6
    more = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") else {}
    picture.save(file, kind, **more)
    return file.getvalue()


FILES = {kind: encoded(kind) for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF")}


@many
@given(kind=st.sampled_from(sorted(FILES)), edits=EDITS)
def test_a_picture_file_of_any_bytes(
    kind: str, edits: list[tuple[str, float, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = edited(FILES[kind], edits)
    path = tmp_path_factory.getbasetemp() / "picture.png"
    path.write_bytes(data)
    sentence(lambda: read_pictures(path, size=16))
    sentence(lambda: decode(data, "picture"))


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")
        )

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def frames(kind: str, count: int) -> bytes:
    file, blank = io.BytesIO(), Image.new("RGB", (16, 16))
    others = [Image.new("RGB", (16, 16), (k % 256, 0, 0)) for k in range(1, count)]
    blank.save(file, kind, save_all=True, append_images=others)
    return file.getvalue()


def test_bombs_by_area_by_text_and_by_frames_are_refused_or_cost_nothing(tmp_path: Path) -> None:
    text = (b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 100_000_000))
    for name, data, refused in (
        ("area", png(60_000, 60_000), True),
        ("one side", png(2**31 - 1, 1), True),
        ("text", png(16, 16, text), True),
        ("pages", frames("TIFF", 400), False),
        ("frames", frames("WEBP", 400), False),
        ("moving", frames("PNG", 400), False),
    ):
        path = tmp_path / f"{name}.png"
        path.write_bytes(data)
        before = peak()
        assert sentence(lambda path=path: read_pictures(path, size=16)) == refused, name
        assert sentence(lambda data=data: decode(data, "picture")) == refused, name
        assert peak() - before < 150 * 2**20, name


def peak() -> int:
    """The most memory that this process ever had, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_what_pillow_would_run_a_program_for_is_no_picture(tmp_path: Path) -> None:
    file = tmp_path / "drawing.jpg"
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    for read in (lambda: read_pictures(file, size=16), lambda: decode(file, "it")):
        assert sentence(read)


def test_a_zip_file_that_claims_too_much_or_lies_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "classes.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/a/0.png", b"\0" * 5_000_000)
    with pytest.raises(PerdureError, match="decompression bomb"):
        folder_tree(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for kind in ("train", "test"):
            for name in ("a", "b"):
                archive.writestr(f"{kind}/{name}/0.png", FILES["PNG"])
    data = path.read_bytes()
    assert len(folder_tree(path)[0]) == 2
    for k in range(0, len(data), 41):
        path.write_bytes(data[:k] + bytes([data[k] ^ 0xFF]) + data[k + 1 :])
        sentence(lambda: folder_tree(path))


# Banks


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("bad") / "bank").path


def looked_at(path: Path) -> None:
    """All that reads a bank, and writes nothing."""
    for look in (
        lambda: [Bank.open(path).read(task) for task in Bank.open(path).tasks],
        lambda: [dict(tensors) for _, tensors in Bank.open(path).kept()],
        lambda: [Bank.open(path).metadata(name) for name in Bank.open(path).concepts],
        lambda: Bank.open(path).composition(),
        lambda: interrupted(Bank.open(path)),
        lambda: running_total(Bank.open(path), "deltas", lambda task: {}),
        lambda: check_bank(path),
    ):
        sentence(look)


@many
@given(edits=EDITS, relisted=st.booleans())
def test_a_concepts_file_of_any_bytes_listed_with_its_checksum_or_not(
    edits: list[tuple[str, float, bytes]], relisted: bool, bank: Path
) -> None:
    index, file = bank / "bank.json", bank / "concepts" / "cy" / "concept.safetensors"
    listed, whole = index.read_bytes(), file.read_bytes()
    try:
        file.write_bytes(edited(whole, edits))
        if relisted:
            content = json.loads(listed)
            del content["sha256"]
            entry = content["tasks"][1]["concepts"][0]
            entry["sha256"] = sha256(file.read_bytes()).hexdigest()
            index.write_text(json.dumps(content))
        looked_at(bank)
        sentence(lambda: rebuild(bank))
    finally:
        index.write_bytes(listed), file.write_bytes(whole)
        for made_anew in bank.glob("bank.rebuilt*"):
            made_anew.unlink()


@many
@given(header=JSON, tail=st.binary(max_size=16))
def test_a_concepts_file_whose_header_says_anything(header: Any, tail: bytes, bank: Path) -> None:
    index, file = bank / "bank.json", bank / "concepts" / "cy" / "concept.safetensors"
    listed, whole = index.read_bytes(), file.read_bytes()
    said = json.dumps({"__metadata__": {"perdure": json.dumps(header)}}).encode()
    try:
        file.write_bytes(len(said).to_bytes(8, "little") + said + tail)
        content = json.loads(listed)
        del content["sha256"]
        content["tasks"][1]["concepts"][0]["sha256"] = sha256(file.read_bytes()).hexdigest()
        index.write_text(json.dumps(content))
        looked_at(bank)
    finally:
        index.write_bytes(listed), file.write_bytes(whole)


FIELDS = st.sampled_from(
    ["format", "base", "method", "config", "tasks", "composition", "sources", "settings"]
)


@many
@given(content=JSON | st.dictionaries(FIELDS, JSON))
def test_files_of_json_that_say_anything(
    content: Any, bank: Path, base: Base, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text, index = json.dumps(content), bank / "bank.json"
    listed, work = index.read_bytes(), bank / ".learning"
    work.mkdir(exist_ok=True)
    try:
        for file in (work / "request.json", work / "many.json", index):
            file.write_text(text)
            looked_at(bank)
            if file != index:
                with suppress(PerdureError):
                    resume(base, bank)
                file.unlink()
    finally:
        index.write_bytes(listed)
    other = tmp_path_factory.getbasetemp() / "other.json"
    other.write_text(text)
    sentence(lambda: read_record(other))


def test_json_without_end_is_a_sentence(bank: Path, tmp_path: Path) -> None:
    deep = "[" * 200_000
    (tmp_path / "bank.json").write_text(deep)
    assert sentence(lambda: Bank.open(tmp_path))
    (tmp_path / "dataset.json").write_text(deep)
    assert sentence(lambda: photographed("custom-concept-101", tmp_path))
    (tmp_path / "record.json").write_text(deep)
    assert sentence(lambda: read_record(tmp_path / "record.json"))


# Safetensors of others, and indices of data sets


@pytest.fixture(scope="module")
def base(tiny: Path) -> Base:
    torch.set_num_threads(1)
    return Base.open(tiny, device="cpu")


def safetensors_of(header: Mapping[str, Any] | bytes, size: int | None = None) -> bytes:
    said = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(said) if size is None else size).to_bytes(8, "little") + said


@many
@given(
    header=JSON | st.dictionaries(st.text(max_size=20), JSON),
    size=st.none() | st.integers(0, 2**64 - 1),
)
def test_a_checkpoint_with_any_header(
    header: Any, size: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "model.safetensors"
    file.write_bytes(safetensors_of(json.dumps(header).encode(), size))
    assert sentence(lambda: single_kind(file))


@many
@given(
    entries=JSON
    | st.lists(st.fixed_dictionaries({"instance_data_dir": JSON, "class_prompt": JSON}))
)
def test_an_index_of_pictures_that_says_anything(
    entries: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "stream"
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(entries))
    assert sentence(lambda: photographed("custom-concept-101", folder))
    (folder / "a").mkdir(exist_ok=True)
    (folder / "concepts.json").write_text(json.dumps(entries))
    assert sentence(lambda: photographed("folders", folder))


@many
@given(rows=st.text(max_size=200), headed=st.booleans())
def test_tables_of_pictures_that_say_anything(
    rows: str, headed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "tables"
    folder.mkdir(exist_ok=True)
    heads = {
        "train.csv": "id,landmark_id\n",
        "train_label_to_hierarchical.csv": "landmark_id,hierarchical_label,supercategory\n",
        "identity_CelebA.txt": "",
        "CelebA-HQ-to-CelebA-mapping.txt": "idx orig_file\n",
    }
    for name, head in heads.items():
        (folder / name).write_bytes(((head if headed else "") + rows).encode("utf-8", "replace"))
    for layout in ("landmarks-v2", "celeba-hq"):
        assert sentence(lambda layout=layout: photographed(layout, folder))


@pytest.mark.parametrize("name", ["../secret", "/etc", "a/../../secret", "a\0b", 3, None])
def test_an_index_that_leads_out_of_its_folder_is_refused(name: object, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (tmp_path / "secret").mkdir()
    for k in range(3):
        Image.new("RGB", (64, 64), (k, 0, 0)).save(tmp_path / "secret" / f"{k}.png")
    entries = [{"instance_data_dir": name, "class_prompt": "dog"}]
    (folder / "dataset.json").write_text(json.dumps(entries))
    with pytest.raises(PerdureError, match="is no path below"):
        photographed("custom-concept-101", folder)


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb", "\u202eb"])
def test_what_a_terminal_would_obey_is_shown_and_not_said(name: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "concepts.json").write_text(json.dumps({name: None}))
    with pytest.raises(PerdureError) as told:
        photographed("folders", tmp_path)
    assert str(told.value).isprintable() and "\\" in str(told.value)


# Names


LETTERS = st.characters(categories=("L", "M", "Nd"), include_characters="-_")


@many
@given(text=st.text(LETTERS, min_size=1, max_size=42) | st.text(max_size=8))
def test_a_concept_name_in_any_script_is_refused_or_is_one_token_and_one_folder(
    text: str, base: Base, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if not is_name(text):
        assert sentence(lambda: check_concept_name(text))
        return
    assert caseless(text) == caseless(caseless(text))
    row = Token({"word/text_encoder": torch.ones(1, 32)})
    home = tmp_path_factory.getbasetemp() / "homes" / text
    home.mkdir(parents=True, exist_ok=True)
    assert [path.name for path in home.parent.iterdir() if path.name == text] == [text]
    home.rmdir()
    told: list[Any] = []

    def said() -> None:
        with torch.no_grad(), base.session(tokens={text: row}) as session:
            told.append(session.conditioning([f"a photo of <{text}> at night"]).prompts.spoken)

    if not sentence(said):
        assert told == [(((text, 4),),)]


# Pages


NASTY = '"><script>alert(1)</script><img src=x onerror=alert(2)> javascript:alert(3) {{7*7}} |`'
ALLOWED = {"class", "src", "width", "height", "alt", "loading", "style", "id", "href", "lang"}


def harmless(text: str) -> None:
    """No script, no handler, nothing from elsewhere, no template run, every tag closed in turn."""
    page = Page(text)
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "object", "embed", "base"}
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), attributes
            if name in ("src", "href"):
                assert str(value).startswith(("data:image/webp;base64,", "#")), attributes
    assert "alert(1)" in page.words and ">49<" not in text and " 49 " not in page.words


def test_no_noun_prompt_or_name_of_a_file_gets_into_a_report_as_more_than_words() -> None:
    ours = [Image.new("RGB", (8, 8))]
    shot = Shot(caption=NASTY, picture=ours[0])
    method = MethodResult(
        name="lora",
        title=NASTY,
        summary=NASTY,
        matrix=TaskMatrix(tasks=[[NASTY]], scores={"identity": [[0.5]]}),
        strips=[Strip(concept=NASTY, drawn={0: ours}, contexts=[shot])],
        facts={NASTY: NASTY},
    )
    report = Report(
        title=NASTY,
        subtitle=NASTY,
        concepts=[Concept(name=NASTY, title=NASTY, references=ours)],
        methods=[method],
        noun=NASTY,
        nouns=NASTY,
        figures=[Figure(value=NASTY, label=NASTY, note=NASTY)],
        notes=[NASTY],
        definitions=[Definition(term=NASTY, text=NASTY)],
        environment={NASTY: NASTY},
    )
    harmless(render_report(report))


def test_nor_into_the_page_of_a_bench(tmp_path: Path) -> None:
    for kind in ("drawing", "classes"):
        folder = tmp_path / kind
        folder.mkdir()
        rows = [[0.9], [0.8, 0.9], [0.7, 0.8, 0.9]]
        path = record(folder) if kind == "drawing" else write(folder, "c-lora", rows)
        data = json.loads(path.read_text())
        data["stream"]["name"] = NASTY
        data["versions"] = {key: NASTY for key in data["versions"]}
        data["chosen"] = {NASTY: NASTY}
        if "class_order" in data:
            data["class_order"] = [[NASTY + name for name in task] for task in data["class_order"]]
        path.write_text(json.dumps(data))
        written = write_results(folder)
        (html,) = [file for file in written if file.suffix == ".html"]
        harmless(html.read_text())
