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
smartquotes = False


def _replace_colon(app, what, name, obj, options, lines):
    """Replace a colon in the first line of a property, since Napoleon takes what is before it for a type."""
    if what == "property":
        lines[0] = lines[0].replace(": ", " \u2013 ", 1)


def setup(app):
    app.connect("autodoc-process-docstring", _replace_colon, priority=400)  # Napoleon has 500
