"""Diffusion maps against spectra that are known: circle, sphere, rectangle, Ornstein-Uhlenbeck, half-moon."""

import numpy as np
import pytest
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import eigsh
from scipy.special import eval_hermitenorm
from scipy.stats import norm, spearmanr

from openmm_gancl import InputError
from openmm_gancl.learning import eigenvectors
from openmm_gancl.learning.diffusion_map import DiffusionMap
from openmm_gancl.learning.eigenvectors import leading_eigenpairs
from openmm_gancl.learning.neighbours import NeighbourIndex, mahalanobis_neighbours, symmetric_graph
from openmm_gancl.learning.spectrum import select_coordinates
from openmm_gancl.lifting import load_sde

N = 4000


def circle(rng, n=N, density=None):
    angles = rng.uniform(0, 2 * np.pi, n if density is None else 20 * n)
    if density is not None:
        angles = angles[rng.random(len(angles)) < density(angles)][:n]
    return angles, np.column_stack([np.cos(angles), np.sin(angles)])


def sphere(rng):
    points = rng.normal(size=(N, 3))
    return points / np.linalg.norm(points, axis=1)[:, None]


RECTANGLE = np.sort([(i / 1.0) ** 2 + (j / 0.6) ** 2 for i in range(8) for j in range(8)])[1:9]
SPECTRA = {
    "circle": (lambda rng: circle(rng)[1], np.repeat(np.arange(1, 5) ** 2, 2)),
    "sphere": (sphere, np.repeat([2, 6, 12], [3, 5, 7])[:8]),
    "rectangle": (lambda rng: rng.uniform(0, 1, (N, 2)) * [1.0, 0.6], RECTANGLE),
}


@pytest.mark.parametrize("shape", SPECTRA)
def test_first_eight_eigenvalues(shape):
    draw, exact = SPECTRA[shape]
    fitted = DiffusionMap(8, alpha=1.0, n_neighbors=128).fit(draw(np.random.default_rng(0)))
    assert fitted.rates_ / fitted.rates_[0] == pytest.approx(exact / exact[0], rel=0.05)
    assert fitted.dimension_ == pytest.approx(1.0 if shape == "circle" else 2.0, abs=0.25)
    assert (np.diff(fitted.eigenvalues_) <= 0).all() and fitted.eigenvalues_[0] < 1.0


def test_without_the_density_divided_out_the_spectrum_is_wrong():
    """The twin: a circle sampled 9:1, alpha 0."""
    _, points = circle(np.random.default_rng(0), density=lambda a: (1.0 + 0.8 * np.cos(a)) / 1.8)
    right, wrong = (DiffusionMap(8, alpha=alpha, n_neighbors=512).fit(points) for alpha in (1.0, 0.0))
    exact = SPECTRA["circle"][1]
    assert right.rates_ / right.rates_[0] == pytest.approx(exact, rel=0.05)
    assert np.abs(wrong.rates_ / wrong.rates_[0] / exact - 1.0).max() > 0.2


def normalised(values, weights=None):
    values = values - np.average(values, weights=weights)
    return values / np.sqrt(np.average(values**2, weights=weights))


def test_ornstein_uhlenbeck_gives_hermite_functions():
    """Its quantiles, evenly: among random points the few in the tails, nearly cut off, are slower than anything."""
    x = norm.ppf((np.arange(2000) + 0.5) / 2000)
    fitted = DiffusionMap(4, alpha=0.5, bandwidth=0.03, n_neighbors=1999).fit(x[:, None])
    assert fitted.rates_ / fitted.rates_[0] == pytest.approx([1, 2, 3, 4], rel=0.06)
    for k in range(1, 4):
        overlap = np.mean(fitted.coordinates_[:, k - 1] * normalised(eval_hermitenorm(k, x)))
        assert abs(overlap) > 0.995, k


@pytest.mark.parametrize("weighted", [True, False])
def test_a_biased_sample_counts_by_its_weights(weighted):
    """Quantiles of a wide normal density, for a bistable one: the gap of its spectrum shows only by the weights."""
    x = norm.ppf((np.arange(2000) + 0.5) / 2000, scale=1.5)
    x = x[np.abs(x) < 3.5]
    bistable = 2.0 * (x**2 / 4.0 - 1.0) ** 2
    weights = np.exp(-bistable + x**2 / 4.5) if weighted else None
    rates = DiffusionMap(2, alpha=0.5, bandwidth=0.01, n_neighbors=len(x) - 1).fit(x[:, None], weights=weights).rates_
    exact = bistable_rates()
    assert (abs(rates[1] / rates[0] / (exact[1] / exact[0]) - 1.0) < 0.15) == weighted


def bistable_rates():
    """Eigenvalues of the Fokker-Planck operator of the bistable potential, by finite differences."""
    x = np.linspace(-4.0, 4.0, 1601)
    potential, step = 2.0 * (x**2 / 4.0 - 1.0) ** 2, x[1] - x[0]
    jump = np.exp(-0.5 * np.diff(potential)) / step**2
    back = np.exp(0.5 * np.diff(potential)) / step**2
    from scipy.linalg import eigh_tridiagonal

    diagonal = np.zeros(len(x))
    diagonal[:-1] += jump
    diagonal[1:] += back
    return eigh_tridiagonal(diagonal, -np.sqrt(jump * back), select="i", select_range=(1, 2))[0]


def test_coordinates_do_not_depend_on_the_density():
    rng = np.random.default_rng(3)
    even = rng.uniform(0, 1, (N, 1))
    uneven = rng.uniform(0, 1, (6 * N, 1))
    uneven = uneven[rng.random(len(uneven)) < 0.2 + 0.8 * uneven[:, 0]][:N]  # 5:1
    new = rng.uniform(0.02, 0.98, (1000, 1))
    first, second = (
        DiffusionMap(3, alpha=1.0, n_neighbors=256).fit(points).transform(new) for points in (even, uneven)
    )
    for k in range(3):
        assert abs(np.corrcoef(first[:, k], second[:, k])[0, 1]) > 0.99


def rank_correlations(coordinate, u, v):
    """Spearman with u; and with v, from which u was removed."""
    ranks = [np.argsort(np.argsort(a)).astype(float) for a in (coordinate, u, v)]
    rest = ranks[2] - np.polyval(np.polyfit(ranks[1], ranks[2], 1), ranks[1])
    return abs(spearmanr(coordinate, u)[0]), abs(np.corrcoef(ranks[0], rest)[0, 1])


def test_half_moon_needs_the_mahalanobis_metric():
    sde = load_sde("half_moon")
    states = sde.simulate(2000, 0.5, seed=4)[:, 0]
    (u, v), points, covariances = states.T, sde.observe(states), sde.bursts(states, 200, 1e-5, seed=5)
    right = DiffusionMap(2, alpha=1.0).fit(points, covariances=covariances)
    with_u, with_v = rank_correlations(right.coordinates_[:, 0], u, v)
    assert with_u > 0.98 and with_v < 0.1, (with_u, with_v)
    wrong = DiffusionMap(2, alpha=1.0).fit(points)
    with_u, with_v = rank_correlations(wrong.coordinates_[:, 0], u, v)
    assert not (with_u > 0.98 and with_v < 0.1)


def test_landmarks_and_new_points_continue_the_map():
    rng = np.random.default_rng(5)
    points = rng.uniform(0, 1, (3000, 2)) * [1.0, 0.5]
    whole = DiffusionMap(3, alpha=1.0, bandwidth=0.002, n_neighbors=256).fit(points)
    landmarks = DiffusionMap(3, alpha=1.0, bandwidth=0.002, n_landmarks=1000).fit(points)
    assert len(landmarks.landmarks_) == 1000 and landmarks.coordinates_.shape == (3000, 3)
    for k in range(3):
        assert abs(np.corrcoef(whole.coordinates_[:, k], landmarks.coordinates_[:, k])[0, 1]) > 0.99
    again = landmarks.transform(points[landmarks.landmarks_])
    assert again == pytest.approx(landmarks._vectors, abs=2e-3)
    extended = whole.transform(points)
    assert all(np.corrcoef(extended[:, k], whole.coordinates_[:, k])[0, 1] > 0.9995 for k in range(3))


def test_the_same_input_gives_the_same_bytes_and_is_left_alone():
    points = np.random.default_rng(6).uniform(0, 1, (700, 3))
    kept = points.copy()
    first, second = (DiffusionMap(3).fit(points) for _ in range(2))
    assert np.array_equal(first.coordinates_, second.coordinates_) and np.array_equal(points, kept)
    largest = first.coordinates_[np.abs(first.coordinates_).argmax(axis=0), range(3)]
    assert (largest > 0).all() and (first.coordinates_**2).mean(axis=0) == pytest.approx(1.0)


def cloud(rng):
    """Three dimensions that matter of twelve, as in distances of a small molecule."""
    return (rng.normal(size=(3000, 12)) * [1.0, 0.7, 0.5, *[0.02] * 9]) @ rng.normal(size=(12, 12)), 64, None


def regular_circle(_):
    angles = np.linspace(0, 2 * np.pi, 1500, endpoint=False)
    return np.column_stack([np.cos(angles), np.sin(angles)]), 40, None


def dumbbell(rng):
    """Two clusters by a thin bridge: one eigenvalue is one but for a hair."""
    ends = rng.normal(0, 0.3, (1000, 2)) + rng.choice([-4.0, 4.0], 1000)[:, None] * [1.0, 0.0]
    bridge = np.column_stack([np.linspace(-4, 4, 80), rng.normal(0, 0.01, 80)])
    return np.concatenate([ends, bridge]), 24, 0.01


def line(_):
    """A bandwidth so small that all eigenvalues requested lie within 1e-3 of one."""
    return np.linspace(0, 1, 1200)[:, None], 12, 2e-6


SETS = {"cloud": cloud, "sphere": lambda rng: (sphere(rng), 40, None), "regular circle": regular_circle}
SETS |= {"wide bandwidth": lambda rng: (rng.normal(size=(700, 3)), 690, 5.0)}
SETS |= {"dumbbell": dumbbell, "line": line, "few": lambda rng: (rng.normal(size=(150, 3)), 20, None)}


def diffusion_matrix(points, n_neighbors, bandwidth):
    graph = symmetric_graph(*NeighbourIndex(points).nearest(points, n_neighbors + 1))
    graph.data = np.exp(-graph.data / (4.0 * (bandwidth or np.median(graph.data))))
    root = diags_array(1.0 / np.sqrt(graph.sum(axis=1)))
    return csr_array(root @ graph @ root)


@pytest.mark.parametrize("name", SETS)
def test_eigenvectors_are_those_of_a_tight_solution(name):
    """ARPACK to machine precision; of vectors with nearly one eigenvalue, their span."""
    matrix = diffusion_matrix(*SETS[name](np.random.default_rng(12)))
    values, vectors = leading_eigenpairs(matrix, 11)
    exact, exact_vectors = eigsh(matrix, k=20, which="LA", ncv=120, v0=np.ones(matrix.shape[0]), maxiter=10_000)
    exact, exact_vectors = exact[::-1], exact_vectors[:, ::-1]
    assert values == pytest.approx(exact[:11], rel=1e-6, abs=1e-9)
    assert 1.0 - values[1:] == pytest.approx(1.0 - exact[1:11], rel=1e-4)
    assert vectors.T @ vectors == pytest.approx(np.eye(11), abs=1e-10)
    for value, vector in zip(values, vectors.T, strict=True):
        same = np.abs(exact - value) < 1e-3 * (1.0 - value) + 1e-6 * (1.0 - exact[10])
        assert np.linalg.norm(exact_vectors[:, same].T @ vector) > 0.99999


def test_a_bulk_below_the_spectrum_still_gives_a_polynomial():
    """As after a pass whose last eigenvalue came out far too low."""
    identity = csr_array(np.eye(3))
    low, high = (eigenvectors._chebyshev(identity, -0.01, bulk)(np.ones(3)) for bulk in (-0.4, 2.0))
    assert np.isfinite(low).all() and np.isfinite(high).all() and (low > 1.0).all()


def test_eigenvectors_that_do_not_converge_are_reported(monkeypatch):
    monkeypatch.setattr(eigenvectors, "MAX_PASSES", 1)
    matrix = diffusion_matrix(*line(None))
    with pytest.raises(InputError, match=r"^the eigenvectors did not converge \(residual .*\): choose fewer coord"):
        leading_eigenpairs(matrix, 11)


def test_neighbours_without_weight_do_not_connect():
    rng = np.random.default_rng(13)
    points = np.concatenate([rng.normal(0, 0.1, (50, 2)), rng.normal(3, 0.1, (30, 2))])
    assert DiffusionMap(2, bandwidth=1.0, n_neighbors=60).fit(points).eigenvalues_[0] < 1.0
    with pytest.raises(InputError, match=r"falls into 2 components, the largest with 62\.5 %"):
        DiffusionMap(2, bandwidth=0.01, n_neighbors=60).fit(points)


def test_a_bandwidth_at_which_few_neighbours_matter_is_said(recwarn):
    """Rates of a rectangle's long side, pi squared, would be a sixth of it."""
    points = np.random.default_rng(0).uniform(0, 1, (1000, 2)) * [1.0, 0.5]
    auto = DiffusionMap(3).fit(points)
    given = DiffusionMap(3, bandwidth=auto.bandwidth_).fit(points)
    assert not recwarn.list and given.rates_[0] > 0.75 * np.pi**2
    with pytest.warns(UserWarning, match=r"only 2\.\d neighbours of a frame matter, so that rates"):
        small = DiffusionMap(3, bandwidth=0.1 * auto.bandwidth_).fit(points)
    assert small.rates_[0] < 0.25 * np.pi**2


def test_self_tuning_follows_the_density():
    rng = np.random.default_rng(7)
    points = np.concatenate([rng.normal(0, 0.05, (500, 2)), rng.normal(0, 1.0, (500, 2))])
    fitted = DiffusionMap(2, bandwidth="self-tuning").fit(points)
    assert np.isfinite(fitted.coordinates_).all()
    with pytest.raises(InputError, match="has no scale for new points"):
        fitted.transform(points)


def test_harmonics_are_left_out():
    """A long rectangle: the second coordinate is a harmonic of the first; the short side comes later."""
    points = np.random.default_rng(8).uniform(0, 1, (3000, 2)) * [1.0, 0.4]
    selection = select_coordinates(DiffusionMap(4, n_neighbors=128).fit(points).coordinates_)
    assert selection.chosen.tolist() == [0, 2], selection.scores
    assert selection.scores[1] < 0.15


def test_neighbours_are_the_nearest():
    rng = np.random.default_rng(9)
    points = rng.normal(size=(12_000, 4))
    squared, index = NeighbourIndex(points).nearest(points, 20)
    for i in rng.choice(len(points), 50, replace=False):
        exact = np.sort(((points - points[i]) ** 2).sum(axis=1))[:20]
        assert np.mean(squared[i] <= exact[-1] * 1.001) > 0.95
        assert ((points[index[i]] - points[i]) ** 2).sum(axis=1) == pytest.approx(squared[i], abs=1e-4)
    few, covariances = points[:60, :2], np.tile(np.diag([4.0, 0.25]), (60, 1, 1))
    squared, index = mahalanobis_neighbours(few, covariances, 5)
    scaled = few / [2.0, 0.5]
    exact = np.sort(((scaled[:, None] - scaled[None]) ** 2).sum(axis=-1), axis=1)[:, :5]
    assert squared == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize(
    ("points", "arguments", "message"),
    [
        (np.zeros((5, 2)), {}, "5 frames are too few for this map: give at least 13"),
        (np.ones((50, 2)), {}, "duplicates"),
        (np.full((50, 2), np.nan), {}, "frame 0 holds NaN"),
        (np.zeros(50), {}, "one row of features a frame"),
        (np.column_stack([np.arange(50.0), np.ones(50)]), {}, "1 of 2 features are constant, number 1 first"),
        (np.arange(100.0).reshape(50, 2), {"weights": -np.ones(50)}, "weights are negative"),
        (np.arange(100.0).reshape(50, 2), {"weights": np.ones(3)}, r"weights of shape \(3,\)"),
        (np.arange(100.0).reshape(50, 2), {"covariances": np.ones((3, 2, 2))}, "one a point"),
    ],
)
def test_bad_input(points, arguments, message):
    with pytest.raises(InputError, match=message):
        DiffusionMap().fit(points, **arguments)


def test_a_graph_in_pieces_is_reported():
    rng = np.random.default_rng(10)
    points = np.concatenate([rng.normal(0, 0.1, (300, 2)), rng.normal(50, 0.1, (100, 2))])
    with pytest.raises(InputError, match=r"falls into 2 components, the largest with 75.0 % of the points: raise"):
        DiffusionMap(3, n_neighbors=16).fit(points)
    with pytest.raises(InputError, match="alpha is 2"):
        DiffusionMap(3, alpha=2.0).fit(points)
