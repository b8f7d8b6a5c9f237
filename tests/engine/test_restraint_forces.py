"""Learned slow coordinates inside a Context: restraint and collective variables by both backends, and native ones."""

import copy
import json
import subprocess
import sys

import numpy as np
import openmm
import pytest

from openmm_gancl import InputError, load_system
from openmm_gancl.coordinates.restraint_energies import log_boltzmann_factors, restraint_energies
from openmm_gancl.coordinates.slow_coordinates import ModuleCoordinates, slow_from_description
from openmm_gancl.engine.restraint_forces import add_restraint, coordinate_forces, make_restraint
from openmm_gancl.learning.learned_labels import learn_slow_coordinates
from openmm_gancl.sampling.windows import sample_windows
from tests.openmm_contexts import BACKENDS, context_of, energy_and_forces, finite_differences

pytestmark = pytest.mark.openmmtorch

KAPPA = np.array([30.0, 40.0])


@pytest.fixture(scope="module")
def frames():
    system = load_system("bonded_chain")
    return sample_windows(system, n_windows=32, steps_per_window=200, frames_per_window=10, platform="Reference")


@pytest.fixture(scope="module")
def mixed(frames):
    """The chain's torsion and one learned coordinate."""
    system = load_system("bonded_chain")
    return learn_slow_coordinates(system, frames.positions, keep=["phi"], most=1, n_landmarks=60).labels.slow


@pytest.mark.parametrize("backend", BACKENDS)
def test_restraint_in_a_context(mixed, frames, backend):
    """Energies equal the formula, also after the centre has moved, and forces equal finite differences."""
    positions = frames.positions[7]
    restraint = make_restraint(mixed, KAPPA, 3, backend=backend)
    assert restraint.force.getForceGroup() == 3
    context = context_of(restraint.force, 5, positions)
    for label in (np.array([3.0, 0.2]), np.array([-1.0, -0.7])):
        restraint.move(context, label)
        context.setPositions(positions)
        energy, forces = energy_and_forces(context)
        cv_values = mixed.transform(positions[None])
        assert energy == pytest.approx(restraint_energies(mixed, KAPPA, cv_values, label)[0], rel=1e-9)
        assert np.abs(forces).max() > 1.0
        assert forces == pytest.approx(finite_differences(context, positions), rel=1e-5, abs=1e-4)


@pytest.mark.skipif("torch" not in BACKENDS, reason="openmm-torch cannot be loaded")
def test_both_backends_give_the_same_numbers(mixed, frames):
    results = []
    for backend in BACKENDS:
        restraint = make_restraint(mixed, KAPPA, 0, backend=backend)
        context = context_of(restraint.force, 5, frames.positions[3])
        restraint.move(context, np.array([1.0, 0.5]))
        results.append(energy_and_forces(context))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-12)
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_coordinates_as_collective_variables(mixed, frames, backend):
    """Each force's energy is its coordinate; a bias on both is a CustomCVForce, whose System can be copied."""
    positions, values = frames.positions[5], mixed.transform(frames.positions[5][None])[0]
    for force, value in zip(coordinate_forces(mixed, backend=backend), values, strict=True):
        context = context_of(force, 5, positions)
        energy, forces = energy_and_forces(context)
        assert energy == pytest.approx(value, rel=1e-9)
        assert forces == pytest.approx(finite_differences(context, positions), rel=1e-5, abs=1e-5)
    bias = openmm.CustomCVForce("height*exp(-a^2-b^2)")
    bias.addGlobalParameter("height", 5.0)
    for name, force in zip("ab", coordinate_forces(mixed, backend=backend), strict=True):
        bias.addCollectiveVariable(name, force)
    energy, _ = energy_and_forces(context_of(copy.deepcopy(bias), 5, positions))
    assert energy == pytest.approx(5.0 * np.exp(-(values**2).sum()), rel=1e-9)


@pytest.mark.parametrize("name", ["bonded_chain", "double_well_oscillators"])
def test_native_coordinates_as_collective_variables(name):
    system = load_system(name)
    (force,) = coordinate_forces(system.slow)
    energy, _ = energy_and_forces(context_of(force, system.n_atoms, system.positions))
    assert energy == pytest.approx(system.slow.transform(system.positions[None])[0, 0], rel=1e-9)


def test_a_restraint_that_the_system_carries_stays_as_it_is(mixed, frames):
    """OpenMM takes parameters of one name for one, whichever force they are of."""
    own = make_restraint(mixed, KAPPA, 1)
    system = openmm.System()
    for _ in range(load_system("bonded_chain").n_atoms):
        system.addParticle(12.0)
    system.addForce(own.force)
    ours = add_restraint(system, mixed, 3.0 * KAPPA, 2)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(frames.positions[0])
    here, there, xi = np.array([0.3, -0.2]), np.array([-0.9, 0.4]), mixed.transform(frames.positions[:1])
    own.move(context, here)
    ours.move(context, there)
    for group, constants, label in ((1, KAPPA, here), (2, 3.0 * KAPPA, there)):
        energy = context.getState(energy=True, groups={group}).getPotentialEnergy()._value
        assert energy == pytest.approx(restraint_energies(mixed, constants, xi, label[None])[0], rel=1e-9)


def test_restrained_windows_of_learned_labels(mixed, frames):
    """A real run in a worker's way: the windows hold their labels."""
    from dataclasses import replace

    system = replace(load_system("bonded_chain"), slow=mixed, force_constants=np.array([100.0, 100.0]))
    labels = mixed.transform(frames.positions[[0, 200]])
    frames_in_windows = sample_windows(
        system,
        labels,
        starts=frames.positions[[0, 200]],
        steps_per_window=400,
        frames_per_window=40,
        equilibration_steps=200,
        platform="Reference",
    )
    assert np.abs(np.angle(np.exp(1j * (frames_in_windows.cv_values - frames_in_windows.labels)))).mean() < 0.25
    with pytest.raises(InputError, match="give one start a label"):
        sample_windows(system, labels, platform="Reference")


def test_module_coordinates_come_back_from_their_description(mixed, frames):
    again = slow_from_description(json.loads(json.dumps(mixed.describe())), mixed.tensors())
    assert isinstance(again, ModuleCoordinates) and again.names == ("phi", mixed.names[1])
    assert again.periods.tolist() == [2 * np.pi, np.inf]
    np.testing.assert_array_equal(again.transform(frames.positions), mixed.transform(frames.positions))
    with pytest.raises(InputError, match="2 pi, or none"):
        ModuleCoordinates(("a",), np.array([3.0]), np.array([[0.0, 3.0]]), b"")


def test_openmm_may_be_imported_first(tmp_path):
    """The plugins of openmm-torch are loaded by hand then, and their import says nothing."""
    script = (
        "import openmm, sys\n"
        "from openmm_gancl.engine.torch_force import module_force, torch_force_type\n"
        "import torch\n"
        "class Spring(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x.square().sum()\n"
    )
    (tmp_path / "spring.py").write_text(
        script + "system = openmm.System(); system.addParticle(1.0)\n"
        "system.addForce(module_force(torch.jit.script(Spring()), {}))\n"
        "context = openmm.Context(system, openmm.VerletIntegrator(0.001), "
        "openmm.Platform.getPlatformByName('Reference'))\n"
        "context.setPositions([[1.0, 2.0, 0.0]])\n"
        "print(context.getState(energy=True).getPotentialEnergy()._value)\n"
    )
    # newer torch says of TorchScript, the script's own too, that it is deprecated
    command = [sys.executable, "-W", "ignore:`torch.jit:FutureWarning", str(tmp_path / "spring.py")]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.stdout.strip() == "5.0", finished.stderr
    assert "Warning" not in finished.stderr and "simtk" not in finished.stderr


@pytest.mark.parametrize("name", ["alanine_dipeptide_vacuum", "double_well_oscillators"])
def test_centres_and_constants_as_parameters_of_the_context(name):
    """The same energies and forces as the restraint of windows, from setParameter alone."""
    system = load_system(name)
    d = len(system.slow.names)
    kappa, label = np.linspace(20.0, 50.0, d), np.linspace(-0.7, 1.1, d)
    plain = make_restraint(system.slow, np.linspace(20.0, 50.0, d), 0)
    named = make_restraint(system.slow, np.full(d, 1.0), 2, parameters=True)
    assert named.force.getForceGroup() == 2
    contexts = [context_of(one.force, system.n_atoms, system.positions) for one in (plain, named)]
    plain.move(contexts[0], label)
    for i in range(d):
        contexts[1].setParameter(f"window_centre_{i}", label[i])
        contexts[1].setParameter(f"window_constant_{i}", kappa[i])
    (energy, forces), (other, others) = (energy_and_forces(context) for context in contexts)
    assert energy == pytest.approx(other, rel=1e-12) and np.abs(forces).max() > 1.0
    np.testing.assert_allclose(others, forces, rtol=1e-9, atol=1e-9)
    named.move(contexts[1], label + 0.3)
    expected = restraint_energies(system.slow, kappa, system.slow.transform(system.positions[None]), label + 0.3)[0]
    assert energy_and_forces(contexts[1])[0] == pytest.approx(expected, rel=1e-9)


def test_factors_of_all_windows_at_all_places_are_those_of_the_restraints():
    """A torsion, two lengths far from zero, another torsion; also around the circle."""
    rng = np.random.default_rng(0)
    slow = ModuleCoordinates(tuple("abcd"), np.array([2 * np.pi, np.inf, np.inf, 2 * np.pi]), np.zeros((4, 2)), b"")
    kappa = np.array([80.0, 4000.0, 2.0, 3.0])
    places, centres = (rng.uniform(-3.0, 3.0, (n, 4)) + np.array([0.0, 50.0, 0.0, 7.0]) for n in (50, 70))
    expected = -restraint_energies(slow, kappa, places[:, None], centres[None])
    np.testing.assert_allclose(log_boltzmann_factors(slow, kappa, places, centres), expected, rtol=1e-9, atol=1e-9)
