"""Sphinx configuration."""

import os
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).parent
# The pages describe the checkout they stand in, not an installed copy.
sys.path[:0] = [str(HERE), str(HERE.parent)]

import conventions_figure

import spectral_tools

project = "spectral_tools"
author = "spectral_tools developers"
copyright = f"2026, {author}"
version = release = spectral_tools.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.extlinks",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
default_role = "py:obj"
extlinks = {"doi": ("https://doi.org/%s", "doi:%s")}
# Links to other projects need their inventories from the network.
intersphinx_mapping = (
    {}
    if os.environ.get("CI")
    else {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "scipy": ("https://docs.scipy.org/doc/scipy", None),
        "skimage": ("https://scikit-image.org/docs/stable", None),
    }
)

autosummary_generate = True
autodoc_typehints = "none"  # docstrings say shape, order and unit
numpydoc_class_members_toctree = False
numpydoc_show_class_members = False
# Every rule for docstrings but those that ask for sections even where they would
# say nothing (examples are asked for by the tests). Results are dataclasses: they
# describe attributes, where these rules look for parameters.
numpydoc_validation_checks = {"all", "EX01", "SA01", "ES01", "GL08"}
numpydoc_validation_exclude = {r"\.[A-Z]\w*$"}

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "pydata_sphinx_theme"
html_title = "spectral_tools"
html_static_path = ["_static"]
html_css_files = ["house.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "header_links_before_dropdown": 6,
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": {"index": [], "**": ["page-toc"]},
    "show_prev_next": False,
}
html_sidebars = {
    page: [] for page in ("index", "conventions", "coming_from", "formats", "changes")
}

warnings.filterwarnings("ignore", message=".*FigureCanvasAgg is non-interactive.*")
conventions_figure.draw(HERE / "generated")

sphinx_gallery_conf = {
    "examples_dirs": "../gallery",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py",
    "ignore_pattern": r"__init__\.py",
    "doc_module": ("spectral_tools",),
    "reference_url": {"spectral_tools": None},
    "backreferences_dir": "generated/backreferences",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1,
    # Pages do not wait for each other; two, because small machines have so many cores.
    "parallel": 2,
    "download_all_examples": False,
}
