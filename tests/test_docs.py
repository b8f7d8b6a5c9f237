"""The commands and the code of `docs/other_programs.md` run on small files of a surface that is known."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from openmm_gancl.cli import app

from .trajectories.known_surface import KT, energy

pytestmark = pytest.mark.usefixtures("without_pictures")

ROOT = Path(__file__).parent.parent
TABLES = ROOT / "tests" / "data" / "tables"
PAGE = (ROOT / "docs" / "other_programs.md").read_text()
COMMANDS = re.findall(r"^\$ gancl (fes .*)$", PAGE, flags=re.MULTILINE)
LIMIT = 0.3
"""kT, below 5 kT: of 100 frames a window, or 800 biased ones, the truth lies at 0.1 to 0.2."""


def deviation(edges, found, error):
    """RMS from the truth below 5 kT, kT, and in error bars."""
    x = 0.5 * (edges[1:] + edges[:-1])
    exact = energy(np.radians(x) if np.ptp(edges) > 100 else x)
    low = (exact - exact.min() < 5 * KT) & np.isfinite(found)
    difference = (found - exact)[low]
    difference -= difference.mean()
    return float(difference.std()) / KT, float(np.sqrt(((difference / error[low]) ** 2).mean()))


def test_the_page_has_a_command_for_each_program():
    for program in ("plumed sum_hills", "plumed driver", "wham P", "gmx wham", "FES_from_Reweighting", "pymbar.FES"):
        assert program in PAGE
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_gives_the_surface_that_is_known(command, monkeypatch, tmp_path):
    monkeypatch.chdir(TABLES)
    result = CliRunner().invoke(app, [*shlex.split(command), "-o", str(tmp_path / "fes")])
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "fes.npz") as stored:
        rms, score = deviation(stored["edges_0"], stored["energy"], stored["error"])
    assert rms < LIMIT and score < 2.5, (rms, score)


def test_a_wrong_unit_would_show(monkeypatch, tmp_path):
    """The twin, for a bias of which only the user knows the unit."""
    monkeypatch.chdir(TABLES)
    (command,) = [command for command in COMMANDS if "COLVAR_opes" in command]
    CliRunner().invoke(app, [*shlex.split(command), "--input-unit", "kcal/mol", "-o", str(tmp_path / "fes")])
    with np.load(tmp_path / "fes.npz") as stored:
        assert deviation(stored["edges_0"], stored["energy"], stored["error"])[0] > 3 * LIMIT


def test_the_code_of_the_page_runs(monkeypatch):
    monkeypatch.chdir(TABLES)
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL) if "openmm_gancl" in code]
    names = {}
    exec(compile(code, "other_programs.md", "exec"), names)
    surface = names["analysis"].surface
    assert deviation(surface.edges[0], surface.energy, surface.error)[0] < LIMIT
