"""The report: one self-contained HTML page, made from a `Report` of raw matrices and pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from perdure.durable import replace_file, writing
from perdure.measuring.contents import (
    Concept,
    Definition,
    Figure,
    MethodResult,
    Report,
    Shot,
    Strip,
)
from perdure.measuring.page import page
from perdure.outputs import output_folder

__all__ = [
    "Concept",
    "Definition",
    "Figure",
    "MethodResult",
    "Report",
    "Shot",
    "Strip",
    "render",
    "render_report",
    "write_page",
    "write_report",
]


def write_report(path: str | Path, data: Report) -> None:
    """Write the page to one HTML file, replacing it whole; missing folders are made."""
    write_page(Path(path), render_report(data))


def write_page(path: Path, text: str) -> None:
    """Write a text file, replacing it whole; missing folders are made."""
    output_folder(path.parent)
    with writing(path):
        replace_file(path, text.encode())


def render_report(data: Report) -> str:
    """The page as HTML text."""
    return render("report.html.j2", page(data))


def render(template: str, names: Mapping[str, Any], *folders: Path) -> str:
    """A template of this folder, or of ``folders``, as HTML text."""
    environment = Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(names)
