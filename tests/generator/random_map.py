"""Triangular maps with random parts: every kind of coordinate, coupling and cubic term at work."""

import numpy as np
import torch

from openmm_gancl.coordinates.slow_coordinates import FirstAxes
from openmm_gancl.generator.circular import CircularDensity
from openmm_gancl.generator.fit_options import Roles
from openmm_gancl.generator.label_basis import LabelBasis
from openmm_gancl.generator.triangular import Condition, CubicTerms, NarrowCoordinates, TriangularMap


def with_wide(slow, n_wide):
    """Labels and wide torsions as axes."""
    names = (*slow.names, *(f"wide_{i}" for i in range(n_wide)))
    periods = np.concatenate([slow.periods, np.full(n_wide, 2 * np.pi)])
    domain = np.concatenate([slow.domain, np.tile([-np.pi, np.pi], (n_wide, 1))])
    return FirstAxes(names, periods, domain, ("",) * len(names))


def random_cubic(k, rng, size=0.06):
    """Shifts, widths and skews, each of the last two numbers from earlier ones, a chain of three."""
    coefficients, widths = torch.zeros(k, k, k, dtype=torch.float64), torch.zeros(k, k, dtype=torch.float64)
    last = k - 1
    coefficients[last, 0, last - 1], coefficients[last, 0, 0], coefficients[last - 1, 0, 0] = size, -size, size
    widths[last, 0], widths[last, last - 1], widths[last - 1, 0] = size, -size, 2 * size
    return CubicTerms(coefficients, widths, torch.as_tensor(rng.uniform(-0.1, 0.1, k)))


def random_narrow(condition, k, rng, origin, scale, size=0.1):
    """Means, widths and couplings that depend on the conditions; one coupling in three does."""
    n = len(condition.orders)
    mean, log_width = size * rng.standard_normal((2, n, k))
    coupling = np.tril(rng.standard_normal((n, k, k)), -1) / np.sqrt(k)
    coupling[0] *= 2 * size
    coupling[1:] *= 0.3 * size * (rng.random((k, k)) < 1 / 3)
    parts = (torch.as_tensor(part) for part in (mean, log_width, coupling))
    return NarrowCoordinates(condition, *parts, random_cubic(k, rng), torch.as_tensor(origin), torch.as_tensor(scale))


def random_circular(basis, known, fold, rng):
    """A circular density that depends on the first axes alone."""
    usable = (basis.total_orders <= 2) & (basis.orders_of_axes[:, known:] == 0).all(dim=1)
    functions = torch.nonzero(usable)[:, 0]
    coefficients = torch.as_tensor(0.5 * rng.standard_normal((len(functions), 4)))
    return CircularDensity(functions, coefficients, fold, 0.02)


def random_map(chart, slow, coordinates, wide=(), seed=0):
    """A map about one structure of a chart, shape=(n_coordinates,)."""
    rng, roles = np.random.default_rng(seed), Roles.of(chart, np.asarray(wide, dtype=np.int64))
    d, n_wide = len(roles.labels), len(roles.wide)
    basis, folds = LabelBasis(with_wide(slow, n_wide), 2), chart.folds
    condition = Condition(basis, d + n_wide, folds[roles.rotors].tolist(), 2)
    scale = np.where(chart.periodic, 0.1, 0.03)[roles.narrow]
    narrow = random_narrow(condition, len(roles.narrow), rng, coordinates[roles.narrow], scale)
    circular = [
        random_circular(basis, d + min(i, n_wide), int(folds[index]), rng) for i, index in enumerate(roles.circular)
    ]
    indices = (torch.as_tensor(np.array(part)) for part in (roles.labels, roles.circular))
    rest = (torch.as_tensor(np.array(part)) for part in (roles.narrow, chart.periodic[roles.narrow]))
    return TriangularMap(chart.n_coordinates, *indices, n_wide, *rest, circular, narrow)
