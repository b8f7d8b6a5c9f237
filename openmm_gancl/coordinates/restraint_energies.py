"""The energy of a restraint on slow coordinates."""

from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from ..units import FloatArray
from .slow_coordinates import SlowCoordinates, embedded


def restraint_form(slow: SlowCoordinates) -> Any:
    """``cosine`` or ``harmonic``; an array of both, shape=(d,), where coordinates differ."""
    forms = np.where(np.isfinite(slow.periods), "cosine", "harmonic")
    return forms[0] if (forms == forms[0]).all() else forms


def restraint_energies(
    slow: SlowCoordinates, kappa: FloatArray, cv_values: FloatArray, labels: FloatArray
) -> FloatArray:
    """U_C in kJ/mol of obtained labels under restraints at given labels.

    Args:
        slow: the slow coordinates.
        kappa: shape=(d,).
        cv_values: shape=(..., d), xi(x).
        labels: shape=(..., d), restraint centres; broadcast against ``cv_values``.

    Returns:
        the broadcast shape without its last axis.
    """
    difference = cv_values - labels
    periodic = np.isfinite(slow.periods)
    terms = np.where(periodic, 1.0 - np.cos(difference), 0.5 * difference**2)
    return np.asarray((terms * kappa).sum(axis=-1))


def log_boltzmann_factors(
    slow: SlowCoordinates, kappa: FloatArray, places: FloatArray, centres: FloatArray
) -> FloatArray:
    """-U_C / kT of every place under a restraint at every centre, shape=(n, m): 1 - cos is half a squared chord.

    Args:
        slow: the slow coordinates.
        kappa: shape=(d,), in units of kT.
        places: shape=(n, d).
        centres: shape=(m, d).
    """
    periodic = np.isfinite(slow.periods)
    scales = np.sqrt(np.concatenate([kappa[~periodic], kappa[periodic], kappa[periodic]]))
    points, others = (scales * embedded(values, slow.periods) for values in (places, centres))
    return np.asarray(-0.5 * cdist(points, others, "sqeuclidean"))
