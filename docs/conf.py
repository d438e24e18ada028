"""The documentation site: `make docs`."""

from importlib.metadata import version as version_of

project = "perdure"
release = version = version_of("perdure")
author = "the authors of perdure"
copyright = "the authors of perdure, Apache-2.0"
extensions = ["myst_parser"]
exclude_patterns = ["data", "*.py"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = f"perdure {release}"
nitpicky = True
