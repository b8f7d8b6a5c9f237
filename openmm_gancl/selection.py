"""Which coordinates of a diffusion map say something new: harmonics of earlier ones are left out.

Parsimonious representation by local linear regression (Dsilva, Talmon, Coifman, Kevrekidis 2018,
doi 10.1016/j.acha.2015.06.008): a coordinate that earlier ones predict is a harmonic of them.
"""

from dataclasses import dataclass

import numpy as np

from .random_numbers import named_rng
from .units import FloatArray, IntArray

MOST_POINTS = 1500
"""Points, at most, that the regression looks at."""

RELATIVE_BANDWIDTH = 1.0 / 3.0
"""Of the regression's kernel, in median distances."""

RIDGE = 1e-8


@dataclass(frozen=True)
class Selection:
    """The scores of all coordinates and the ones chosen.

    Attributes:
        scores: shape=(n_coordinates,), residual of each from those before it; 1 new, 0 predicted.
        chosen: indices of the coordinates that score above the threshold.
        threshold: of the score, below which a coordinate is a harmonic.
    """

    scores: FloatArray
    chosen: IntArray
    threshold: float


def _residual(before: FloatArray, target: FloatArray) -> float:
    """Leave-one-out residual of a locally linear fit, relative to the target's size."""
    n = len(target)
    squared = ((before[:, None] - before[None]) ** 2).sum(axis=-1)
    width = RELATIVE_BANDWIDTH * np.median(np.sqrt(squared))
    np.fill_diagonal(squared, np.inf)
    # relative to the nearest, or an outlier has no neighbour at all and its fit is singular
    kernel = np.exp(-(squared - squared.min(axis=1, keepdims=True)) / max(width**2, 1e-300))
    design = np.column_stack([np.ones(n), before])
    normal = np.einsum("ij,ja,jb->iab", kernel, design, design, optimize=True)
    normal += RIDGE * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(design.shape[1])
    right = kernel @ (design * target[:, None])
    fitted = (np.linalg.solve(normal, right[..., None])[..., 0] * design).sum(axis=1)
    return float(np.sqrt(((target - fitted) ** 2).sum() / (target**2).sum()))


def select_coordinates(
    coordinates: FloatArray, *, known: FloatArray | None = None, threshold: float = 0.3, seed: int = 0
) -> Selection:
    """Leave out coordinates that earlier ones predict.

    Args:
        coordinates: shape=(n, n_coordinates), of a diffusion map, slowest first.
        known: shape=(n, m), of what is a label already (sine and cosine of a torsion, say).
        threshold: of the score, below which a coordinate is a harmonic.
        seed: of the points that are looked at, where there are many.
    """
    n = len(coordinates)
    rows: IntArray | slice = slice(None)
    if n > MOST_POINTS:
        rows = np.sort(named_rng(seed, "select coordinates").choice(n, MOST_POINTS, replace=False))
    first = np.empty((n, 0)) if known is None else known
    few, m = np.column_stack([first, coordinates])[rows], first.shape[1]
    scores = np.array([_residual(few[:, :k], few[:, k]) if k else 1.0 for k in range(m, few.shape[1])])
    return Selection(scores, np.flatnonzero(scores > threshold), threshold)
