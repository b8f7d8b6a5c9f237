"""Documentation counted: ``python tests/benchmarks/documentation.py CLONE PACKAGE ...``, of git repositories.

Of each: pages (rst or Markdown in its docs), notebooks, public names (functions and classes at the top of modules
without an underscore; of this package those of its stubs), and how many of them stand in any code of its pages,
notebooks, examples or docstrings (lines after ``>>>``), whether that is run or not.
"""

import ast
import json
import re
import subprocess
import sys
from pathlib import PurePosixPath

FENCED = re.compile(
    r"^```[^\n]*\n(.*?)^```|^\.\. (?:code|code-block|testcode)::.*\n((?:\s*\n|[ \t]+.*\n)+)", re.S | re.M
)


def git(clone, *arguments):
    """What git prints."""
    return subprocess.run(["git", "-C", clone, *arguments], capture_output=True, text=True, errors="replace").stdout


def code_of(name, text):
    """Of a page, a notebook, an example or a module."""
    if name.endswith(".ipynb"):
        cells = json.loads(text or '{"cells": []}')["cells"]  # large files are absent from some mirrors
        return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    if name.endswith((".rst", ".md")):
        return "\n".join("".join(found) for found in FENCED.findall(text))
    if "/examples/" in f"/{name}":
        return text
    return "\n".join(re.findall(r"^\s*>>> (.*)$", text, flags=re.MULTILINE))


def names_of(clone, package, files):
    """Public names."""
    stubs = [name for name in files if name.startswith(package) and name.endswith("/__init__.pyi")]
    if stubs:
        text = "".join(git(clone, "show", f"HEAD:{stub}") for stub in stubs)
        return set(re.findall(r"^from \.[\w.]+ import (\w+) as", text, flags=re.MULTILINE))
    found = set()
    for name in files:
        parts = PurePosixPath(name).parts
        hidden = any(part.startswith(("_", "test")) and part != "__init__.py" for part in parts)
        if name.startswith(f"{package}/") and name.endswith(".py") and not hidden:
            for node in ast.parse(git(clone, "show", f"HEAD:{name}")).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                    found.add(node.name)
    return found


def main():
    """A line a package."""
    for clone, package in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        files = [name for name in git(clone, "ls-tree", "-r", "--name-only", "HEAD").split("\n") if name]
        names = names_of(clone, package, files)
        pages = [name for name in files if re.match(r"docs?/.*\.(rst|md)$", name)]
        notebooks = [name for name in files if name.endswith(".ipynb")]
        others = [name for name in files if name.endswith(".py") and name.startswith((package, "examples/"))]
        code = "\n".join(code_of(name, git(clone, "show", f"HEAD:{name}")) for name in [*pages, *notebooks, *others])
        shown = sum(bool(re.search(rf"\b{name}\b", code)) for name in names)
        commit = git(clone, "log", "-1", "--format=%h of %cs").strip()
        print(f"{package} ({commit}): {len(pages)} pages, {len(notebooks)} notebooks, {shown} of {len(names)} in code")


if __name__ == "__main__":
    main()
