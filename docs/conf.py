"""Sphinx's configuration: these pages as a site. `make docs` builds it into build/docs, with every warning an error."""

from __future__ import annotations

from typing import Final

project: Final = "unikernel-shim"
copyright: Final = "the authors of unikernel-shim; Apache-2.0"
extensions: Final = ["myst_parser"]
exclude_patterns: Final = ["conf.py", "generate.py"]
html_theme: Final = "furo"
html_title: Final = "unikernel-shim"
html_copy_source: Final = False
html_show_sphinx: Final = False

# Headings are linked to by their words, as on the pages where the files are read as they are.
myst_heading_anchors: Final = 4
# A fence names the language that its text is in, and diagrams are in none.
highlight_language: Final = "none"
