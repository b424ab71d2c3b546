"""Documentation site: the Markdown pages of this folder and an API reference made from the docstrings."""

import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the build never needs the network
os.environ.setdefault("WANDB_MODE", "disabled")

PACKAGES = ("core", "metrics", "networks", "datamodules", "lightning_modules", "reporting", "callbacks")

project = "Captioners"
author = "Captioners contributors"
project_copyright = f"2026, {author}"
extensions = ["myst_nb", "sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "api/*/modules.rst"]
html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
nitpicky = False  # annotations name classes of libraries, whose references would need the network

myst_heading_anchors = 3
nb_execution_mode = "off"  # the notebook shows the outputs that it holds; "make notebook" runs it

apidoc_modules = [
    {
        "path": str(ROOT / package),
        "destination": f"api/{package}",  # of its own: files that a package did not write are removed from it
        "separate_modules": True,
        "module_first": True,
        "no_headings": False,
        "automodule_options": {"members", "show-inheritance"},
    }
    for package in PACKAGES
]

default_role = "py:obj"  # single backticks in docstrings: a link where the name is one of ours
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes of a class are described once, in its docstring
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False


def setup(app: Any) -> None:
    """Leaves out what a library adds to our classes, such as matplotlib's `set`: its text is in its own dialect."""
    app.connect("autodoc-skip-member", lambda app, what, name, member, skip, options: _is_added(member) or None)


def _is_added(member: object) -> bool:
    return str(getattr(member, "__module__", "")).startswith("matplotlib.")
