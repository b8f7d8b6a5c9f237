"""Lifts for another temperature and another force field, against closed forms."""

from dataclasses import replace

import numpy as np
import openmm
import pytest

from openmm_gancl import InputError, Lifter, learn, load_system
from openmm_gancl.lifting.lifts import load_lifts, save_lifts
from openmm_gancl.lifting.reweighting import overlap_of
from openmm_gancl.units import thermal_energy
from tests.physics.exact import DOUBLE_WELL, log_integral
from tests.physics.statistics import score, z_limit
from tests.physics.toy_generators import domain, generator

NAME = DOUBLE_WELL.name
N_SCORES = 4
REJECTED = 5.0
PUSH = np.array([2.0, 25.0, 0.0])
"""kJ/mol/nm, of the other force field."""


@pytest.fixture(scope="module")
def system():
    return load_system(NAME)


def warmer(system):
    return replace(system, temperature=400.0)


def pushed(system):
    """The same particle with a constant force."""
    changed = openmm.XmlSerializer.clone(system.system)
    force = openmm.CustomExternalForce(" - ".join(["0", *(f"{f}*{axis}" for f, axis in zip(PUSH, "xyz", strict=True))]))
    force.addParticle(0)
    changed.addForce(force)
    return replace(system, system=changed)


def exact_log_density(x, temperature=300.0, push=(0.0, 0.0, 0.0)):
    """Given x, the fast coordinates are normal, and a constant force moves them."""
    kT = thermal_energy(temperature)
    ky, kz = 2000 * np.exp(0.8 * np.tanh(2 * x)), 1000 * np.exp(0.3 * np.tanh(2 * x))
    moved = push[1] * 0.25 * np.sin(1.5 * x) + push[1] ** 2 / (2 * ky)
    return (push[0] * x + moved - 10 * (x**2 - 1) ** 2) / kT + np.log(2 * np.pi * kT / np.sqrt(ky * kz))


def exact_log_window(label, constant_kT, **of):
    x = DOUBLE_WELL.grid
    return log_integral(exact_log_density(x, **of) - 0.5 * constant_kT * (x - label) ** 2, x)


CASES = [(warmer, {"temperature": 400.0}), (pushed, {"push": PUSH})]


@pytest.mark.parametrize(("change", "of"), CASES)
def test_fixed_labels(system, change, of):
    labels = np.random.default_rng(4).uniform(*domain(NAME), (4000, 1))
    lifts = Lifter(system, generator(NAME, "trained")).lift(labels, seed=1)
    found = lifts.reweight(change(system))
    result = score(found.lifts.log_weights - exact_log_density(labels[:, 0], **of), 0.0)
    assert result.relative_error < 0.05 and abs(result.z) < z_limit(N_SCORES), result
    assert 0.1 < found.overlap < 1 and found.lifts.force_evaluations == 8000
    unchanged = score(lifts.log_weights - exact_log_density(labels[:, 0], **of), 0.0)
    assert abs(unchanged.z) > REJECTED, unchanged


@pytest.mark.parametrize(("change", "of"), CASES)
def test_restrained_lifts_keep_their_restraints_in_units_of_kT(system, change, of):
    label = 0.8
    lifter = Lifter(system, generator(NAME, "trained"), relax="context", relax_steps=3)
    lifts, other = lifter.lift(np.full((512, 1), label), seed=1), change(system)
    found = lifts.reweight(other).lifts
    constant_kT = float(system.force_constants[0] / system.kT)
    assert found.force_constants[0] == pytest.approx(constant_kT * other.kT)
    result = score(found.log_weights, exact_log_window(label, constant_kT, **of))
    assert result.relative_error < 0.05 and abs(result.z) < z_limit(N_SCORES), result
    unchanged = score(lifts.log_weights, exact_log_window(label, constant_kT, **of))
    assert abs(unchanged.z) > REJECTED, unchanged


def test_the_surface_of_a_loop_at_another_temperature(system):
    learned = learn(system, seed=1, max_evaluations=10_000)
    other = learned.reweight(warmer(system))
    assert other.surface.temperature == 400.0 and 0.3 < other.overlap < 1 == learned.overlap
    centres = other.surface.edges[0][:-1] + 0.5 * np.diff(other.surface.edges[0])
    exact = -exact_log_density(centres, temperature=400.0)
    low = (exact < exact.min() + 8) & np.isfinite(other.surface.energy)
    for surface, kT, right in ((other.surface, thermal_energy(400.0), True), (learned.surface, system.kT, False)):
        difference = surface.energy[low] / kT - exact[low]
        assert (np.std(difference) < 0.06) == right, np.std(difference)


def test_the_overlap_of_equal_weights_is_one_and_of_one_lift_one_over_n():
    weights = np.log(np.full(10, 0.1))
    assert overlap_of(weights, weights + 3.0) == pytest.approx(1.0)
    assert overlap_of(weights, np.where(np.arange(10) == 3, 0.0, -np.inf)) == pytest.approx(0.1)
    assert overlap_of(weights, np.full(10, -np.inf)) == 0.0


def test_what_is_another_molecule_is_refused(system, tmp_path):
    lifts = Lifter(system, generator(NAME, "trained")).lift(np.zeros((4, 1)), seed=1)
    with pytest.raises(InputError, match="has other atoms"):
        lifts.reweight(load_system("bonded_chain"))
    with pytest.raises(InputError, match="has other labels"):
        lifts.reweight(replace(system, slow=load_system("forked_oscillator").slow, name="other"))
    save_lifts(lifts, tmp_path / "lifts.npz")
    again = load_lifts(tmp_path / "lifts.npz", system.slow)
    assert again.mode == "fixed" and np.array_equal(again.log_weights, lifts.log_weights)
    with pytest.raises(InputError, match="no positions"):
        again.reweight(system)


def test_a_clash_of_no_weight_does_not_hide_the_overlap():
    """It changes most with temperature; ratios over the largest change were all zero, and their overlap NaN."""
    before, after = np.array([0.0, 0.0, 0.0, -2000.0]), np.array([0.0, 0.0, 0.0, -1000.0])
    assert overlap_of(before, after) == pytest.approx(1.0)
    assert overlap_of(before, np.array([0.0, 0.0, -5.0, -1000.0])) == pytest.approx(2 / 3, abs=0.01)
    assert overlap_of(before, np.array([0.0, 0.0, 0.0, np.log(3.0)])) == pytest.approx(0.5)
