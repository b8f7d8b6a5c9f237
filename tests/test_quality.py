"""The house rules that a machine can check: lint, format, types, no addresses or machine paths."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]])
def test_tool_finds_nothing(command):
    finished = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_constraints_hold_no_addresses():
    assert "://" not in (ROOT / ".ci" / "constraints.txt").read_text()


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.stem
)
def test_every_file_that_a_page_names_exists(path):
    text = path.read_text()
    for name in re.findall(r"\]\((?!http|#)([^)\s#]+)[^)\s]*\)", text):
        assert (path.parent / name).exists(), name
    for script in re.findall(r"tests/[\w/]+\.py", text):
        assert (ROOT / script).exists(), script
    for module in re.findall(r"python -m (tests\.[\w.]+)", text):
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists(), module


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_lines_left_out_of_coverage_are_few_and_each_says_why():
    texts = [path.read_text() for path in sorted((ROOT / "openmm_gancl").rglob("*.py"))]
    lines = [line for text in texts for line in text.splitlines() if "pragma: no cover" in line]
    assert len(lines) <= 20
    assert all(re.search(r"# pragma: no cover - \w.{10,}", line) for line in lines), lines
