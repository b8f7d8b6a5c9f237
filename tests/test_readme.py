"""The README's Python code runs as it is, and its card is one."""

import re
import shutil
from pathlib import Path

import numpy as np

from openmm_gancl import load_system

README = Path(__file__).parent.parent / "README.md"


def code_of(language):
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)


def test_python_code_of_the_readme_runs(monkeypatch):
    monkeypatch.chdir(README.parent)
    names = {}
    for code in code_of("python"):
        exec(compile(code, str(README), "exec"), names)
    assert len(names["forces"]) == len(names["learned"].labels.slow.names)
    surface = names["surface"]
    assert np.isfinite(surface.energy).any() and surface.names == ("x",)
    assert names["mine"].n_atoms == 22


def test_the_card_of_the_readme_is_one(tmp_path):
    (card,) = code_of("toml")
    (tmp_path / "mine.toml").write_text(card)
    shutil.copy(README.parent / "examples" / "alanine_dipeptide_c7eq.pdb", tmp_path / "mine.pdb")
    assert load_system(tmp_path / "mine.toml").slow.names == ("phi", "psi")
