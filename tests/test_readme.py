"""The README's Python code runs as it is, and its card is one."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openmm_gancl import load_system
from openmm_gancl.workflow import options as run_options

README = Path(__file__).parent.parent / "README.md"


def code_of(language):
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)


@pytest.mark.filterwarnings("ignore:what was learned is not to be trusted")
def test_python_code_of_the_readme_runs(monkeypatch, tmp_path):
    small = replace(run_options.LOOP_PRESETS["quick"], n_windows=10, frames_per_window=10, n_first=1000)
    monkeypatch.setattr(run_options, "LOOP_PRESETS", {"default": replace(small, max_evaluations=4000)})
    (tmp_path / "examples").symlink_to(README.parent / "examples")
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in code_of("python"):
        exec(compile(code, str(README), "exec"), names)
    assert len(names["forces"]) == len(names["learned"].labels.slow.names)
    surface = names["surface"]
    assert np.isfinite(surface.energy).any() and surface.names == ("x",)
    assert names["mine"].n_atoms == 22 and names["peptide"].currentStep == 5000
    assert (tmp_path / "learned" / "fes.npz").is_file()


def test_the_card_of_the_readme_is_one(tmp_path):
    (card,) = code_of("toml")
    (tmp_path / "mine.toml").write_text(card)
    shutil.copy(README.parent / "examples" / "alanine_dipeptide_c7eq.pdb", tmp_path / "mine.pdb")
    assert load_system(tmp_path / "mine.toml").slow.names == ("phi", "psi")
