"""A barrier narrower than the restraint: surface from lifts against the naive reading of window free energies."""

import itertools

import numpy as np
import pytest
from scipy.stats import norm

from openmm_gancl import Lifter, surface_from_lifts
from openmm_gancl.coordinates.basin import Basin
from openmm_gancl.free_energy import cox_process
from openmm_gancl.lifting import basin_populations
from openmm_gancl.lifting.surface import analyse_lifts

from .exact import BARRIER, KT
from .statistics import FALSE_ALARM, score, z_limit

N_LABELS, N_LIFTS = 41, 150
CENTRES = np.linspace(-1.0, 1.0, N_LABELS)


@pytest.fixture(scope="module")
def lifts(models):
    model = models.with_prior_encoder(BARRIER.name, "trained", 0)
    lifter = Lifter(models.system(BARRIER.name), model, relax_steps=40, platform="Reference")
    return lifter.lift(np.repeat(CENTRES, N_LIFTS)[:, None], seed=1)


@pytest.fixture(scope="module")
def surface(lifts):
    return surface_from_lifts(lifts)


def exact_bins(edges):
    """-kT log of each bin's population, kJ/mol."""
    density = np.exp(BARRIER.log_density() - BARRIER.log_density().max())
    cumulative = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    return -KT * np.log(np.diff(np.interp(edges, BARRIER.grid, cumulative)))


def aligned(values, exact):
    """The difference after aligning the mean below 10 kT, as the surface's error bars say."""
    low = exact - exact.min() < 10 * KT
    return values - exact - (values - exact)[low].mean()


def test_the_surface_is_right_within_its_bars(surface):
    """Largest z at the false-alarm rate of 3.5 sigma over all bins, if they were independent; rms z at 1.4 or less."""
    z = aligned(surface.energy, exact_bins(surface.edges[0])) / surface.error
    assert np.isfinite(z).all()
    assert np.abs(z).max() < z_limit(len(z)), (surface.centres[0][np.abs(z).argmax()], z)
    # about a third as many independent bins as bins: chi-square's upper end there, 3.5 sigma
    assert (z**2).mean() < 1 + 3.5 * np.sqrt(2 / (len(z) / 3))


def test_evidence_alone_smooths_the_barrier_away(lifts, monkeypatch):
    """The twin: a fit is never refused for the place that it misses."""
    monkeypatch.setattr(cox_process, "FALSE_REJECTION_RATE", 0.0)
    surface = surface_from_lifts(lifts)
    z = aligned(surface.energy, exact_bins(surface.edges[0])) / surface.error
    assert np.abs(z).max() > z_limit(len(z)) + 3


def test_the_bars_are_small_enough_to_show_the_barrier(surface):
    x, top = surface.centres[0], np.abs(surface.centres[0] - 0.1).argmin()
    height = surface.energy[top] - surface.energy[np.abs(x + 0.2).argmin()]
    exact = BARRIER.surface(x[top]) - BARRIER.surface(-0.2)
    assert surface.error[top] < 0.2 * exact
    assert height > 0.7 * exact
    assert np.median(surface.error) < 0.25 * KT


def test_the_naive_reading_is_wrong(lifts):
    """Window free energies are those of the windows, and as a surface they are wrong by many sigma."""
    naive, error, window = [], [], []
    for centre in CENTRES:
        log_weights = lifts.log_weights[lifts.labels[:, 0] == centre]
        exact = BARRIER.log_z(centre, float(lifts.force_constants[0]))
        result = score(log_weights, exact)
        window.append(result.z)
        naive.append(-KT * (np.log(result.ratio) + exact))
        error.append(KT * result.relative_error)
    assert np.abs(window).max() < z_limit(N_LABELS), window
    z = aligned(np.array(naive), BARRIER.surface(CENTRES)) / error
    assert np.abs(z).max() > 20
    assert (z**2).mean() > 9
    top = np.abs(CENTRES - 0.1).argmin()
    assert (
        BARRIER.surface(CENTRES)[top] - BARRIER.surface(-0.2)
        > naive[top] - naive[np.abs(CENTRES + 0.2).argmin()] + 2 * KT
    )


def test_the_weighted_ends_are_unsmoothed_and_right(lifts):
    """Populations of bins, as basins; no kernel, no prior; family-wise 3.5 sigma."""
    ends = analyse_lifts(lifts).ends
    edges = np.concatenate([np.linspace(-0.9, 0.0, 10), [0.05, 0.15, 0.2], np.linspace(0.3, 0.9, 7)])
    exact = np.exp(-exact_bins(edges) / KT)
    bins = [Basin(f"{low:g}", (np.array([[low, high]]),)) for low, high in itertools.pairwise(edges)]
    rows = basin_populations(ends, tuple(bins), lifts.temperature)
    free = -KT * np.log(exact / exact[0])
    z = [(row.free_energy - free[i]) / row.free_energy_error for i, row in enumerate(rows) if i]
    assert np.abs(z).max() < norm.isf(FALSE_ALARM / 2 / len(z)), z
