"""The exact answers themselves: energies against OpenMM, windows against brute force, samples against densities."""

import numpy as np
import openmm
import pytest
from scipy.stats import kstest

from openmm_gancl import load_system

from .exact import ANGLES, BARRIER, BONDS, CHAIN, DOUBLE_WELL, EXACT, FORKED, KT, exact_frames
from .statistics import FALSE_ALARM


def openmm_energies(system, positions):
    context = openmm.Context(
        system.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    energies = []
    for frame in positions:
        context.setPositions(frame)
        state = context.getState(energy=True, forces=True)
        energies.append((state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value))
    return tuple(np.array(part) for part in zip(*energies, strict=True))


@pytest.mark.parametrize("toy", [DOUBLE_WELL, FORKED, BARRIER], ids=lambda toy: toy.name)
def test_toy_energy_and_gradient_are_openmms(toy):
    system = load_system(toy.name)
    positions = np.random.default_rng(1).uniform(-0.8, 0.8, size=(50, 1, 3))
    energies, forces = openmm_energies(system, positions)
    np.testing.assert_allclose(toy.energy(positions[:, 0]), energies, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(-toy.gradient(positions), forces, rtol=1e-8, atol=1e-8)


def angle(positions, i, j, k):
    u, v = positions[:, i] - positions[:, j], positions[:, k] - positions[:, j]
    return np.arccos((u * v).sum(-1) / np.linalg.norm(u, axis=-1) / np.linalg.norm(v, axis=-1))


def dihedral(positions, i, j, k, m):
    b = [positions[:, q] - positions[:, p] for p, q in ((i, j), (j, k), (k, m))]
    first, second = np.cross(b[0], b[1]), np.cross(b[1], b[2])
    return np.arctan2(np.linalg.norm(b[1], axis=-1) * (b[0] * second).sum(-1), (first * second).sum(-1))


def test_chain_energy_is_openmms():
    system = load_system("bonded_chain")
    positions = system.positions + np.random.default_rng(2).normal(0, 0.03, size=(50, 5, 3))
    bonds = {(i, j): np.linalg.norm(positions[:, i] - positions[:, j], axis=-1) for i, j in BONDS}
    angles = {atoms: angle(positions, *atoms) for atoms in ANGLES}
    phi, psi = dihedral(positions, 0, 1, 2, 3), dihedral(positions, 4, 2, 1, 3)
    energies, _ = openmm_energies(system, positions)
    np.testing.assert_allclose(CHAIN.energy(bonds, angles, phi, psi), energies, rtol=1e-6)


@pytest.mark.parametrize("toy", [DOUBLE_WELL, FORKED, BARRIER], ids=lambda toy: toy.name)
@pytest.mark.parametrize("label", [0.5, None])
def test_toy_windows_are_integrals_of_the_energy(toy, label):
    axis = np.linspace(-4, 4, 801), np.linspace(-0.9, 0.9, 81), np.linspace(-0.6, 0.6, 41)
    mesh = np.stack(np.meshgrid(*axis, indexing="ij"), axis=-1)
    energy = toy.energy(mesh) + (0.0 if label is None else 100.0 * (mesh[..., 0] - label) ** 2)
    total = np.exp(-energy / KT).sum() * np.prod([a[1] - a[0] for a in axis])
    assert np.log(total) == pytest.approx(toy.log_z(label, 200.0), abs=1e-6)


@pytest.mark.parametrize("name", EXACT)
def test_exact_samples_have_the_label_density(name):
    """Four tests, family-wise false-alarm rate that of 3.5 sigma."""
    system, model = load_system(name), EXACT[name]
    label, force_constants = model.labels[0], float(system.force_constants[0])
    frames = exact_frames(system, model, 4000, np.random.default_rng(3), label)
    if model is CHAIN:
        grid, log_density = model.circle, model.log_turns(label, force_constants)
    else:
        grid, log_density = model.grid, model.log_density(label, force_constants)
    cumulative = np.cumsum(np.exp(log_density - log_density.max()))
    cv_values = system.slow.transform(frames)[:, 0]
    test = kstest(cv_values, lambda value: np.interp(value, grid, cumulative / cumulative[-1]))
    assert test.pvalue > FALSE_ALARM / len(EXACT)


def test_exact_samples_have_the_exact_mean_energy():
    """One test, false-alarm rate that of 3.5 sigma: seven normal terms of the chain against quadrature."""
    system = load_system("bonded_chain")
    frames = exact_frames(system, CHAIN, 4000, np.random.default_rng(4))
    energies, _ = openmm_energies(system, frames)

    def mean(log_density, energy):
        weights = np.exp(log_density - log_density.max())
        return (weights * energy).sum() / weights.sum()

    expected = mean(CHAIN.log_turns(), CHAIN.torsion_energy(CHAIN.circle))
    expected += mean(-10 * (1 + np.cos(CHAIN.circle)) / KT, 10 * (1 + np.cos(CHAIN.circle)))
    for atoms, (centre, k) in BONDS.items():
        expected += mean(CHAIN.log_lengths(atoms), 0.5 * k * (CHAIN.lengths - centre) ** 2)
    for atoms, (centre, k) in ANGLES.items():
        expected += mean(CHAIN.log_bends(atoms), 0.5 * k * (CHAIN.bends - centre) ** 2)
    assert abs(energies.mean() - expected) < 3.5 * energies.std() / len(energies) ** 0.5
