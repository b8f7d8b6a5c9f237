"""The triangular map in closed form, from structures and the forces on them.

Where ``log q(y | c)`` is normal its gradient ``h(c) - P(c) y`` is linear in the parameters of h and P, so that the
least squares of the known gradient determine them (score matching with known scores, Hyvarinen 2005). By Stein's
identity the optimum is that of moment matching, and a structure is worth as many equations as it has coordinates.
"""

from dataclasses import replace

import numpy as np
import torch

from ..coordinates.slow_coordinates import Axes
from ..errors import InputError, checked
from ..reference.chart import Chart
from ..units import FloatArray, IntArray
from .circular import CircularDensity
from .fit_options import MAX_FUNCTIONS, ConditionAxes, FitOptions, Roles
from .label_basis import LabelBasis, highest_order
from .narrow_fit import MAX_PROJECTED, NarrowData, deviations, fit_narrow, robust_weights
from .transport import transported_gradients
from .triangular import Condition, CubicTerms, NarrowCoordinates, TriangularMap


def _fit_circular(
    functions: IntArray,
    basis: FloatArray,
    roughness: FloatArray,
    angles: FloatArray,
    slopes: FloatArray,
    weights: FloatArray,
    fold: int,
    options: FitOptions,
) -> CircularDensity:
    """A circular density from derivatives of its logarithm, by weighted least squares."""
    orders = np.arange(1, options.harmonics + 1) * fold
    phases = angles[:, None] * orders
    waves = np.concatenate([-orders * np.sin(phases), orders * np.cos(phases)], axis=1)
    features = basis[:, functions]
    columns = (features[:, :, None] * waves[:, None, :]).reshape(len(angles), -1)
    weights = robust_weights(slopes[:, None], weights)
    penalty = options.circular_ridge * np.repeat((1 + roughness[functions]) ** 2, waves.shape[1])
    matrix = (columns * weights[:, None]).T @ columns + np.diag(penalty)
    found = np.linalg.solve(matrix, columns.T @ (weights * slopes)).reshape(len(functions), -1)
    return CircularDensity(torch.as_tensor(functions), torch.as_tensor(found), fold, options.uniform_share)


def effective_structures(coordinates: FloatArray, gradients: FloatArray, weights: FloatArray) -> float:
    """How many structures of equal weight they are worth.

    Args:
        coordinates: shape=(n, n_coordinates).
        gradients: shape=(n, n_coordinates).
        weights: shape=(n,).

    Raises:
        InputError: some are not finite.
    """
    if bad := int((~np.isfinite(coordinates).all(axis=1) | ~np.isfinite(gradients).all(axis=1)).sum()):
        raise InputError(f"{bad} training structures have gradients that are not finite: leave them out")
    return float(weights.sum() ** 2 / max((weights**2).sum(), 1e-300))


def _check_structures(
    chart: Chart, slow: Axes, coordinates: FloatArray, gradients: FloatArray, weights: FloatArray
) -> None:
    if len(chart.label_indices) != len(slow.names):
        raise InputError(
            f"{', '.join(slow.names)}: labels are no coordinates of the chart: use torsions or particle components"
        )
    effective = effective_structures(coordinates, gradients, weights)
    if not effective >= 20:
        raise InputError(f"only {effective:.0f} effective training structures: give more of them, or raise `windows`")


@checked
def fit_triangular(
    chart: Chart,
    slow: Axes,
    coordinates: FloatArray,
    gradients: FloatArray,
    weights: FloatArray | None = None,
    wide: IntArray | None = None,
    options: FitOptions = FitOptions(),
) -> TriangularMap:
    """Fit a triangular map to structures and the gradients of their log density.

    Args:
        chart: whose coordinates the labels belong to.
        slow: the labels.
        coordinates: shape=(n, n_coordinates), nm and radians; they need not be in equilibrium.
        gradients: shape=(n, n_coordinates), of ``log pi = -beta U + log J`` in the chart.
        weights: shape=(n,); equal by default.
        wide: coordinates that are wide torsions.
        options: see there.

    Raises:
        InputError: labels are no coordinates of the chart, or structures are too few, do not move or have no forces.
    """
    roles, folds = Roles.of(chart, wide), chart.folds
    weights = np.ones(len(coordinates)) if weights is None else np.asarray(weights, dtype=float)
    _check_structures(chart, slow, coordinates, gradients, weights)
    weights = weights / weights.mean()
    options = _with_few_functions(options, len(roles.labels) + len(roles.wide))
    condition = condition_of(slow, roles, folds, max(one.order for one in options.narrow), options)
    conditions = coordinates[:, np.concatenate([roles.labels, roles.circular])]
    periodic = chart.periodic[roles.narrow]
    fast = coordinates[:, roles.narrow], gradients[:, roles.narrow]
    narrow = fit_narrow(NarrowData.of(condition, conditions, *fast, weights, periodic), options)
    rows = np.arange(len(coordinates))[:: max(1, len(coordinates) // MAX_PROJECTED)]
    coordinates, gradients, weights, conditions = (part[rows] for part in (coordinates, gradients, weights, conditions))
    centres = narrow.origin.numpy()
    values = centres + deviations(coordinates[:, roles.narrow], centres, periodic)
    slopes = transported_gradients(
        narrow, conditions, values, gradients[:, roles.narrow], conditions.shape[1], periodic
    )
    slopes += gradients[:, np.concatenate([roles.labels, roles.circular])]
    circular = _circular_densities(condition, roles, folds, conditions, slopes, weights, options)
    return assembled(chart, roles, circular, narrow)


def _circular_densities(
    condition: Condition,
    roles: Roles,
    folds: IntArray,
    conditions: FloatArray,
    slopes: FloatArray,
    weights: FloatArray,
    options: FitOptions,
) -> list[CircularDensity]:
    """Of wide torsions, each given the labels and the earlier ones, and of symmetric rotors, given all of these."""
    basis = condition.basis
    functions = basis(torch.as_tensor(conditions[:, : condition.n_axes])).numpy()
    orders, circular = basis.orders_of_axes.numpy(), []
    for i, index in enumerate(roles.circular):
        known = len(roles.labels) + min(i, len(roles.wide))
        usable = (basis.total_orders.numpy() <= options.circular_order) & (orders[:, known:] == 0).all(axis=1)
        circular.append(
            _fit_circular(
                np.flatnonzero(usable),
                functions,
                basis.roughness.numpy(),
                conditions[:, len(roles.labels) + i],
                slopes[:, len(roles.labels) + i],
                weights,
                int(folds[index]),
                options,
            )
        )
    return circular


def _with_few_functions(options: FitOptions, n_axes: int) -> FitOptions:
    """The same with orders of the mean that have no more than `MAX_FUNCTIONS`."""
    highest = highest_order(n_axes, MAX_FUNCTIONS)
    return replace(options, narrow=tuple(replace(one, order=min(one.order, highest)) for one in options.narrow))


def condition_of(slow: Axes, roles: Roles, folds: IntArray, order: int, options: FitOptions) -> Condition:
    """The features of narrow coordinates, whose basis serves circular ones too.

    Args:
        slow: the labels.
        roles: of the chart's coordinates.
        folds: shape=(n_coordinates,).
        order: the highest.
        options: of circular densities.
    """
    n_wide = len(roles.wide)
    basis = LabelBasis(ConditionAxes.of(slow, n_wide), max(order, options.circular_order, 1))
    return Condition(basis, len(roles.labels) + n_wide, folds[roles.rotors].tolist(), order)


def assembled(chart: Chart, roles: Roles, circular: list[CircularDensity], narrow: NarrowCoordinates) -> TriangularMap:
    """The map of a chart's coordinates from its parts."""
    return TriangularMap(
        chart.n_coordinates,
        label_indices=torch.as_tensor(np.array(roles.labels)),
        circular_indices=torch.as_tensor(roles.circular),
        n_wide=len(roles.wide),
        narrow_indices=torch.as_tensor(np.array(roles.narrow)),
        periodic=torch.as_tensor(chart.periodic[roles.narrow]),
        circular=circular,
        narrow=narrow,
    )


def untrained_triangular(
    chart: Chart,
    slow: Axes,
    origin: FloatArray,
    scales: FloatArray,
    rng: np.random.Generator,
    strength: float = 0.3,
) -> TriangularMap:
    """A map that has seen no structure: around one, with random couplings and means; circular coordinates even.

    Args:
        chart: whose coordinates the labels belong to.
        slow: the labels.
        origin: shape=(n_coordinates,), of the structure.
        scales: shape=(n_coordinates,), standard deviations.
        rng: of the random parts.
        strength: of these, in standard deviations.
    """
    roles = Roles.of(chart)
    options = _with_few_functions(FitOptions(), len(roles.labels))
    condition = condition_of(slow, roles, chart.folds, max(one.order for one in options.narrow), options)
    k, n_features = len(roles.narrow), len(condition.orders)
    smooth = np.flatnonzero(condition.orders.numpy() <= 1)
    mean, log_width = np.zeros((n_features, k)), np.zeros((n_features, k))
    for part in (mean, log_width):
        part[smooth] = rng.normal(0.0, strength, (len(smooth), k))
    coupling = np.zeros((n_features, k, k))
    coupling[0] = np.tril(rng.normal(0.0, strength / k**0.5, (k, k)), -1)
    narrow = NarrowCoordinates(
        condition,
        mean=torch.as_tensor(mean),
        log_width=torch.as_tensor(log_width),
        coupling=torch.as_tensor(coupling),
        cubic=CubicTerms.none(k),
        origin=torch.as_tensor(origin[roles.narrow]),
        scale=torch.as_tensor(scales[roles.narrow]),
    )
    even = torch.zeros(1, 2, dtype=torch.float64)
    constant = torch.zeros(1, dtype=torch.int64)
    circular = [CircularDensity(constant, even, int(chart.folds[i]), 1.0) for i in roles.circular]
    return assembled(chart, roles, circular, narrow)
