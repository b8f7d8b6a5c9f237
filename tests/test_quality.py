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


def test_every_number_of_the_readme_has_a_command_and_every_file_it_names_exists():
    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"\]\((?!http|#)([^)\s]+)\)", text):
        assert (ROOT / name).exists(), name
    for script in re.findall(r"tests/benchmarks/\w+\.py", text):
        assert (ROOT / script).exists(), script
