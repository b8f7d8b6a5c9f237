"""PoCL (Debian's pocl-opencl-icd), OpenCL on a CPU, stands for a card: energies of draws, and moves inside a Context.

python -m pytest -m opencl

It runs no TorchForce, so moves are by PythonForce.
"""

import pytest

from openmm_gancl import learn, load_system
from openmm_gancl.engine.platforms import platform_names
from tests.devices import check_draws, check_moves_in_a_context

pytestmark = [
    pytest.mark.opencl,
    pytest.mark.skipif("OpenCL" not in platform_names(), reason="OpenMM finds no OpenCL device here"),
]


@pytest.fixture(scope="module")
def invertible():
    system = load_system("alanine_dipeptide_vacuum")
    return system, learn(system, seed=1, max_evaluations=13_000).model


@pytest.mark.parametrize("precision", ["mixed", "double"])
def test_log_weights_of_draws(invertible, precision, monkeypatch):
    check_draws(*invertible, f"OpenCL::{precision}", monkeypatch)


@pytest.mark.parametrize("md_steps", [0, 5])
def test_moves_inside_a_context(invertible, md_steps):
    check_moves_in_a_context(*invertible, "OpenCL", "python", md_steps, 60)
