"""Alanine dipeptide lifted at labels that a diffusion map of heavy-atom distances found, against the reference data."""

import json

import numpy as np
import pytest

from openmm_gancl.cli.reporting import LogReporter
from openmm_gancl.system.library import load_system
from openmm_gancl.workflow import run as pipeline
from openmm_gancl.workflow.options import RunOptions
from tests.benchmarks.accuracy import REFERENCES, surface_accuracy

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
