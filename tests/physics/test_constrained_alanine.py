"""Alanine dipeptide with HBonds: relaxed lifts, draws, and MBAR of umbrella windows agree on free energies of windows.

python -m pytest -m slow tests/physics/test_constrained_alanine.py
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from openmm import app
from scipy.stats import t

from openmm_gancl import Lifter, TrainingOptions, analyse_windows, learn, load_system, sample_windows, train
from openmm_gancl.coordinates.restraint_energies import sample_restraint
from openmm_gancl.engine.tasks import available_workers
from openmm_gancl.free_energy.weight_statistics import effective_sample_size, log_mean_weight
from openmm_gancl.lifting.draws import draw
from openmm_gancl.system.molecular_system import system_from_objects
from tests.benchmarks.accuracy import bootstrap_log_mean

from .statistics import FALSE_ALARM

pytestmark = pytest.mark.slow

LABELS = np.stack([np.full(8, -1.4), np.arange(8) * 0.2], axis=1)
RESTRAINT, N_REPLICAS, N_LIFTS, N_DRAWS = 100.0, 40, 1200, 4000
PLACES = {"platform": "Reference", "workers": available_workers()}


@pytest.fixture(scope="module")
def system():
    vacuum = load_system("alanine_dipeptide_vacuum")
    pdb = app.PDBFile(str(Path(__file__).parents[1] / "data" / "alanine_dipeptide.pdb"))
    force_field = app.ForceField("amber14/protein.ff14SB.xml")
    rigid = force_field.createSystem(pdb.topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds)
    return system_from_objects(
        pdb.topology, rigid, pdb.positions, temperature=300.0, slow=vacuum.slow, force_constants=RESTRAINT
    )


@pytest.fixture(scope="module")
def replicas(system):
    options = {"steps_per_window": 10_000, "frames_per_window": 200, "equilibration_steps": 2000}
    return [sample_windows(system, LABELS, seed=100 + i, **options, **PLACES) for i in range(N_REPLICAS)]


def by_mbar(system, replicas, force_constants=RESTRAINT):
    """Free energies less their mean, kT, of each replica, shape=(n, n_windows)."""
    of = [replace(frames, force_constants=np.full(2, force_constants)) for frames in replicas]
    found = np.array([analyse_windows(system, frames, discard=0).windows.mbar.free_energies for frames in of])
    return found - found.mean(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def by_lifts(system):
    """Free energies of windows, kT, their errors, and effective sample sizes."""
    low, high = LABELS.min(axis=0) - 0.3, LABELS.max(axis=0) + 0.3
    places = np.random.default_rng(1).uniform(low, high, size=(64, 2))
    frames = sample_windows(system, places, steps_per_window=3000, seed=1, **PLACES)
    model = train(system, frames, seed=1, options=TrainingOptions(latent_size=0))
    lifter = Lifter(system, model, relax_steps=500, **PLACES)
    lifts = lifter.lift(np.repeat(LABELS, N_LIFTS, axis=0), seed=2)
    return free_energies(lifts.log_weights)


@pytest.fixture(scope="module")
def by_draws(system):
    """The same of unrelaxed draws at labels from each window's restraint, whose mean weight is the window's Z."""
    generator = learn(system, seed=1, max_evaluations=20_000).model
    rng = np.random.default_rng(5)
    stiffness = system.force_constants / system.kT
    labels = sample_restraint(system.slow, stiffness, np.repeat(LABELS, N_DRAWS, axis=0), rng)
    return free_energies(draw(system, [generator], np.ones(1), labels, rng).log_weights)


def free_energies(log_weights):
    """Of windows, kT, their errors, and effective sample sizes; the weights are of as many lifts of each, in turn."""
    rows = log_weights.reshape(len(LABELS), -1)
    rng = np.random.default_rng(3)
    free = -np.array([log_mean_weight(row) for row in rows])
    errors = np.array([bootstrap_log_mean(row, rng).std() for row in rows])
    return free - free.mean(), errors, np.array([effective_sample_size(row) for row in rows])


def worst_z(found, of_windows):
    free, errors, _ = of_windows
    combined = np.hypot(found.std(axis=0, ddof=1) / N_REPLICAS**0.5, errors)
    return np.abs((found.mean(axis=0) - free) / combined).max(), combined.max()


@pytest.mark.parametrize("way", ["by_lifts", "by_draws"])
def test_lifts_and_mbar_agree(way, system, replicas, request):
    """The twin: MBAR with another force constant."""
    found = request.getfixturevalue(way)
    assert (found[2] >= 200).all(), found[2]
    worst, error = worst_z(by_mbar(system, replicas), found)
    assert error < 0.05
    assert worst < t.isf(FALSE_ALARM / 2 / len(LABELS), N_REPLICAS - 1), worst
    wrong, _ = worst_z(by_mbar(system, replicas, 0.8 * RESTRAINT), found)
    assert wrong > 5.0, wrong
