"""The HTML page and the Markdown table: what they hold, and what they must not."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from perdure.measuring.matrix import TaskMatrix
from perdure.measuring.overview import company
from perdure.measuring.report import (
    Concept,
    Figure,
    MethodResult,
    Report,
    Shot,
    Strip,
    render_report,
    write_report,
)
from perdure.measuring.tables import Column, markdown_table

NASTY = 'rex <script>alert("&")</script>'
VOID = {"meta", "img", "br", "link", "input", "hr", "line", "circle", "path"}


class Page(HTMLParser):
    """Collects tags, attributes and text; checks that every tag is closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words += data


def matrix(rows, score="identity") -> TaskMatrix:
    return TaskMatrix(tasks=[["rex"], ["ada"], ["mug"]], scores={score: rows})


FORGETS = [[0.8, None, None], [0.5, 0.7, None], [0.2, 0.4, 0.6]]
KEEPS = [[0.79, None, None], [0.78, 0.71, None], [0.77, 0.69, 0.61]]


def picture(seed: int, side: int = 8) -> Image.Image:
    data = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(data)


def full() -> Report:
    names = ["rex", "ada", "mug"]
    strips = [
        Strip(
            concept=name,
            drawn={i: [picture(10 * i + j)] for i in range(j, 3)},
            contexts=[Shot(caption=f"<{name}> at night", picture=picture(j))],
        )
        for j, name in enumerate(names)
    ]
    return Report(
        title="Three things & what is left of them",
        noun="thing",
        nouns="things",
        methods=[
            MethodResult(
                name="lora",
                title="Sequential <LoRA>",
                matrix=matrix(FORGETS),
                repeats=[matrix(KEEPS)],
                strips=strips,
                seconds=[10, 20, 30],
                kept_bytes=[1500, 1500, 1500],
                facts={"trained": "12 & 3"},
            ),
            MethodResult(name="c-lora", title="C-LoRA", matrix=matrix(KEEPS), strips=strips),
        ],
        concepts=[
            Concept(
                name=name,
                title=NASTY if name == "rex" else "",
                references=[picture(99)],
                ceiling=0.9,
                floor=0.1,
            )
            for name in names
        ],
        notes=["1 < 2"],
        environment={"torch": "2 & more"},
    )


def bare() -> Report:
    return Report(
        title="A bank",
        methods=[
            MethodResult(name="c-lora", title="C-LoRA", matrix=matrix(KEEPS, "likeness_kept"))
        ],
        concepts=[Concept(name=name) for name in ("rex", "ada", "mug")],
        score="likeness_kept",
    )


@pytest.mark.parametrize("report", [full(), bare()], ids=["full", "bare"])
def test_page_is_well_formed_and_loads_nothing_from_elsewhere(report):
    text = render_report(report)
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        for key, value in attributes.items():
            assert key not in ("srcset", "onload", "onerror", "onclick")
            if key in ("src", "href"):
                assert tag == "img" and value.startswith("data:image/webp;base64,")
    assert not re.search(r"https?://|@import|url\(", text)


def test_pictures_of_several_have_a_part_of_their_own_if_there_are_any():
    assert "Together" not in Page(render_report(full())).words
    shot = Shot(caption="<rex> next to <ada>", picture=Image.new("RGB", (8, 8)))
    shown = Page(render_report(replace(full(), together=[shot])))
    assert "Together" in shown.words and "<rex> next to <ada>" in shown.words


def test_a_sheet_of_pairs_has_what_was_given_above_what_was_drawn():
    red, blue, green = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green"))
    sheet = company({"rex": [red], "ada": [blue]}, {("rex", "ada"): [green, red]})
    colours = [sheet.getpixel(at) for at in ((100, 100), (200, 100), (160, 260), (160, 460))]
    assert colours == [(255, 0, 0), (0, 0, 255), (0, 128, 0), (255, 0, 0)]


def test_names_are_escaped_and_shown():
    page = Page(render_report(full()))
    assert NASTY in page.words
    for words in ("ada", "mug", "Sequential <LoRA>", "<rex> at night", "12 & 3", "1 < 2"):
        assert words in page.words


def test_pictures_survive_as_they_were_and_small_ones_are_tripled():
    page = Page(render_report(full()))
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert images and all(a["width"] == "24" and "px" in a["class"] and a["alt"] for a in images)
    data = base64.b64decode(images[0]["src"].partition(",")[2])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(picture(99)))


def test_large_pictures_and_tensors_are_taken():
    strip = Strip(
        concept="rex",
        drawn={0: [picture(1, 600)], 2: [torch.zeros(8, 8, 3, dtype=torch.uint8)]},
    )
    method = MethodResult(name="m", title="M", matrix=matrix(KEEPS), strips=[strip])
    concepts = [Concept(name=name) for name in ("rex", "ada", "mug")]
    page = Page(render_report(Report(title="t", methods=[method], concepts=concepts)))
    assert "384" in {a["width"] for tag, a in page.tags if tag == "img"}


def test_page_prints_the_derived_numbers():
    words = " ".join(Page(render_report(full())).words.split())
    assert "0.75→0.30" in words  # means of (0.8, 0.7) and (0.2, 0.4)
    assert "0.75→0.73" in words
    assert "88 % of the way" in words  # (0.8 - 0.1) / 0.8 = 0.875
    # forgetting: pictured run (0.6 + 0.3) / 2 = 0.45, repeat (0.02 + 0.02) / 2 = 0.02
    assert "0.23 ± 0.30" in words or "0.24 ± 0.30" in words
    assert "20.0 s" in words and "1.5 kB" in words


def test_heat_map_has_every_cell_once_a_method():
    text = render_report(full())
    assert len(re.findall(r'<td class="on', text)) == 2 * 6


def test_given_figures_replace_the_computed_ones():
    report = bare()
    given = Report(
        title=report.title,
        methods=report.methods,
        concepts=report.concepts,
        score=report.score,
        figures=[Figure(value="42", label="a label", note="a note")],
    )
    words = Page(render_report(given)).words
    assert "42" in words and "a label" in words and "→" not in words


def test_one_task_and_unmeasured_cells_make_a_page():
    one = TaskMatrix(tasks=[["rex"]], scores={"mmd": [[0.0012]]})
    report = Report(
        title="t",
        methods=[MethodResult(name="m", title="M", matrix=one)],
        concepts=[Concept(name="rex")],
        score="mmd",
    )
    assert "1.20" in Page(render_report(report)).words  # printed x 1000
    gaps = [[None, None, None], [None, 0.5, None], [None, None, None]]
    report = Report(
        title="t",
        methods=[MethodResult(name="m", title="M", matrix=matrix(gaps))],
        concepts=[Concept(name=name) for name in ("rex", "ada", "mug")],
    )
    assert "0.50" in Page(render_report(report)).words


def test_fifty_concepts_make_a_page():
    names = [f"c{i}" for i in range(50)]
    rows = [[0.9 if j <= i else None for j in range(50)] for i in range(50)]
    many = TaskMatrix(tasks=[[name] for name in names], scores={"identity": rows})
    report = Report(
        title="t",
        methods=[MethodResult(name="m", title="M", matrix=many)],
        concepts=[Concept(name=name) for name in names],
    )
    assert "c49" in Page(render_report(report)).words


def test_write_report_replaces_the_file_whole(tmp_path):
    path = tmp_path / "new" / "report.html"
    write_report(path, bare())
    write_report(path, full())
    assert path.read_text(encoding="utf-8") == render_report(full())
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methods": []}, "at least one method"),
        ({"score": "kid"}, "score 'kid' was not measured"),
        ({"concepts": [Concept(name="rex")]}, "measured"),
    ],
)
def test_reports_that_do_not_fit_are_refused(change, words):
    report = full()
    fields = {"title": "t", "methods": report.methods, "concepts": report.concepts, **change}
    with pytest.raises(ValueError, match=words):
        Report(**fields)


def test_markdown_table_prints_mean_and_spread_and_bolds_what_it_is_told():
    rows = {
        "lora": {"identity": [0.10, 0.20, 0.30], "kid": [0.003]},
        "c-lora": {"identity": [0.50, 0.60, 0.70], "kid": [0.001, 0.002]},
        "gated": {"identity": [0.55, 0.65, 0.75]},
    }
    columns = [
        Column(key="identity", title="Identity"),
        Column(key="kid", title="KID × 1000", higher_is_better=False, scale=1000, digits=1),
    ]
    assert markdown_table(rows, columns, best={"identity": {"c-lora", "gated"}}) == (
        "| Method | Identity | KID × 1000 |\n"
        "|---|---:|---:|\n"
        "| lora | 0.20 ± 0.10 | 3.0 |\n"
        "| c-lora | **0.60 ± 0.10** | 1.5 ± 0.7 |\n"
        "| gated | **0.65 ± 0.10** | – |\n"
    )
