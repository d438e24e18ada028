"""The pages of results say what the records say, and no more."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parent.parent / "docs"
MADE = re.compile(r"<!-- (?:table|rows|apart) [^>]+ -->\n.*?<!-- end -->", re.DOTALL)


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    sys.path.insert(0, str(DOCS))
    try:
        spec = importlib.util.spec_from_file_location("tables", DOCS / "tables.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(DOCS))
    return module


def test_the_front_page_is_made_from_the_records(tables: ModuleType) -> None:
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250
    assert tables.filled(text) == text, "run: python docs/tables.py --pages"


@pytest.mark.slow
def test_the_pages_behind_and_the_charts_are_made_from_the_records(tables: ModuleType) -> None:
    for page in tables.pages():
        text = page.read_text(encoding="utf-8")
        assert tables.filled(text) == text, f"{page.name}: run python docs/tables.py --pages"
    for name, chart in tables.CHARTS.items():
        assert (DOCS / "charts" / f"{name}.svg").read_text(encoding="utf-8") == chart(), name
    assert {path.stem for path in (DOCS / "charts").iterdir()} == set(tables.CHARTS)


def test_every_decimal_of_the_front_page_stands_in_a_page_of_results() -> None:
    """A number in a sentence is one of a table here, or of the pages behind."""
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    behind = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("results-*.md"))
    known = set(re.findall(r"\d+\.\d+", "".join(MADE.findall(text)) + behind))
    said = set(re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\))", MADE.sub("", text)))
    assert said <= known | OF_NO_RECORD, said - known


OF_NO_RECORD = {"0.114", "0.6"}
"""STAMINA's density in a run that was looked at, which the page says has no record."""


def test_every_chart_of_the_front_page_is_there_and_every_one_that_is_there_is_shown() -> None:
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^\]]+\]\(charts/([a-z0-9-]+)\.svg\)", text)
    assert sorted(shown) == sorted(path.stem for path in (DOCS / "charts").glob("*.svg"))
