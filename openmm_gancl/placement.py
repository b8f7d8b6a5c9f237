"""Where to lift next: evenly over the part of the label space that the surface says matters."""

import numpy as np

from .errors import InputError
from .grid import bin_indices
from .sampling import scattered_labels
from .slow import SlowCoordinates
from .surfaces import FreeEnergySurface
from .units import FloatArray, thermal_energy


def place_labels(
    surface: FreeEnergySurface, slow: SlowCoordinates, n: int, *, ceiling: float, rng: np.random.Generator
) -> FloatArray:
    """Labels scattered evenly where the free energy, less one error bar, lies below a ceiling.

    Args:
        surface: what is known so far; unknown bins count as low only where a neighbour is.
        slow: the slow coordinates.
        n: how many labels.
        ceiling: kT above the minimum.
        rng: of the scatter.

    Returns:
        shape=(n, d).
    """
    limit = ceiling * thermal_energy(surface.temperature)
    error = np.where(np.isfinite(surface.error), surface.error, 0.0)
    wanted = (surface.energy - error < limit).ravel()
    if not wanted.any():
        raise InputError("the surface is nowhere below the ceiling: raise the ceiling")
    n_tried = n
    while True:
        labels = scattered_labels(slow, n_tried, rng)
        inside = labels[wanted[bin_indices(labels, surface.edges, surface.periods)]]
        if len(inside) >= n:
            return inside[:n]
        n_tried *= 2
