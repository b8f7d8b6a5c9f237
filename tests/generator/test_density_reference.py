"""An invertible generator as a force: against its own density, and finite differences."""

import numpy as np
import pytest

from openmm_gancl import InputError, load_system, torch_force
from openmm_gancl.generator.density_reference import DensityReference, density_force
from openmm_gancl.units import number
from tests.openmm_contexts import context_of, energy_and_forces
from tests.physics.exact import CHAIN, DOUBLE_WELL
from tests.physics.toy_generators import generator

from .test_forces import BACKENDS

NAMES = (CHAIN.name, DOUBLE_WELL.name)


def places(made, n, seed=0):
    """Structures that the generator draws, and labels of restraints near theirs."""
    labels = np.random.default_rng(seed).uniform(-1.0, 1.0, (n, 1))
    coordinates, _ = made.sample(labels, np.random.default_rng(seed + 1))
    return made.chart.to_cartesian(coordinates), labels + 0.1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_energy_is_that_of_the_density_and_forces_are_its_slopes(name, backend):
    system, made = load_system(name), generator(name, "trained")
    reference = DensityReference(made, system.kT, system.force_constants)
    force = torch_force(made, "reference", force_constants=system.force_constants, backend=backend, force_group=3)
    assert force.getForceGroup() == 3
    positions, labels = places(made, 3)
    context = context_of(force, system.n_atoms, positions[0])
    for place, label in zip(positions, labels, strict=True):
        context.setPositions(place)
        context.setParameter("label_0", label[0])
        energy, forces = energy_and_forces(context)
        coordinates = made.chart.to_internal(place[None])
        assert energy == pytest.approx(reference.energies(coordinates, label[None])[0], rel=1e-9)
        step, slopes = 1e-6, np.empty(place.shape)
        for index in np.ndindex(place.shape):
            ends = [place.copy(), place.copy()]
            ends[0][index] += step
            ends[1][index] -= step
            up, down = reference.energies(made.chart.to_internal(np.stack(ends)), np.stack([label, label]))
            slopes[index] = (up - down) / (2 * step)
        assert np.abs(forces + slopes).max() < 1e-4 * np.abs(slopes).max()


@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_copies_have_the_sum_of_their_energies(backend):
    name = CHAIN.name
    system, made = load_system(name), generator(name, "trained")
    reference = DensityReference(made, system.kT, system.force_constants)
    positions, labels = places(made, 4)
    force = density_force(made, system.kT, system.force_constants, 4, backend=backend)
    context = context_of(force, 4 * system.n_atoms, positions.reshape(-1, 3))
    reference.set_parameters([], labels, np.array([2, 0, 1, 3]), context)
    context.setPositions(positions[[2, 0, 1, 3]].reshape(-1, 3))
    expected = reference.energies(made.chart.to_internal(positions), labels).sum()
    assert number(context.getState(energy=True).getPotentialEnergy()) == pytest.approx(expected, rel=1e-9)
    reference.set_parameters([], labels, np.array([0, 1, 2, 3]), context)  # of other structures
    assert number(context.getState(energy=True).getPotentialEnergy()) != pytest.approx(expected, rel=1e-3)


def test_without_a_restraint_the_label_has_no_force():
    name = DOUBLE_WELL.name
    system, made = load_system(name), generator(name, "trained")
    context = context_of(torch_force(made, "reference", prefix="a_"), system.n_atoms, system.positions)
    before = energy_and_forces(context)[0]
    context.setParameter("a_label_0", 1.3)
    assert energy_and_forces(context)[0] == before


def test_what_it_has_no_force_for_is_refused():
    with pytest.raises(InputError, match="Lifter draws from it"):
        torch_force(generator(DOUBLE_WELL.name, "trained"), "proposal")
