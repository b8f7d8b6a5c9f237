"""One evaluation a structure: OpenMM's own numbers, wherever the tasks run and whatever fails."""

import numpy as np
import openmm
import pytest

from openmm_gancl import load_system
from openmm_gancl.lifting import evaluation
from openmm_gancl.lifting.evaluation import evaluate


@pytest.fixture(scope="module")
def system():
    return load_system("alanine_dipeptide_vacuum")


@pytest.fixture(scope="module")
def xml(system):
    return openmm.XmlSerializer.serialize(system.system)


@pytest.fixture(scope="module")
def positions(system):
    noise = np.random.default_rng(0).standard_normal((7, system.n_atoms, 3))
    return system.positions + 0.002 * noise


@pytest.fixture(scope="module")
def own(system, positions):
    """Of a Context of the test's own."""
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system.system, openmm.VerletIntegrator(0.001), platform)
    energies, forces = [], []
    for one in positions:
        context.setPositions(one)
        state = context.getState(energy=True, forces=True)
        energies.append(state.getPotentialEnergy()._value)
        forces.append(state.getForces(asNumpy=True)._value)
    return np.array(energies), np.array(forces)


def test_energies_and_forces_are_those_of_openmm(xml, positions, own):
    energies, forces = evaluate(xml, positions, "Reference")
    assert np.array_equal(energies, own[0]) and np.array_equal(forces, own[1])
    again, none = evaluate(xml, positions, "Reference", with_forces=False)
    assert np.array_equal(again, own[0]) and none.shape == (7, 0, 3)


def test_no_structures(xml, system):
    energies, forces = evaluate(xml, np.empty((0, system.n_atoms, 3)), "Reference")
    assert energies.shape == (0,) and forces.shape == (0, system.n_atoms, 3)


@pytest.mark.parametrize("broken", [np.nan, np.inf, 1e300])
def test_a_structure_that_fails_leaves_the_others_alone(xml, positions, own, broken):
    bad = positions.copy()
    bad[2, 5, 1] = broken
    energies, forces = evaluate(xml, bad, "Reference")
    others = np.arange(7) != 2
    assert np.array_equal(energies[others], own[0][others]) and np.array_equal(forces[others], own[1][others])
    assert not np.isfinite(energies[2]) and not np.isfinite(forces[2]).all()


def test_atoms_in_one_place_leave_the_others_alone(xml, positions, own):
    bad = positions.copy()
    bad[4] = 0.0
    energies, forces = evaluate(xml, bad, "Reference")
    others = np.arange(7) != 4
    assert np.array_equal(energies[others], own[0][others]) and np.array_equal(forces[others], own[1][others])
    assert not (np.isfinite(energies[4]) and np.isfinite(forces[4]).all())


def test_an_exception_of_openmm_is_not_a_number(xml, positions, own, monkeypatch):
    """Whatever made it raise: here the third structure."""
    real = openmm.Context.setPositions

    def failing(context, at):
        if np.array_equal(at, positions[2]):
            raise openmm.OpenMMException("no energy")
        real(context, at)

    monkeypatch.setattr(openmm.Context, "setPositions", failing)
    energies, forces = evaluate(xml, positions, "Reference")
    assert np.isnan(energies[2]) and np.isnan(forces[2]).all()
    assert np.array_equal(np.delete(energies, 2), np.delete(own[0], 2))


def test_workers_change_nothing(xml, positions, own, monkeypatch):
    monkeypatch.setattr(evaluation, "TASK_SIZE", 3)
    energies, forces = evaluate(xml, positions, "Reference", workers=2)
    assert np.array_equal(energies, own[0]) and np.array_equal(forces, own[1])
    turned, _ = evaluate(xml, positions[::-1], "Reference")
    assert np.array_equal(turned, own[0][::-1])


def test_a_batch_goes_to_the_faster_of_a_card_and_the_reference_platform(xml, positions, own, monkeypatch):
    """The CPU platform stands for a card; the twin: a Reference platform that is slow."""
    monkeypatch.setattr(evaluation, "GPU_PLATFORMS", ("CPU",))
    monkeypatch.setattr(evaluation, "_SECONDS", {})
    many = np.tile(positions, (3, 1, 1))
    assert evaluation.fastest_place(xml, positions, "CPU", 1) == "CPU"  # of too few nothing is timed
    assert evaluation.fastest_place(xml, many, "CPU", 1) == "Reference"
    assert np.array_equal(evaluate(xml, many, "CPU")[0][:7], own[0])
    on_cpu = evaluation._SECONDS[xml, "CPU"]
    evaluation._SECONDS[xml, "Reference"] = 3 * on_cpu
    assert evaluation.fastest_place(xml, many, "CPU", 2) == "CPU"
    assert evaluation.fastest_place(xml, many, "CPU", 4) == "Reference"
    assert np.allclose(evaluate(xml, many, "CPU")[0][:7], own[0], rtol=1e-5, atol=1e-2)
