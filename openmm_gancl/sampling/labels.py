"""Labels to sample at: scattered, on a grid, or far from one another."""

import numpy as np

from ..coordinates.geometry import wrap
from ..coordinates.slow_coordinates import SlowCoordinates
from ..errors import checked
from ..units import FloatArray, IntArray


@checked
def scattered_labels(slow: SlowCoordinates, n: int, rng: np.random.Generator) -> FloatArray:
    """Labels that fill the domain evenly: a scrambled Sobol sequence, shape=(n, d)."""
    from scipy.stats import qmc  # takes a second

    sequence = qmc.Sobol(len(slow.names), rng=rng)
    points = sequence.random_base2(max(int(np.ceil(np.log2(max(n, 1)))), 0))[:n]
    return np.asarray(qmc.scale(points, slow.domain[:, 0], slow.domain[:, 1]))


@checked
def grid_labels(slow: SlowCoordinates, n: int) -> FloatArray:
    """The centres of an even grid of n cells a coordinate, shape=(n^d, d)."""
    axes = [low + (np.arange(n) + 0.5) * (high - low) / n for low, high in slow.domain]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def spread(labels: FloatArray, periods: FloatArray, widths: FloatArray, n: int) -> IntArray:
    """Indices of up to n labels far from one another, beginning with the first (farthest-point traversal)."""
    chosen = [0]
    distance = np.full(len(labels), np.inf)
    while len(chosen) < min(n, len(labels)):
        step = wrap(labels - labels[chosen[-1]], periods) / widths
        distance = np.minimum(distance, np.linalg.norm(step, axis=1))
        chosen.append(int(distance.argmax()))
    return np.array(chosen)
