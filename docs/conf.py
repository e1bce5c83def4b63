"""Sphinx: pages in Markdown, public names from their docstrings. `make docs` builds it; a warning is an error."""

project = "tl_keras"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"  # its pages load nothing from elsewhere
html_title = project
html_copy_source = False

myst_heading_anchors = 3  # links to headings, as GitHub has them
default_role = "code"  # docstrings have code between single backticks
napoleon_use_ivar = True  # attributes are in the docstring of their class, and not documented twice
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True


def _keep_colons(app, what, name, obj, options, lines):
    """Keep Napoleon from reading the first line of a property up to a colon as its type."""
    if what == "property":
        lines.insert(0, "")


def setup(app):
    app.connect("autodoc-process-docstring", _keep_colons, priority=400)  # Napoleon has 500
