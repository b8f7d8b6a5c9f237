"""The mean force from lifts, integrated to a surface, and its comparison with the surface of the lifts' own weights.

``-F'(s) = <f . v + kT div v>`` given s, with any field v that moves each label at unit rate: ``v = G^-1 grad xi`` (den
Otter 2000, doi 10.1063/1.481329), or the generator's own map, whose forces have less noise. An average of forces at a
label does not feel how much the label weighs: it agrees with the surface from weights only if both are right.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import chi2, norm
from threadpoolctl import threadpool_limits

from ..errors import InputError, checked
from ..free_energy.cox_process import CORRELATION_LENGTHS
from ..free_energy.label_tables import LabelTables
from ..free_energy.surface import ALIGNMENT_CEILING, FreeEnergySurface
from ..lifting.label_regression import LabelRegression
from ..sampling.labels import grid_labels, spread
from ..units import FloatArray
from .ensemble import Ensemble
from .observables import metric_term, observe, projected_force

PLACES = {1: 12, 2: 30}
"""Labels at which surfaces are compared, by the number of coordinates; scattered over those below 10 kT."""

CANDIDATES = {1: 48, 2: 24}
"""Labels a coordinate, from which these are chosen."""

PASSES = 2
"""Of slopes and their scatter in turn."""

LEAST_SHARE = 1e-6
"""Of the largest variance of a combination of differences, below which it is rounding."""

Z_THRESHOLD = 4.0
"""Of the closure test, beyond which the lifts are not to be trusted."""


@dataclass(frozen=True)
class MeanForceTest:
    """The surface from mean forces against that from weights, of the same lifts.

    Attributes:
        surface: from mean forces alone.
        surface_of_weights: from weights alone.
        labels: shape=(k, d), at which they are compared.
        differences: shape=(k,), kT, the first less the second, their mean zero.
        errors: shape=(k,), kT, one sigma: both come of the same lifts, whose pull on either is followed.
        z: of chi-squared of all differences with their covariances, as a normal deviate; above 4 the lifts are not to
            be trusted.
    """

    surface: FreeEnergySurface
    surface_of_weights: FreeEnergySurface
    labels: FloatArray
    differences: FloatArray
    errors: FloatArray
    z: float

    @property
    def rms(self) -> float:
        """Root mean square difference, kT."""
        return float(np.sqrt((self.differences**2).mean()))

    def doubts(self) -> list[str]:
        """Sentences, where the two disagree."""
        if self.z <= Z_THRESHOLD:
            return []
        return [
            f"mean force and weights give different surfaces (z = {self.z:.1f}, {self.rms:.2f} kT): labels, weights or "
            "forces of the lifts are wrong, or the lifts too few"
        ]


@checked
def mean_force_values(ensemble: Ensemble, platform: str = "Reference", *, with_metric_term: bool = True) -> FloatArray:
    """``f . v + kT div v`` of each configuration, shape=(n, d), kJ/mol over the label's unit; zero without a weight.

    Its average given the label is the mean force ``-F'(s)``. One evaluation of the forces each.

    Args:
        ensemble: lifts.
        platform: an OpenMM platform.
        with_metric_term: False leaves ``kT div v`` out, to see how much it is.

    Raises:
        InputError: the System has constraints, against which v would move.
    """
    system = ensemble.system
    values = observe(ensemble, projected_force(system, ensemble.slow, platform))
    return values + observe(ensemble, metric_term(system, ensemble.slow)) if with_metric_term else values


@dataclass(frozen=True, eq=False)
class _Fit:
    """A log density fitted, the inverse of its information, and the precisions of its prior."""

    regression: LabelRegression
    inverse: FloatArray
    prior: FloatArray


def _inverse(matrix: FloatArray) -> FloatArray:
    return np.asarray(cho_solve(cho_factor(matrix, lower=True), np.eye(len(matrix))))


def _fit_slopes(tables: LabelTables, slopes: FloatArray, lift_weights: FloatArray) -> tuple[_Fit, FloatArray]:
    """A log density from its noisy slopes, shape=(n, d), and the pull of each lift along each axis, shape=(n, d)."""
    functions, axes = tables.functions, range(slopes.shape[1])
    residuals, best = slopes, None
    for _ in range(PASSES):
        variance = float((lift_weights[:, None] ** 2 * residuals**2).sum() / residuals.size)
        weights = lift_weights / variance
        matrix = tables.gram(weights, axes)
        right = sum((tables.project(weights * slopes[:, axis], axis) for axis in axes), np.zeros(len(functions)))
        best = None
        for length in CORRELATION_LENGTHS:
            prior = functions.prior_precision(length)
            factor = cho_factor(matrix + np.diag(prior), lower=True)
            coefficients = cho_solve(factor, right)
            log_determinant = 2 * np.log(np.diag(factor[0])).sum()
            evidence = 0.5 * float(right @ coefficients + np.log(prior).sum() - log_determinant)
            if best is None or evidence > best[0]:
                best = evidence, length, prior, coefficients
        assert best is not None
        _, length, prior, coefficients = best
        residuals = slopes - np.stack([tables.combine(coefficients, axis) for axis in axes], axis=1)
    inverse, pulls = _inverse(matrix + np.diag(prior)), weights[:, None] * residuals
    scatter = np.diag(prior) + tables.scatter(pulls.T, axes)
    covariance = inverse @ scatter @ inverse
    return _Fit(LabelRegression(functions, coefficients, covariance, length, variance, 0.0), inverse, prior), pulls


def _weights_fit(ensemble: Ensemble, tables: LabelTables) -> tuple[_Fit, FloatArray]:
    """The log density from weights alone, and the pull of each lift, shape=(n,)."""
    regression = ensemble.weight_regression
    prior = regression.functions.prior_precision(regression.length)
    weights = ensemble.share_of_each * ensemble.ratios
    matrix = tables.gram(weights) / regression.dispersion + np.diag(prior)
    return _Fit(regression, _inverse(matrix), prior), (weights - ensemble.share_of_each) / regression.dispersion


def _places(ensemble: Ensemble, surface: FreeEnergySurface) -> FloatArray:
    """Labels below 10 kT of a surface, far from one another, shape=(k, d)."""
    slow, d = ensemble.slow, len(ensemble.slow.names)
    candidates = grid_labels(slow, CANDIDATES[d])
    energies = surface.energy_at(candidates) / ensemble.system.kT
    low = candidates[energies < ALIGNMENT_CEILING]
    low = low[np.argsort(surface.energy_at(low), kind="stable")]
    return low[spread(low, slow.periods, np.ptp(slow.domain, axis=1), PLACES[d])]


def _deviate(differences: FloatArray, covariance: FloatArray) -> float:
    """Chi-squared of differences whose mean is zero, as a normal deviate."""
    variances, directions = np.linalg.eigh(covariance)
    kept = variances > LEAST_SHARE * variances[-1]
    chi_squared = float(((directions[:, kept].T @ differences) ** 2 / variances[kept]).sum())
    p_value = float(chi2.sf(chi_squared, kept.sum()))
    if p_value > 1e-300:
        return float(norm.isf(p_value))
    # far out, where the tail is no number any more: Fisher's approximation
    return float(np.sqrt(2 * chi_squared) - np.sqrt(2 * kept.sum() - 1))


@checked
def closure_test(
    ensemble: Ensemble,
    forces: FloatArray | None = None,
    *,
    platform: str = "Reference",
    bins: int | None = None,
    force_evaluations: int = 0,
) -> MeanForceTest:
    """Integrate mean forces to a surface, and compare it with that of the weights.

    Args:
        ensemble: lifts at fixed labels, or labels of any density.
        forces: shape=(n, d), of `mean_force_values`. By default the slopes that lifts of an invertible generator have
            already, which cost nothing and have less noise, and where there are none these forces, computed.
        platform: an OpenMM platform.
        bins: of the surfaces, a label.
        force_evaluations: to record.

    Raises:
        InputError: more than two labels, constraints, or too few lifts.
    """
    slow, system = ensemble.slow, ensemble.system
    if not ensemble.fixed:
        raise InputError(
            "the weights of these configurations hold no free energy of their labels: give lifts at fixed labels"
        )
    if len(slow.names) not in PLACES:
        raise InputError(f"a surface over {len(slow.names)} labels is not supported: use one or two")
    slopes = ensemble.slopes if forces is None else forces / system.kT
    if slopes is None:
        slopes = mean_force_values(ensemble, platform) / system.kT
    with threadpool_limits(1, user_api="blas"):
        own = ensemble.weight_regression
        of_weights = own.surface(slow, system.temperature, force_evaluations, bins)
        tables = LabelTables(own.functions, ensemble.labels)
        by_force, force_pulls = _fit_slopes(tables, slopes, ensemble.share_of_each * ensemble.ratios)
        by_weight, weight_pulls = _weights_fit(ensemble, tables)
        places = _places(ensemble, of_weights)
        basis = own.functions(places)
        basis = basis - basis.mean(axis=0)
        differences = -basis @ (by_force.regression.coefficients - own.coefficients)
        influence = _combined(tables, basis @ by_weight.inverse, weight_pulls, None)
        for axis in range(len(slow.names)):
            influence -= _combined(tables, basis @ by_force.inverse, force_pulls[:, axis], axis)
        covariance = influence.T @ influence
        for fit in (by_force, by_weight):
            half = basis @ fit.inverse
            covariance += (half * fit.prior) @ half.T
        try:
            surface = by_force.regression.surface(slow, system.temperature, force_evaluations, bins)
        except InputError:
            raise InputError("the mean forces are too noisy to integrate: lift more, or check the weights") from None
    errors = np.sqrt(np.diag(covariance))
    return MeanForceTest(surface, of_weights, places, differences, errors, _deviate(differences, covariance))


def _combined(tables: LabelTables, rows: FloatArray, pulls: FloatArray, axis: int | None) -> FloatArray:
    """Pulls of each lift on combinations of coefficients, shape=(n, k)."""
    return pulls[:, None] * np.stack([tables.combine(row, axis) for row in rows], axis=1)
