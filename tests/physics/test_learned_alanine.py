"""Alanine dipeptide lifted at, or projected on, labels that a diffusion map of heavy-atom distances found."""

import json

import numpy as np
import pytest

from openmm_gancl.cli.reporting import LogReporter
from openmm_gancl.coordinates.slow_coordinates import FirstAxes
from openmm_gancl.free_energy.grid import bin_indices
from openmm_gancl.free_energy.surface import load_surface
from openmm_gancl.learning.learned_labels import load_labels
from openmm_gancl.lifting.projected_labels import weighted_histogram
from openmm_gancl.system.library import load_system
from openmm_gancl.workflow import run as pipeline
from openmm_gancl.workflow.options import RunOptions
from tests.benchmarks.accuracy import REFERENCES, surface_accuracy
from tests.benchmarks.learned_labels import deviation, make_frames, weighted_frames

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    options = RunOptions(generator="product", slow="diffusion-map", platform="Reference")
    folder = tmp_path_factory.mktemp("alanine") / "run"
    return pipeline.run(folder, "alanine_dipeptide_vacuum", options, reporter=LogReporter())


def test_surface_over_torsions_from_lifts_at_learned_labels(finished):
    system = load_system("alanine_dipeptide_vacuum")
    with np.load(REFERENCES / f"{system.name}.npz") as reference:
        rms, known = surface_accuracy(finished.folder / "fes_phi_psi.npz", reference, system.kT, ceiling=8.0)
    assert rms < 0.5 and known > 0.99, (rms, known)


def test_forward_and_reverse_agree(finished):
    assert finished.summary.n_checked >= 5 and abs(finished.summary.pooled_z) < 4.0


def test_labels_tell_the_torsions_and_leave_harmonics_out(finished):
    """On held-out frames; the twin: labels that belong to other frames predict nothing (see test_learned_run)."""
    report = json.loads((finished.folder / "slow" / "report.json").read_text())
    assert min(report["recovery"].values()) > 0.95, report["recovery"]
    # a torus takes three; of the ten, most are harmonics
    assert 3 <= len(report["chosen"]) <= 6, report["scores"]


@pytest.fixture(scope="module")
def projected(tmp_path_factory):
    """200,000 evaluations of the closed loop, and frames that are the reference projected on any label."""
    folder = tmp_path_factory.mktemp("projected")
    options = RunOptions(generator="triangular", slow="diffusion-map", max_evaluations=200_000, platform="Reference")
    found = pipeline.run(folder / "run", "alanine_dipeptide_vacuum", options, reporter=LogReporter()).folder
    make_frames(folder / "frames.npz", 250_000)
    return found, weighted_frames(folder / "frames.npz")


def test_projected_surfaces_are_those_of_the_projected_reference(projected):
    """Over learned labels and over torsions; the twin has the weights of other lifts."""
    folder, (positions, weights) = projected
    system, slow = load_system("alanine_dipeptide_vacuum"), load_labels(folder / "slow" / "labels.npz").slow
    with np.load(REFERENCES / f"{system.name}.npz") as reference:
        rms, known = surface_accuracy(folder / "fes_phi_psi.npz", reference, system.kT, ceiling=8.0)
    assert rms < 0.2 and known > 0.99, (rms, known)
    surface = load_surface(folder / "fes.npz")
    index = bin_indices(slow.transform(positions)[:, :2], surface.edges, surface.periods)
    masses, squares = (np.bincount(index[index >= 0], weights[index >= 0] ** p, surface.energy.size) for p in (1, 2))
    found, _ = deviation(surface, system.kT, masses, squares)
    assert found["rms"] < 0.2 and found["missing"] < 0.05 * found["bins"], found
    with np.load(folder / "lifts.npz") as lifts:
        values, log_weights = lifts["learned_labels"][:, :2], lifts["log_weights"]
    shuffled = np.random.default_rng(1).permutation(log_weights[np.isfinite(log_weights)])
    log_weights[np.isfinite(log_weights)] = shuffled
    wrong = weighted_histogram(FirstAxes.of(slow, 2), values, log_weights, system.temperature, 0)
    assert deviation(wrong, system.kT, masses, squares)[0]["rms"] > 0.5
