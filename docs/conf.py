"""The docs site: `make docs` builds it from the Markdown files here, with every warning an error."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

project = "Lab"
author = "the Lab contributors"
copyright = author  # noqa: A001 - the name that Sphinx reads
release = version = import_module("lab").__version__

extensions = ["myst_parser", "sphinx_copybutton", "generated"]
exclude_patterns = ["_*"]
nitpicky = True  # a broken reference is a warning, and so an error

myst_heading_anchors = 4  # each heading can be linked to, as page.md#its-words
suppress_warnings = ["misc.highlighting_failure"]  # a console block may end with half a line

html_theme = "furo"
html_title = f"Lab {release}"
html_static_path = ["_static"]
html_css_files = ["lab.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "tango"
pygments_dark_style = "monokai"

copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
