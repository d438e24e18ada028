"""The report: one self-contained HTML page, made from a `Report` of raw matrices and pictures."""

import os
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

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

__all__ = [
    "Concept",
    "Definition",
    "Figure",
    "MethodResult",
    "Report",
    "Shot",
    "Strip",
    "render_report",
    "write_report",
]


def write_report(path: str | Path, data: Report) -> None:
    """Write the page to one HTML file, replacing it whole; missing folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(render_report(data), encoding="utf-8")
    part.replace(path)


def render_report(data: Report) -> str:
    """The page as HTML text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(page(data))
