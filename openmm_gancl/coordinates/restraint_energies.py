"""The energy of a restraint on slow coordinates."""

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import ive

from ..units import BoolArray, FloatArray
from .geometry import embedded

if TYPE_CHECKING:
    from .slow_coordinates import SlowCoordinates


def restraint_form(slow: "SlowCoordinates") -> Any:
    """``cosine`` or ``harmonic``; an array of both, shape=(d,), where coordinates differ."""
    forms = np.where(np.isfinite(slow.periods), "cosine", "harmonic")
    return forms[0] if (forms == forms[0]).all() else forms


def restraint_terms(differences: FloatArray, cosine: bool | BoolArray) -> FloatArray:
    """1 - cos of differences from a centre, or half their squares: energies of a force constant of one.

    Args:
        differences: any shape, radians or nm; of the harmonic form the short way around.
        cosine: which form; an array of them broadcasts.
    """
    if isinstance(cosine, bool):
        return 1.0 - np.cos(differences) if cosine else 0.5 * differences**2
    return np.where(cosine, 1.0 - np.cos(differences), 0.5 * differences**2)


def restraint_energies(
    slow: "SlowCoordinates", force_constants: FloatArray, cv_values: FloatArray, labels: FloatArray
) -> FloatArray:
    """U_C in kJ/mol of values of the slow coordinates under restraints at labels.

    Args:
        slow: the slow coordinates.
        force_constants: shape=(d,).
        cv_values: shape=(..., d), xi(x).
        labels: shape=(..., d), restraint centres; broadcast against ``cv_values``.

    Returns:
        the broadcast shape without its last axis.
    """
    terms = restraint_terms(cv_values - labels, np.isfinite(slow.periods))
    return np.asarray((terms * force_constants).sum(axis=-1))


def log_boltzmann_factors(
    slow: "SlowCoordinates", force_constants: FloatArray, places: FloatArray, centres: FloatArray
) -> FloatArray:
    """-U_C / kT of every place under a restraint at every centre, shape=(n, m): 1 - cos is half a squared chord.

    Args:
        slow: the slow coordinates.
        force_constants: shape=(d,), in units of kT.
        places: shape=(n, d).
        centres: shape=(m, d).
    """
    periodic = np.isfinite(slow.periods)
    scales = np.sqrt(np.concatenate([force_constants[rows] for rows in (~periodic, periodic, periodic)]))
    points, others = (scales * embedded(values, slow.periods) for values in (places, centres))
    return np.asarray(-0.5 * cdist(points, others, "sqeuclidean"))


def sample_restraint(
    slow: "SlowCoordinates", force_constants: FloatArray, centres: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Labels from the Boltzmann distribution of restraints alone, one for each, shape=(n, d).

    Args:
        slow: the slow coordinates.
        force_constants: shape=(d,), positive, in units of kT.
        centres: shape=(n, d).
        rng: of the labels.
    """
    columns = [
        rng.vonmises(middle, constant) if np.isfinite(period) else rng.normal(middle, constant**-0.5)
        for middle, constant, period in zip(centres.T, force_constants, slow.periods, strict=True)
    ]
    return np.stack(columns, axis=1)


def log_restraint_integral(slow: "SlowCoordinates", force_constants: FloatArray) -> float:
    """log of the integral of ``exp(-U_C / kT)`` over the labels: a circle of each period, or the whole line.

    Args:
        slow: the slow coordinates.
        force_constants: shape=(d,), positive, in units of kT.
    """
    periodic = np.isfinite(slow.periods)
    circle = np.log(2 * np.pi * ive(0, force_constants))
    return float(np.where(periodic, circle, 0.5 * np.log(2 * np.pi / force_constants)).sum())
