"""The notebooks of `examples/`: pages of the site as cells, run with their outputs kept.

``python docs/make_notebooks.py`` from the repository's top; needs ``pip install nbclient ipykernel``.
"""

import base64
import io
import json
import re
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
PAGES = {
    "alanine_dipeptide": "tutorials/alanine",
    "fes_from_trajectory": "tutorials/trajectories",
    "closures": "tutorials/closures",
}
"""Of each notebook its page."""

FENCE = re.compile(r"^```(python|console)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def _cell(kind, text):
    cell = {"cell_type": kind, "metadata": {}, "source": text.strip("\n").splitlines(keepends=True)}
    return {**cell, "execution_count": None, "outputs": []} if kind == "code" else cell


def _prose(text):
    """Without comments and pictures, which the cells draw themselves; of links the words."""
    text = re.sub(r"<!--.*?-->|!\[[^\]]*\]\([^)]*\)", "", text, flags=re.DOTALL)
    text = re.sub(r"\[([^\]]*)\]\((?!http)[^)]*\)", r"\1", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _shown(code):
    """With figures shown where a page saves them: pyplot's by themselves, others as a cell's last expression."""
    code = re.sub(r"^figure\.savefig\(.*\)\n", "", code, flags=re.MULTILINE)
    return re.sub(r"^(.+)\.savefig\([^()]*\)\n\Z", r"\1\n", code, flags=re.MULTILINE)


def cells_of(page):
    """Cells of a page of `docs/`: prose as Markdown, commands after an exclamation mark."""
    parts = FENCE.split((ROOT / "docs" / f"{page}.md").read_text().split("\n## Go on\n")[0])
    cells = [_cell("code", "%matplotlib inline")]
    for prose, language, code in zip(parts[::3], [*parts[1::3], ""], [*parts[2::3], ""], strict=True):
        if _prose(prose):
            cells.append(_cell("markdown", _prose(prose)))
        if language:
            cells.append(_cell("code", _shown(code) if language == "python" else code.replace("$ gancl", "!gancl")))
    return cells


def notebook_of(page):
    """Not run."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells_of(page), "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}


def _small(picture):
    """A PNG in base64, of 256 colours."""
    out = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB").quantize(256).save(out, "PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def _kept(output):
    """An output as it is stored: small pictures, no progress, no warnings, which name folders of the machine."""
    if output["output_type"] == "stream":
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output["text"]).replace("\r\n", "\n").replace("\r", "\n")
        lines = [line for line in plain.split("\n") if "\N{BOX DRAWINGS HEAVY HORIZONTAL}" not in line]
        output["text"] = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).lstrip("\n")
        return output if output["name"] != "stderr" and output["text"].strip() else None
    if "image/png" in output.get("data", {}):
        output["data"]["image/png"] = _small(output["data"]["image/png"])
    return output


def run(page):
    """With outputs, as the text of a file."""
    import nbclient
    import nbformat

    notebook = nbformat.reads(json.dumps(notebook_of(page)), as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [kept for output in cell.outputs if (kept := _kept(output)) is not None]
    return nbformat.writes(notebook, indent=1)


def main():
    """All of them, or those that are named."""
    for name, page in PAGES.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        (ROOT / "examples" / f"{name}.ipynb").write_text(run(page) + "\n")
        print(name)


if __name__ == "__main__":
    main()
