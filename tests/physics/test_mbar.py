"""MBAR against quadrature and against pymbar, on umbrella windows of a torsion drawn exactly."""

import numpy as np
import pytest

from openmm_gancl import InputError
from openmm_gancl.errors import quiet
from openmm_gancl.free_energy.mbar import solve_mbar

from .statistics import z_limit

GRID = np.linspace(-np.pi, np.pi, 7201)[:-1]
SURFACE = 6.0 * np.cos(GRID) + 2.0 * np.sin(3 * GRID)
"""kT."""

CENTRES, STRENGTH, N = np.linspace(-np.pi, np.pi, 25)[:-1], 30.0, 200


def bias(places, centres=CENTRES):
    return STRENGTH * (1.0 - np.cos(places[:, None] - centres[None]))


def windows(rng, centres=CENTRES, n=N):
    """Exact, independent places of every window, and the windows' exact free energies."""
    energy = SURFACE[:, None] + bias(GRID, centres)
    weights = np.exp(-(energy - energy.min(axis=0)))
    exact = energy.min(axis=0) - np.log(weights.sum(axis=0))
    places = [rng.choice(GRID, n, p=column / column.sum()) for column in weights.T]
    return np.concatenate(places), exact - exact[0]


@pytest.fixture(scope="module")
def sampled():
    return windows(np.random.default_rng(0))


def test_it_is_pymbars_answer(sampled):
    places, _ = sampled
    with quiet("pymbar"):
        from pymbar import MBAR

        peer = MBAR(bias(places).T, np.full(len(CENTRES), N), relative_tolerance=1e-10)
    found = solve_mbar(bias(places), np.full(len(CENTRES), N))
    assert np.allclose(found.free_energies, peer.f_k - peer.f_k[0], atol=1e-6)
    assert np.allclose(found.overlap, peer.compute_overlap()["matrix"], atol=1e-6)


def repeated(scale, n=40):
    """Mean deviation from quadrature, and its error, of each window but the first, over repetitions."""
    rng, deviations = np.random.default_rng(1), []
    for _ in range(n):
        places, exact = windows(rng)
        found = solve_mbar(scale * bias(places), np.full(len(CENTRES), N))
        deviations.append((found.free_energies - exact)[1:])
    return np.mean(deviations, axis=0), np.std(deviations, axis=0, ddof=1) / n**0.5


def test_free_energies_are_the_quadratures():
    """The mean over repetitions within its family-wise limit; its error at most 0.05 kT."""
    mean, error = repeated(1.0)
    assert error.max() < 0.05
    assert np.abs(mean / error).max() < z_limit(len(mean))


def test_a_wrong_restraint_is_wrong():
    """The twin: the solver is given four fifths of the bias."""
    mean, error = repeated(0.8, 10)
    assert np.abs(mean / error).max() > z_limit(len(mean)) + 3


def test_weights_give_back_the_surface(sampled):
    places, _ = sampled
    log_weights = solve_mbar(bias(places), np.full(len(CENTRES), N)).log_weights
    edges = np.linspace(-np.pi, np.pi, 13)
    weights = np.exp(log_weights - log_weights.max())
    shares = np.histogram(places, edges, weights=weights)[0] / weights.sum()
    exact = np.histogram(GRID, edges, weights=np.exp(-SURFACE))[0] / np.exp(-SURFACE).sum()
    low = exact > np.exp(-10) * exact.max()
    difference = np.log(shares[low] / exact[low])
    assert np.abs(difference - difference.mean()).max() < 0.5


def test_windows_that_do_not_overlap_fall_apart():
    centres = np.array([-2.0, -1.8, -1.6, 1.0, 1.2])
    places, _ = windows(np.random.default_rng(3), centres)
    groups = solve_mbar(bias(places, centres), np.full(5, N)).groups()
    assert groups.tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("counts", "fault", "message"),
    [
        (np.array([2, 2]), None, "biases of shape"),
        (np.array([3, 0]), None, "window 1 holds no frame"),
        (np.array([2, 1]), np.nan, "the bias of window 1 at frame 2"),
    ],
)
def test_bad_input(counts, fault, message):
    biases = np.zeros((3, 2))
    if fault is not None:
        biases[2, 1] = fault
    with pytest.raises(InputError, match=message):
        solve_mbar(biases, counts)


@pytest.mark.parametrize("shift", [-200.0, -30.0, 30.0, 200.0])
def test_converges_from_far_away(shift):
    rng, centres = np.random.default_rng(0), np.linspace(-1.6, 1.6, 27)
    x = np.concatenate([rng.normal(centre, 0.12, 50) for centre in centres])
    biases, counts = 0.5 * 70 * (x[:, None] - centres) ** 2, np.full(27, 50)
    plain = solve_mbar(biases, counts)
    start = plain.free_energies.copy()
    start[9] += shift
    far = solve_mbar(biases, counts, start)
    np.testing.assert_allclose(far.free_energies, plain.free_energies, atol=1e-8)
    assert far.steps < 30
