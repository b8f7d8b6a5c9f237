"""The README's Python code runs as it stands."""

import re
from pathlib import Path

import numpy as np

README = Path(__file__).parent.parent / "README.md"


def test_python_code_of_the_readme_runs():
    names = {}
    for code in re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL):
        exec(compile(code, str(README), "exec"), names)
    assert len(names["forces"]) == len(names["learned"].labels.slow.names)
    surface = names["surface"]
    assert np.isfinite(surface.energy).any() and surface.names == ("x",)
