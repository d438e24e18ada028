"""The documentation site: `make docs`."""

from importlib.metadata import version as version_of

project = "perdure"
author = copyright = "The perdure maintainers"
release = version = version_of(project)
html_title = f"{project} {version}"
html_theme = "furo"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["data"]
myst_heading_anchors = 4
autodoc_typehints = "none"
default_role = "code"  # docstrings put names between single backticks
