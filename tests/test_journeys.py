"""The three journeys of users, from Python, as short as they are meant to be."""

import mdtraj
import numpy as np
import openmm
import pytest
from openmm import app, unit

import openmm_gancl as gancl

QUICK = {"platform": "Reference", "seed": 1}


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    system = gancl.load_system("alanine_dipeptide_vacuum")
    frames = gancl.sample_windows(system, n_windows=16, steps_per_window=200, frames_per_window=10, **QUICK)
    model = gancl.train(system, frames, seed=2, options=gancl.TrainingOptions(latent_size=0))
    model.save(path := tmp_path_factory.mktemp("journeys") / "model.safetensors")
    return path


def test_an_existing_script_with_two_lines_added(model_file):
    system = gancl.load_system("alanine_dipeptide_vacuum")
    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtoseconds)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(system.topology, system.system, integrator, platform)
    simulation.context.setPositions(system.positions)
    move = gancl.LiftMove(simulation, gancl.load_model(model_file), relax_steps=50, **QUICK)
    records = move.run(3, md_steps=10)
    assert len(records) == len(move.history) == 3 and simulation.currentStep == 30
    assert 0.0 <= move.acceptance_rate <= 1.0
    found = gancl.structures_at(simulation, gancl.load_model(model_file), labels=(-1.4, 1.2), n=4, relax_steps=50)
    assert found.positions.shape == (4, 22, 3) and "exact" in found.guarantee


def test_alanine_dipeptide_the_whole_method(model_file, tmp_path):
    system, model = gancl.load_system("alanine_dipeptide_vacuum"), gancl.load_model(model_file)
    labels = np.repeat(gancl.grid_labels(system.slow, 6), 4, axis=0)
    lifts = gancl.Lifter(system, model, relax_steps=50, platform="Reference").lift(labels, seed=2)
    surface = gancl.surface_from_lifts(lifts)
    assert surface.names == ("phi", "psi") and surface.energy.shape == surface.error.shape
    assert surface.energy[np.isfinite(surface.energy)].min() == 0.0
    surface.save(tmp_path / "fes.npz")
    assert np.array_equal(gancl.load_surface(tmp_path / "fes.npz").energy, surface.energy)
    assert gancl.plot_surface(surface, basins=system.basins).get_xlabel()


def test_a_surface_from_trajectories(tmp_path):
    system = gancl.load_system("alanine_dipeptide_vacuum")
    frames = gancl.sampling.sample_langevin(system, 20_000, n_frames=1000, **QUICK)
    trajectory = mdtraj.Trajectory(frames.positions.astype(np.float32), mdtraj.Topology.from_openmm(system.topology))
    trajectory.save_dcd(str(tmp_path / "run.dcd"))
    trajectory[0].save_pdb(str(tmp_path / "top.pdb"))
    files = ([tmp_path / "run.dcd"], tmp_path / "top.pdb", ["phi:2", "psi:2"], 300)
    surface = gancl.surface_from_trajectories(*files)
    analysis = gancl.free_energy.analyse(gancl.trajectories.read(*files), basins=system.basins)
    assert np.array_equal(analysis.surface.energy, surface.energy)
    assert [row.name for row in analysis.basins] == [basin.name for basin in system.basins]
