"""The code of `docs/closures.md` runs as it stands, and its numbers are what they should be."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "closures.md").read_text()


def test_the_code_of_the_page_runs():
    names = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(code, "closures.md", "exec"), names)
    assert names["y_given_x"][:, 0] == pytest.approx([-0.249, 0.170], abs=0.01)
    assert names["there"] > names["back"] > 10
    assert names["inertial"].model.friction[0, 0] == pytest.approx(5.0, rel=0.6)
    assert names["relaxation"].saved > 1.5 and len(names["relaxation"].values) == 3


def test_what_the_page_names_is_there():
    from openmm_gancl import closures

    for name in re.findall(r"`(\w+)`", PAGE):
        if name in {
            "misfit",
            "healed",
            "projected",
            "simulate",
            "mueller_brown",
            "alanine_dipeptide_vacuum",
            "deviation",
        }:
            continue
        assert hasattr(closures, name) or name.endswith(("html", "json", "npz", "png")), name
