"""How the site is built, by ``python -m sphinx -W docs site``; nothing is fetched, then or when it is read."""

import re
from pathlib import Path

import numpy as np
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import openmm_gancl
from openmm_gancl import units

project = "openmm-gancl"
author = "openmm-gancl developers"
release = version = openmm_gancl.__version__
copyright = "openmm-gancl developers, MIT licence"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_inline"]
myst_heading_anchors = 3

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "openmm-gancl"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_math_renderer = "mathml"
pygments_style = "default"

# before another module reads them: ndarray, not ndarray[tuple[Any, ...], dtype[float64]]; docstrings have the shapes
units.FloatArray = units.IntArray = units.BoolArray = np.ndarray


def _mathml(node, as_block):
    """As docutils makes it, with the space behind a function's name that it leaves out."""
    return tex2mathml(re.sub(r"\\(ln|det) ", r"\\\1\\,", node.astext()), as_block=as_block)


def _inline(writer, node):
    writer.body.append(_mathml(node, False))
    raise nodes.SkipNode


def _block(writer, node):
    writer.body.append(f'<div class="equation">{_mathml(node, True)}</div>')
    raise nodes.SkipNode


def _with_new_pages(app, docname, source):
    """Pages that the index does not name stand in the navigation where it has a star."""
    if docname == "index":
        pages = sorted(path.stem for path in Path(app.srcdir).glob("*.md") if path.stem != "index")
        new = [page for page in pages if f"\n{page}\n" not in source[0]]
        source[0] = source[0].replace("\n*\n", "\n".join(["", *new, ""]))


def _no_list(app, what, name, thing, options, lines):
    """A description that is a letter and a full stop, "K.", begins no list."""
    lines[:] = [re.sub(r"^(\s*\*{0,2}\w+: )(\w\.)", r"\1\\\2", line) for line in lines]


def setup(app):
    """Formulas as MathML, which browsers draw themselves; new pages find their place."""
    app.connect("autodoc-process-docstring", _no_list, priority=400)
    app.connect("source-read", _with_new_pages)
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
