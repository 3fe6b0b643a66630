"""Sphinx settings: the documentation is Markdown, warnings are errors (tox -e docs)."""

from kandev_host.version import __version__

project = "kandev-host"
author = copyright = "The kandev-host authors"
release = version = __version__
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]
html_theme = "furo"
exclude_patterns = ["_build"]
