"""What stands beside the code: version, citation, changelog, hooks, docs, and what they say."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import perdure
from perdure.cli import app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PROJECT["project"]["version"]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/methods/*.md")]
    + [*ROOT.glob("examples/*.md")]
)


def test_the_citation_is_valid_and_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0" and cited["type"] == "software"
    assert {"message", "title", "authors"} <= cited.keys()  # what the format requires
    assert all({"name"} <= author.keys() for author in cited["authors"])
    assert cited["version"] == VERSION
    assert cited["license"] == PROJECT["project"]["license"]


def test_the_changelog_is_kept() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[(.+?)\](.*)$", text, flags=re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    for version, date in headings[1:]:
        assert re.fullmatch(r"\d+\.\d+\.\d+", version) and re.fullmatch(r" - \d{4}-\d\d-\d\d", date)
    if len(headings) > 1:  # before the first tag everything is unreleased
        assert headings[1][0] == VERSION
    kinds = set(re.findall(r"^### (.+)$", text, flags=re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_hooks_need_no_network() -> None:
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    for hook in repos[0]["hooks"]:
        assert hook["language"] == "system"
        assert {"id", "name", "entry"} <= hook.keys()


def test_every_dependency_has_a_lower_and_an_upper_bound() -> None:
    extras = PROJECT["project"]["optional-dependencies"].values()
    for group in (PROJECT["project"]["dependencies"], *extras):
        for one in group:
            assert re.match(r"[\w-]+(\[[\w,]+\])?>=[\d.]+,<\d[\d.]*(;.*)?$", one), one


def test_the_reference_of_the_command_line_is_as_the_code_says(tmp_path: Path) -> None:
    made = tmp_path / "commands.md"
    words = "typer perdure.cli utils docs --name perdure --output"
    subprocess.run([sys.executable, "-m", *words.split(), made], check=True, capture_output=True)
    stale = "docs/commands.md is stale: run `make commands`"
    assert made.read_text() == (ROOT / "docs" / "commands.md").read_text(), stale


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub and the site spell them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {text.replace(" ", "-") for text in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_is_broken(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if DOCS in page.parents:
            whole = target.is_file() and DOCS in target.parents
            assert whole, f"{page.name} links to {link}, which the site does not have"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}"


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every perdure command on a page, in blocks."""
    text = page.read_text().replace("\\\n", " ")
    for line in re.findall(r"^    (perdure .+)$", text, flags=re.MULTILINE):
        yield shlex.split(line, comments=True)[1:]


@pytest.mark.parametrize(
    "page", [p for p in PAGES if any(commands(p))], ids=lambda page: str(page.relative_to(ROOT))
)
def test_commands_on_a_page_have_no_unknown_verb_or_option(page: Path) -> None:
    from typer.main import get_command

    group = get_command(app)
    for verb, *words in commands(page):
        assert verb in group.commands, (verb, words)  # type: ignore[attr-defined]
        command = group.commands[verb]  # type: ignore[attr-defined]
        known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0] in known, (verb, word)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_on_a_page_is_python_and_names_what_there_is(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        compile(block, page.name, "exec")
        for name in re.findall(r"\bperdure\.([A-Za-z_]+)\(", block):
            assert hasattr(perdure, name), (page.name, name)


@pytest.mark.slow
def test_the_tutorial_can_be_followed(tmp_path: Path) -> None:
    for words in commands(ROOT / "docs" / "tutorial.md"):
        done = subprocess.run(
            [sys.executable, "-m", "perdure.cli", *words], cwd=tmp_path, capture_output=True
        )
        assert done.returncode == 0, (words, done.stderr)
    again, first = tmp_path / "again" / "00-2.png", tmp_path / "first" / "00-2.png"
    assert again.read_bytes() == first.read_bytes()
    assert (tmp_path / "mine" / "evaluation" / "report.html").exists()


def test_weights_under_other_terms_say_so_where_they_lie() -> None:
    said = "src/perdure/classification/weights/photographs/LICENSE.md"
    assert "ImageNet" in (ROOT / said).read_text()
    assert said in PROJECT["project"]["license-files"]
