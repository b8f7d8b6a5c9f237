"""The fit in closed form: known densities come back from their gradients, wherever the structures are."""

import numpy as np
import pytest
import torch

from openmm_gancl import InputError
from openmm_gancl.coordinates.slow_coordinates import FirstAxes
from openmm_gancl.generator import narrow_fit, score_fit
from openmm_gancl.generator.cubic_fit import fit_cubic
from openmm_gancl.generator.fit_options import FitOptions, NarrowOptions, Roles
from openmm_gancl.generator.label_basis import LabelBasis
from openmm_gancl.generator.narrow_fit import robust_weights
from openmm_gancl.generator.score_fit import fit_triangular
from openmm_gancl.generator.triangular import Condition, CubicTerms, NarrowCoordinates
from openmm_gancl.reference.chart import CartesianCoordinates, InternalCoordinates
from tests.free_energy.test_label_functions import axes
from tests.generator.random_map import random_circular, random_map, with_wide

ANGLE = FirstAxes(("angle",), np.array([2 * np.pi]), np.array([[-np.pi, np.pi]]), ("radians",))
CHART = CartesianCoordinates(2, np.array([[0, 0]]))
K = 5
VARYING = FitOptions(narrow=(NarrowOptions(4, 1, 1e-3),), lost_gain=1e-6)


def truth(labels):
    """Mean, shape=(n, K), and precision, shape=(n, K, K), of the other coordinates at labels of shape=(n,)."""
    rng = np.random.default_rng(0)
    root = rng.standard_normal((K, K)) * 0.4 + np.diag(np.linspace(2, 6, K))
    lean = 0.1 * rng.standard_normal((K, K))
    varied = np.eye(K) + np.cos(labels)[:, None, None] * (lean + lean.T)
    waves = np.stack([np.cos(labels), np.sin(labels), np.sin(2 * labels)], axis=1)
    return 0.2 * waves @ rng.standard_normal((3, K)), root @ varied @ root.T


def structures(n, seed=1, width=1.0, shift=0.0, varying=True):
    """Coordinates and exact gradients; normal with other widths and means than the density's own if asked."""
    rng = np.random.default_rng(seed)
    labels = rng.uniform(-np.pi, np.pi, n)
    mean, precision = truth(labels)
    if not varying:
        precision = np.broadcast_to(truth(np.array([np.pi / 2]))[1], precision.shape)
    steps = np.linalg.solve(np.linalg.cholesky(precision).transpose(0, 2, 1), rng.standard_normal((n, K, 1)))
    deviation = width * steps[:, :, 0] + shift
    gradients = -(precision @ deviation[:, :, None])[:, :, 0]
    zero = np.zeros((n, 1))
    return np.hstack([labels[:, None], mean + deviation]), np.hstack([zero, gradients])


def moments(map_, labels):
    """The fitted mean and precision, as they are without tails and cubic terms."""
    narrow = map_.narrow
    with torch.no_grad():
        features = narrow.condition(torch.as_tensor(labels[:, None]))
        mean, log_width = (part.numpy() for part in narrow.mean_and_log_width(features))
        matrix = narrow.matrices(features).numpy()
    order, scale, origin = np.argsort(map_.narrow_indices.numpy()), narrow.scale.numpy(), narrow.origin.numpy()
    half = matrix / np.exp(log_width)[:, :, None] / scale
    precision = half.transpose(0, 2, 1) @ half
    return (origin + scale * mean)[:, order], precision[:, order][:, :, order]


def errors(map_, varying=True):
    """Relative entropy of the fitted to the known density, mean over labels, kT."""
    labels = np.linspace(-3, 3, 25)
    mean, precision = truth(labels)
    if not varying:
        precision = np.broadcast_to(truth(np.array([np.pi / 2]))[1], precision.shape)
    found_mean, found = moments(map_, labels)
    off = found_mean - mean
    trace = np.trace(found @ np.linalg.inv(precision), axis1=1, axis2=2)
    logs = np.linalg.slogdet(precision)[1] - np.linalg.slogdet(found)[1]
    return float((0.5 * (trace - K + logs + np.einsum("ni,nij,nj->n", off, found, off))).mean())


def fitted(n, options=VARYING, **other):
    return fit_triangular(CHART, ANGLE, *structures(n, **other), options=options)


def test_a_gaussian_that_depends_on_the_label_comes_back():
    # what is left is that factors of a precision are no truncated series
    assert errors(fitted(400)) < 2e-4
    constant = FitOptions(narrow=(NarrowOptions(4, 0, 1e-3),))
    assert errors(fitted(400, constant)) > 0.05


@pytest.mark.parametrize(("width", "shift"), [(0.4, 0.0), (1.5, 0.0), (1.0, 0.3)])
def test_the_fit_does_not_depend_on_where_the_structures_are(width, shift):
    assert errors(fitted(400, width=width, shift=shift)) < 2e-4


def test_moments_of_structures_elsewhere_would_be_off():
    """The twin: what likelihood, or moments, would make of the same structures."""
    coordinates, _ = structures(4000, width=0.4, varying=False)
    deviation = coordinates[:, 1:] - truth(coordinates[:, 0])[0]
    ratio = np.linalg.inv(np.cov(deviation.T)) / truth(np.array([np.pi / 2]))[1][0]
    assert (np.diag(ratio) > 5).all()


def test_weights_count_as_copies(monkeypatch):
    """But for the evidence by which coefficients are shrunk, of which copies are more."""
    for name in ("PRECISION_EVIDENCE", "LINEAR_EVIDENCE"):
        monkeypatch.setattr(narrow_fit, name, 0.0)
    coordinates, gradients = structures(300)
    weights = np.random.default_rng(5).integers(1, 4, 300)
    copies = np.repeat(np.arange(300), weights)
    options = FitOptions(narrow=(NarrowOptions(3, 0, 1e-6),))
    weighted = fit_triangular(CHART, ANGLE, coordinates, gradients, weights, options=options)
    copied = fit_triangular(CHART, ANGLE, coordinates[copies], gradients[copies], options=options)
    labels = np.linspace(-3, 3, 7)
    for one, other in zip(moments(weighted, labels), moments(copied, labels), strict=True):
        assert np.allclose(one, other, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("n", [600, 3200])
def test_precisions_depend_on_the_label_where_there_are_enough_structures(n):
    map_ = fitted(n, FitOptions())
    _, precision = moments(map_, np.linspace(-3, 3, 9))
    assert (np.ptp(precision, axis=0).max() > 0.5) == (n == 3200)


def test_precisions_that_do_not_depend_stay_constant_with_many_structures():
    coordinates, gradients = structures(3200, varying=False)
    noise = np.random.default_rng(3).standard_normal(gradients.shape)
    map_ = fit_triangular(CHART, ANGLE, coordinates, gradients + 3.0 * noise)
    assert errors(map_, varying=False) < 0.02


def test_too_few_structures_are_refused():
    with pytest.raises(InputError, match="only 19 effective training structures: give more"):
        fitted(19)
    coordinates, gradients = structures(400)
    for weights in (np.r_[np.ones(12), np.full(388, 1e-9)], np.zeros(400)):
        with pytest.raises(InputError, match="effective training structures: give more"):
            fit_triangular(CHART, ANGLE, coordinates, gradients, weights)


def test_a_coordinate_that_never_moves_is_refused():
    coordinates, gradients = structures(400)
    coordinates[:, 3] = 0.25
    with pytest.raises(InputError, match="1 coordinates of the training structures never move: sample real"):
        fit_triangular(CHART, ANGLE, coordinates, gradients)


def test_labels_that_are_no_coordinates_of_the_chart_are_refused():
    """Such a generator would draw whatever its labels say."""
    chart = CartesianCoordinates(2, np.empty((0, 2), dtype=np.int64))
    with pytest.raises(InputError, match="labels are no coordinates of the chart: use torsions or particle"):
        fit_triangular(chart, ANGLE, *structures(400))


def test_gradients_that_are_not_finite_are_refused():
    coordinates, gradients = structures(400)
    gradients[7, 2] = np.nan
    with pytest.raises(InputError, match="1 training structures have gradients that are not finite: leave them out"):
        fit_triangular(CHART, ANGLE, coordinates, gradients)


def test_absurd_gradients_carry_less_weight():
    gradients = np.random.default_rng(0).standard_normal((200, K))
    gradients[3] *= 1e4
    found = robust_weights(gradients, np.full(200, 2.0))
    assert found[3] < 1e-5 and np.median(found) == 2.0
    coordinates, exact = structures(400)
    exact[3] *= 1e4
    assert errors(fit_triangular(CHART, ANGLE, coordinates, exact, options=VARYING)) < 0.02


def identity(k):
    """A map that leaves numbers as they are, of one condition without effect."""
    condition = Condition(LabelBasis(ANGLE, 1), 1, [], 1)
    zeros = [torch.zeros(len(condition.orders), *shape, dtype=torch.float64) for shape in ((k,), (k,), (k, k))]
    nothing = CubicTerms(*(torch.zeros(*(k,) * n, dtype=torch.float64) for n in (3, 2, 1)))
    unit = torch.ones(k, dtype=torch.float64)
    return NarrowCoordinates(condition, *zeros, nothing, 0 * unit, unit)


def cubic_structures(cubic, n, k):
    """Draws of a map with cubic terms, and the gradients of their log density."""
    normals = torch.as_tensor(np.random.default_rng(2).standard_normal((n, k)))
    at = cubic(normals)[0].requires_grad_(True)
    back, log_volume = cubic.inverse(at)
    gradients = torch.autograd.grad((-0.5 * back**2).sum() - log_volume.sum(), at)[0]
    return at.detach().numpy(), gradients.numpy()


def known_cubic(k, size):
    coefficients, widths = torch.zeros(k, k, k, dtype=torch.float64), torch.zeros(k, k, dtype=torch.float64)
    skews = torch.zeros(k, dtype=torch.float64)
    coefficients[3, 0, 1], coefficients[3, 2, 2], widths[2, 1], skews[0] = size, -size, size, -0.6 * size
    return CubicTerms(coefficients, widths, skews)


def dense(cubic, k):
    """Coefficients, widths and skews as known_cubic has them."""
    coefficients = torch.zeros(k, k, k, dtype=torch.float64)
    coefficients[:, cubic.left, cubic.right] = cubic.shifts.T
    return coefficients, cubic.widths.T, cubic.skews


def test_cubic_terms_come_back():
    """Each of the four kinds, first order in the coefficients: what is left is second order."""
    k, size = 4, 0.05
    known = known_cubic(k, size)
    y, gradients = cubic_structures(known, 8000, k)
    conditions = np.zeros((len(y), 1))
    found = fit_cubic(identity(k), conditions, y, gradients, np.ones(len(y)), 0.012)
    for one, other in zip(dense(found, k), dense(known, k), strict=True):
        assert torch.abs(one - other).max() < 3 * size**2
        assert ((one != 0) == (other != 0)).all()


def test_no_cubic_terms_are_found_where_there_are_none():
    y = np.random.default_rng(3).standard_normal((4000, 4))
    noisy = -y + 2.0 * np.random.default_rng(4).standard_normal(y.shape)
    found = fit_cubic(identity(4), np.zeros((len(y), 1)), y, noisy, np.ones(len(y)), 0.012)
    assert all((part == 0).all() for part in dense(found, 4))


def ring():
    """A chart of five atoms in a row, of which the last torsion is wide and the first a label."""
    z_matrix = np.array([[0, -1, -1, -1], [1, 0, -1, -1], [2, 1, 0, -1], [3, 2, 1, 0], [4, 3, 2, 1]])
    return InternalCoordinates(z_matrix, np.array([1, 1]), np.array([7]))


def test_a_map_with_a_wide_torsion_comes_back_from_its_own_draws():
    """Draws of a known map without cubic terms or tails in reach; its gradients by differentiation."""
    chart, wide = ring(), np.array([8])
    centre = np.array([0.15, 0.15, 0.15, 0.15, 1.9, 1.9, 1.9, 0.0, 0.0])
    known = random_map(chart, ANGLE, centre, wide, seed=4)
    known.narrow.cubic = CubicTerms(*(torch.zeros(*(7,) * n, dtype=torch.float64) for n in (3, 2, 1)))
    rng, n = np.random.default_rng(5), 1500
    base = np.hstack([rng.random((n, 1)), np.clip(rng.standard_normal((n, 7)), -2.4, 2.4)])
    labels = rng.uniform(-np.pi, np.pi, (n, 1))
    at = known(torch.as_tensor(base), torch.as_tensor(labels))[0].requires_grad_(True)
    gradients = torch.autograd.grad(known.inverse(at)[1].sum(), at)[0].numpy()
    options = FitOptions(narrow=(NarrowOptions(3, 2, 1e-2),), uniform_share=0.02, lost_gain=1e-4)
    map_ = fit_triangular(chart, ANGLE, at.detach().numpy(), gradients, wide=wide, options=options)
    assert Roles.of(chart, wide).circular.tolist() == map_.circular_indices.tolist() == [8]
    with torch.no_grad():
        lost = (known.inverse(at)[1] - map_.inverse(at)[1]).numpy()
    assert lost.mean() + 4 * lost.std() / n**0.5 >= 0 and lost.mean() < 0.1


def test_circular_fits_do_not_depend_on_the_scale_of_the_weights():
    chart, wide = ring(), np.array([8])
    centre = np.array([0.15, 0.15, 0.15, 0.15, 1.9, 1.9, 1.9, 0.0, 0.0])
    known = random_map(chart, ANGLE, centre, wide, seed=4)
    rng, n = np.random.default_rng(5), 200
    base = np.hstack([rng.random((n, 1)), rng.standard_normal((n, 7))])
    at = known(torch.as_tensor(base), torch.as_tensor(rng.uniform(-np.pi, np.pi, (n, 1))))[0].requires_grad_(True)
    gradients = torch.autograd.grad(known.inverse(at)[1].sum(), at)[0].numpy()
    maps = [
        fit_triangular(chart, ANGLE, at.detach().numpy(), gradients, np.full(n, scale), wide) for scale in (1.0, 1e-3)
    ]
    assert torch.allclose(maps[0].circular[0].coefficients, maps[1].circular[0].coefficients)


@pytest.mark.parametrize(("kinds", "folds"), [("p", []), ("p", [3]), ("po", [3]), ("o", []), ("pp", [3, 2])])
def test_products_of_features_are_sums_of_waves(kinds, folds):
    """Exact within the domain and beyond it, where functions without a period are constant."""
    condition = Condition(LabelBasis(axes(kinds), 3), len(kinds), folds, 3)
    features = np.flatnonzero(condition.orders.numpy() <= 2)
    made = narrow_fit._Expansion.of(condition, features)
    places = condition.places(200, np.random.default_rng(3))
    places[:20, : len(kinds)] += 7.0
    values = condition(torch.as_tensor(places)).numpy()[:, features]
    found = made.coefficients @ made.terms(places, values)
    a, b = np.triu_indices(len(features))
    assert np.abs(found - (values[:, a] * values[:, b]).T).max() < 1e-10
    assert (made.pairs[a, b] == np.arange(len(a))).all() and (made.pairs == made.pairs.T).all()
    assert made.coefficients.shape[1] <= len(a)


def test_means_of_many_labels_have_lower_orders():
    """One more label must not multiply the functions beyond what structures determine."""
    orders = [score_fit._with_few_functions(FitOptions(), d).narrow[-1].order for d in (1, 2, 3, 4, 5)]
    assert orders == [6, 6, 5, 4, 3]


def test_random_parts_have_what_the_fit_uses():
    basis = LabelBasis(with_wide(ANGLE, 1), 2)
    assert (basis.orders_of_axes[random_circular(basis, 1, 1, np.random.default_rng(0)).functions, 1:] == 0).all()
