"""Alanine dipeptide in vacuum under a known static bias, reweighted: the reference surface and its populations.

Four runs of 5e6 steps under a bias that flattens the surface; the bias energies come from OpenMM, by a COLVAR file.
|z| is limited family-wise over all bins with an error bar of at most 0.05 kT, at the false-alarm rate of 3.5 sigma.
"""

import numpy as np
import pytest

from openmm_gancl.coordinates.basin import Basin
from openmm_gancl.free_energy.from_trajectories import analyse
from openmm_gancl.trajectories.observations import read
from openmm_gancl.units import thermal_energy

from . import biased_alanine
from .statistics import z_limit

pytestmark = pytest.mark.slow
TEMPERATURE, BINS = 300.0, 24
C7AX, C7EQ = (
    Basin("C7ax", (np.array([[0.4, 1.9], [-2.1, 0.6]]),)),
    Basin("C7eq", (np.array([[-2, -0.5], [-0.6, 2.1]]),)),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("biased")
    biased_alanine.main(folder, runs=4, n_steps=5_000_000)
    return folder


def analysed(folder, bias_columns):
    files = [folder / f"run{i}.dcd" for i in range(4)]
    tables = [folder / f"COLVAR{i}" for i in range(4)] if bias_columns else []
    observations = read(
        files, folder / "top.pdb", ["phi:2", "psi:2"], TEMPERATURE, colvar=tables, bias_columns=bias_columns
    )
    return analyse(observations, basins=[C7EQ, C7AX], bins=BINS, discard=0)


def scores(analysis):
    """z below 10 kT and combined error bars, kT, after aligning means."""
    with np.load(biased_alanine.REFERENCE) as reference, np.errstate(divide="ignore"):
        n, kT = 72 // BINS, thermal_energy(TEMPERATURE)
        density = np.exp(-reference["free_energy_kT"]).reshape(BINS, n, BINS, n)
        variances = (density * np.nan_to_num(reference["standard_error_kT"].reshape(density.shape), posinf=0.0)) ** 2
        truth = -np.log(density.mean(axis=(1, 3)))
        reference_error = np.sqrt(variances.sum(axis=(1, 3))) / density.sum(axis=(1, 3)).clip(min=1e-300)
    energy, error = analysis.surface.energy / kT, np.hypot(analysis.surface.error / kT, reference_error)
    low = (truth - truth.min() < 10.0) & np.isfinite(energy)
    difference = energy[low] - truth[low]
    return (difference - difference.mean()) / error[low], error[low]


def test_the_reweighted_surface_is_the_reference(folder):
    analysis = analysed(folder, ["ext.bias"])
    z, error = scores(analysis)
    sharp = error <= 0.05
    assert sharp.sum() > 50 and analysis.effective_samples > 200
    assert np.abs(z[sharp]).max() < z_limit(sharp.sum()), z[sharp]
    assert 0.6 < (np.abs(z) < 1.0).mean() < 0.85
    rows = {row.name: row for row in analysis.basins}
    for name, population, reference_error in (("C7ax", 0.0296, 0.0005), ("C7eq", 0.658, 0.003)):
        combined = np.hypot(rows[name].population_error, reference_error)
        assert combined / population < 0.05, name
        assert abs(rows[name].population - population) < 3.5 * combined, name


def test_without_the_bias_it_is_not(folder):
    z, _ = scores(analysed(folder, []))
    assert np.abs(z).max() > 5 * z_limit(len(z))
