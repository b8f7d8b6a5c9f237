"""What lifts of one structure and their check do not look for is said, and nothing where there is nothing."""

import numpy as np
import pytest

from openmm_gancl import load_system
from openmm_gancl.lifting.one_structure import doubts_about_one_structure

from ..physics.valine import valine


def about(y, n=200):
    rng = np.random.default_rng(1)
    found = np.zeros((n, 1, 3))
    found[:, 0, 0] = rng.uniform(-0.5, 0.5, n)
    found[:, 0, 1] = rng.choice(y, n) + rng.normal(0.0, 0.04, n)
    found[:, 0, 2] = 0.2 * np.sin(2 * found[:, 0, 0]) + rng.normal(0.0, 0.06, n)
    return found


@pytest.mark.parametrize(("y", "said"), [((0.3,), True), ((0.3, -0.3), False)])
def test_a_well_without_lifts_has_a_name(y, said):
    found = list(doubts_about_one_structure(load_system("forked_oscillator"), about(y)))
    assert len(found) == said and all("particle 0, y has a well near -0.3" in sentence for sentence in found)


@pytest.mark.parametrize(
    "name", ["double_well_oscillators", "narrow_barrier", "bonded_chain", "alanine_dipeptide_vacuum"]
)
def test_shipped_systems_leave_no_doubt(name):
    system = load_system(name)
    rng = np.random.default_rng(2)
    near = system.positions + rng.normal(0.0, 0.05, (200, *system.positions.shape))
    assert not list(doubts_about_one_structure(system, near))


def test_torsions_that_turn_are_named():
    system = valine()
    named = [sentence.partition(" turns")[0] for sentence in doubts_about_one_structure(system, system.positions[None])]
    assert named == ["VAL2:CG1-CB-CA-N"]
