"""Biases that OpenMM's Metadynamics and openmm-opes leave on disk: read back, and undone on a double well.

The same particle in a double well, with the bias as its sampler applied it, is the truth for the readers; quadrature
is the truth for the surface. Limits on |z| are family-wise over the bins, at the false-alarm rate of 3.5 sigma.
"""

import numpy as np
import openmm
import pytest
from openmm import app, unit
from openmm.app.metadynamics import BiasVariable, Metadynamics
from openmm_opes import OPES

from openmm_gancl import InputError
from openmm_gancl.free_energy.from_trajectories import analyse
from openmm_gancl.trajectories import metadynamics_bias, opes_bias
from openmm_gancl.trajectories.observations import read
from openmm_gancl.units import thermal_energy

from .statistics import z_limit

TEMPERATURE, BARRIER, LIMITS = 300.0, 25.0, (-2.0, 2.0)
KT = thermal_energy(TEMPERATURE)
N_FRAMES, EVERY = 6000, 150
WELL = "18*(x^2-1)^2+2*x+40*(y^2+z^2)"


def coordinate():
    force = openmm.CustomExternalForce("x")
    force.addParticle(0)
    return force


def particle():
    system = openmm.System()
    system.addParticle(20.0)
    force = openmm.CustomExternalForce(WELL)
    force.addParticle(0)
    system.addForce(force)
    return system


def simulation_of(system, x=-1.0):
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 5.0, 0.01)
    integrator.setRandomNumberSeed(7)
    topology = app.Topology()
    topology.addAtom("X", None, topology.addResidue("X", topology.addChain()))
    simulation = app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName("Reference"))
    simulation.context.setPositions([[x, 0.0, 0.0]])
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, 3)
    return simulation


def sampled(sampler, simulation, n_frames):
    places = []
    for _ in range(n_frames):
        sampler.step(simulation, EVERY)
        positions = simulation.context.getState(getPositions=True).getPositions(asNumpy=True)
        places.append(positions.value_in_unit(unit.nanometer)[0, 0])
    return np.array(places)


def bias_in_context(sampler, simulation, places):
    """As the sampler's own force gives it, kJ/mol."""
    energies = []
    for x in places:
        simulation.context.setPositions([[x, 0.0, 0.0]])
        state = simulation.context.getState(getEnergy=True, groups={sampler._force.getForceGroup()})
        energies.append(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))
    return np.array(energies)


@pytest.fixture(scope="module")
def metadynamics(tmp_path_factory):
    """Frames of the last three quarters, the folder with the bias, and the bias as applied at some places."""
    folder, system = tmp_path_factory.mktemp("metadynamics"), particle()
    variable = BiasVariable(coordinate(), *LIMITS, 0.15, False, 101)
    sampler = Metadynamics(system, [variable], TEMPERATURE, 10.0, 0.6, 150, EVERY * 100, str(folder))
    simulation = simulation_of(system)
    places = sampled(sampler, simulation, N_FRAMES)
    there = np.linspace(-1.6, 1.6, 31)
    return places[N_FRAMES // 4 :], folder, there, bias_in_context(sampler, simulation, there)


@pytest.fixture(scope="module")
def opes(tmp_path_factory):
    folder, system = tmp_path_factory.mktemp("opes"), particle()
    variable = BiasVariable(coordinate(), *LIMITS, 0.15, False, 401)
    sampler = OPES(system, [variable], TEMPERATURE, BARRIER, 150, None, saveFrequency=EVERY * 100, biasDir=str(folder))
    simulation = simulation_of(system)
    places = sampled(sampler, simulation, N_FRAMES)
    np.savez(folder / "state.npz", **sampler.getState())
    there = np.linspace(-1.6, 1.6, 31)
    return places[N_FRAMES // 4 :], folder, there, bias_in_context(sampler, simulation, there)


def test_metadynamics_bias_is_that_of_the_sampler(metadynamics):
    _, folder, there, energies = metadynamics
    bias = metadynamics_bias(folder, periods=[np.inf], limits=[LIMITS])
    assert bias.energies(there[:, None]) == pytest.approx(energies, abs=1e-3)
    assert np.ptp(energies) > 10.0
    assert bias.energies(np.array([[-2.5], [2.1]])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", ["", "state.npz"])
def test_opes_bias_is_that_of_the_sampler(opes, name):
    _, folder, there, energies = opes
    bias = opes_bias(folder / name, temperature=TEMPERATURE, barrier=BARRIER, periods=[np.inf])
    assert np.ptp(bias.energies(there[:, None]) - energies) < 0.001  # the sampler raises its bias by a constant
    assert np.ptp(energies) > 10.0


def test_periodic_biases_in_two_dimensions_are_those_of_the_samplers(tmp_path):
    """A pair of angles made of x and y; both samplers store the first variable last."""
    system, simulations = particle(), {}
    for name in ("metadynamics", "opes"):
        system = particle()
        variables = []
        for axis, width in (("x", 0.3), ("y", 0.5)):
            force = openmm.CustomExternalForce(axis)
            force.addParticle(0)
            variables.append(BiasVariable(force, -np.pi, np.pi, width, True, 61 if axis == "x" else 41))
        if name == "metadynamics":
            sampler = Metadynamics(system, variables, TEMPERATURE, 5.0, 1.0, 50, 500, str(tmp_path))
        else:
            sampler = OPES(system, variables, TEMPERATURE, BARRIER, 50, None)
        simulations[name] = (sampler, simulation_of(system))
        sampler.step(simulations[name][1], 5000)
    np.savez(tmp_path / "opes.npz", **simulations["opes"][0].getState())
    periods = [2 * np.pi, 2 * np.pi]
    nodes = {
        "metadynamics": metadynamics_bias(tmp_path, periods=periods),
        "opes": opes_bias(tmp_path / "opes.npz", temperature=TEMPERATURE, barrier=BARRIER, periods=periods),
    }
    x, y = np.linspace(-np.pi, np.pi, 61), np.linspace(-np.pi, np.pi, 41)
    places = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
    stored = {
        "metadynamics": simulations["metadynamics"][0]._totalBias,
        "opes": simulations["opes"][0].getBias().value_in_unit(unit.kilojoule_per_mole),
    }
    for name, bias in nodes.items():
        assert bias.energies(places).reshape(61, 41) == pytest.approx(stored[name].T, abs=1e-6), name


def test_compact_kernels_are_those_of_the_sampler(tmp_path):
    """Their state does not tell the shape: as Gaussians they make another bias."""
    system = particle()
    shape = {"kernelShape": "compact"}
    sampler = OPES(
        system, [BiasVariable(coordinate(), *LIMITS, 0.15, False, 401)], TEMPERATURE, BARRIER, 150, None, **shape
    )
    simulation = simulation_of(system)
    sampled(sampler, simulation, 400)
    np.savez(tmp_path / "state.npz", **sampler.getState())
    there = np.linspace(-1.4, 1.4, 31)
    energies = bias_in_context(sampler, simulation, there)
    common = {"temperature": TEMPERATURE, "barrier": BARRIER, "periods": [np.inf]}
    deviations = {
        shape: np.ptp(
            opes_bias(tmp_path / "state.npz", kernel_shape=shape, **common).energies(there[:, None]) - energies
        )
        for shape in ("compact", "gaussian")
    }
    assert deviations["compact"] < 0.01 and deviations["gaussian"] > 0.5 and np.ptp(energies) > 10.0
    with pytest.raises(InputError, match="choose gaussian or compact"):
        opes_bias(tmp_path / "state.npz", kernel_shape="round", **common)


def surface_scores(places, bias, tmp_path):
    np.save(tmp_path / "x.npy", places)
    observations = read([], None, [f"npy:{tmp_path / 'x.npy'}"], TEMPERATURE, bias=bias)
    analysis = analyse(observations, bins=40, discard=0, method="histogram")
    (edges,) = analysis.surface.edges
    x = (edges[:-1, None] + np.diff(edges)[:, None] * (np.arange(20) + 0.5) / 20).ravel()
    exact = -np.log(np.exp(-(18 * (x**2 - 1) ** 2 + 2 * x) / KT).reshape(40, 20).mean(axis=1))
    energy, error = analysis.surface.energy / KT, analysis.surface.error / KT
    low = (energy < 8.0) & (exact - exact.min() < 8.0)
    difference = (energy - exact)[low]
    return (difference - difference.mean()) / error[low], error[low]


def test_metadynamics_is_undone(metadynamics, tmp_path):
    places, folder, _, _ = metadynamics
    z, _ = surface_scores(places, metadynamics_bias(folder, periods=[np.inf], limits=[LIMITS]), tmp_path)
    assert len(z) > 15 and np.abs(z).max() < z_limit(len(z)), z


def test_opes_is_undone(opes, tmp_path):
    places, folder, _, _ = opes
    bias = opes_bias(folder, temperature=TEMPERATURE, barrier=BARRIER, periods=[np.inf])
    z, _ = surface_scores(places, bias, tmp_path)
    assert len(z) > 15 and np.abs(z).max() < z_limit(len(z)), z


def test_without_the_bias_the_surface_is_wrong(metadynamics, tmp_path):
    z, _ = surface_scores(metadynamics[0], None, tmp_path)
    assert np.abs(z).max() > 2 * z_limit(len(z))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"periods": [np.inf]}, "needs 1 ranges"),
        ({"periods": []}, "name each of them by `bias_cvs`"),
        ({"periods": [np.inf], "limits": [LIMITS, LIMITS]}, "needs 1 ranges"),
    ],
)
def test_ranges_that_are_missing(metadynamics, arguments, message):
    with pytest.raises(InputError, match=message):
        metadynamics_bias(metadynamics[1], **arguments)


def test_files_of_another_kind(metadynamics, opes, tmp_path):
    with pytest.raises(InputError, match="holds no bias_"):
        metadynamics_bias(tmp_path, periods=[np.inf])
    with pytest.raises(InputError, match="there is no file or folder"):
        metadynamics_bias(tmp_path / "none", periods=[np.inf])
    with pytest.raises(InputError, match="no bias of OpenMM"):
        metadynamics_bias(opes[1] / "state.npz", periods=[np.inf])
    (tmp_path / "bias_1_1.npy").write_text("words")
    with pytest.raises(InputError, match="cannot read"):
        metadynamics_bias(tmp_path, periods=[np.inf])
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(InputError, match="no state of openmm-opes"):
        opes_bias(tmp_path / "other.npz", temperature=300.0, barrier=25.0, periods=[np.inf])
    with pytest.raises(InputError, match="no kernels on 2 variables"):
        opes_bias(opes[1], temperature=300.0, barrier=25.0, periods=[np.inf, np.inf])
    with pytest.raises(InputError, match="make no OPES bias"):
        opes_bias(opes[1], temperature=300.0, barrier=1.0, periods=[np.inf])
